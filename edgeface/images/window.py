"""Shows frames on a screen."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import cv2

from edgeface.errors import OutputError
from edgeface.images.scaling import Image
from edgeface.types import Closing

TITLE = "edgeface"
END_KEYS = (27, ord("q"))
"""Esc and q"""
PROBE = "import cv2; cv2.namedWindow('edgeface'); cv2.destroyAllWindows()"
PROBE_S = 30
SAVE = "or write to a file with --save"


class Window(Closing):
    """One window. Raises OutputError if none can be opened.

    ``closed`` becomes True if the user presses q or Esc or closes the window.
    """

    def __init__(self) -> None:
        _check()
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._sized = self.closed = False

    def show(self, picture: Image, wait: bool = False) -> None:
        """Show an RGB image; ``wait`` for a key."""
        if self.closed:
            return
        if not self._sized:
            cv2.resizeWindow(TITLE, picture.shape[1], picture.shape[0])
            self._sized = True
        cv2.imshow(TITLE, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        while True:
            key = cv2.waitKey(50 if wait else 1)
            gone = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
            if key & 0xFF in END_KEYS or gone:
                self.closed = True
            if self.closed or key >= 0 or not wait:
                return

    def close(self) -> None:
        """Remove the window from the screen."""
        cv2.destroyAllWindows()


def _check() -> None:
    """Raise OutputError if no window can be opened.

    A separate process tries it, because without a screen Qt ends the process.
    """
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        raise OutputError(
            "this OpenCV has no windows: run: pip uninstall -y opencv-python-headless && pip"
            f" install opencv-python; {SAVE}"
        )
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise OutputError(f"there is no display here: run this on a desktop, {SAVE}")
    try:
        subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_S, check=True
        )
    except subprocess.SubprocessError:
        display = os.environ.get("DISPLAY", "")
        raise OutputError(
            f"no window opens on display {display!r}: run this on a desktop, {SAVE}"
        ) from None
