"""Outputs for frames with their faces: files, a window, a folder of cropped faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgeface.detections import Detections
from edgeface.errors import EdgefaceError
from edgeface.images.blurring import blur
from edgeface.images.crops import Cropper
from edgeface.images.drawing import draw
from edgeface.images.inputs import Input
from edgeface.images.marked import Saver
from edgeface.images.scaling import Image
from edgeface.images.window import Window
from edgeface.types import Doubles


@dataclass(frozen=True)
class Looked:
    """A frame and its faces."""

    name: str
    """name of the frame, as from :func:`edgeface.images.sources`"""
    image: Image
    faces: Detections
    numbers: NDArray[np.int64] | None = None
    """track numbers of the faces [N], if faces are tracked"""
    hidden: Doubles | None = None
    """[M, 4] x1, y1, x2, y2 in px: places of faces that were found shortly before"""
    moving: bool = False
    """True for one of many frames: a window then does not wait for a key"""
    blurred: bool = False
    """True: ``picture`` has the faces blurred, not drawn"""

    @cached_property
    def picture(self) -> Image:
        """The image with faces drawn, or with ``blurred`` blurred."""
        if not self.blurred:
            return draw(self.image, self.faces, numbers=self.numbers)
        boxes = self.faces.boxes.astype(np.float64)
        return blur(
            self.image, boxes if self.hidden is None else np.concatenate((boxes, self.hidden))
        )


class Outputs:
    """All outputs that were requested. Raises OptionError and OutputError for impossible ones."""

    def __init__(
        self,
        inputs: Sequence[Input],
        save: Path | None = None,
        show: bool = False,
        crop: Path | None = None,
        blur: bool = False,
    ) -> None:
        self._blur = blur
        self._saver = Saver(save, inputs) if save and inputs else None
        self._window = Window() if show and inputs else None
        cropper = Cropper(crop, inputs) if crop and inputs else None
        self._steps = _steps(self._saver, self._window, cropper)
        self._broken: set[str] = set()

    @property
    def any(self) -> bool:
        """True if anything is written or shown."""
        return bool(self._steps)

    @property
    def closed(self) -> bool:
        """True if the user closed the window."""
        return self._window is not None and self._window.closed

    def add(self, looked: Looked) -> list[EdgefaceError]:
        """Write and show a frame. Returns the errors; an output that failed is skipped until the
        input ends."""
        looked = replace(looked, blurred=self._blur)
        errors = []
        for name, step in self._steps.items():
            if name in self._broken:
                continue
            try:
                step(looked)
            except EdgefaceError as error:  # the others go on
                self._broken.add(name)
                errors.append(error)
        return errors

    def finish(self) -> list[EdgefaceError]:
        """Complete the files of an input that has ended. Returns the errors."""
        saver = None if "save" in self._broken else self._saver
        self._broken.clear()
        try:
            if saver is not None:
                saver.finish()
        except EdgefaceError as error:
            return [error]
        return []

    def __enter__(self) -> Outputs:
        with ExitStack() as stack:
            if self._saver is not None:
                stack.enter_context(self._saver)
            if self._window is not None:
                stack.enter_context(self._window)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _steps(
    saver: Saver | None, window: Window | None, cropper: Cropper | None
) -> dict[str, Callable[[Looked], None]]:
    """Name of each output -> function that takes a frame, in the order in which they are called."""
    steps: dict[str, Callable[[Looked], None]] = {}
    if saver is not None:
        steps["save"] = lambda looked: saver.write(looked.name, looked.picture)
    if cropper is not None:
        steps["crop"] = lambda looked: cropper.add(
            looked.name, looked.image, looked.faces, looked.numbers
        )
    if window is not None:  # last: it may wait for a key, and a Ctrl-C then must lose nothing
        steps["show"] = lambda looked: window.show(looked.picture, wait=not looked.moving)
    return steps
