"""Shared by the tests of report pages: a reader of HTML, and Chromium without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

HOSTILE = (
    "</text></style><script>alert(1)</script><img src=http://evil.example/x"
    " onerror=\"alert('2')\">\ud800\u202e"
)
CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
VOID = ("meta",)
"""tags of our pages that are never closed"""


class Reader(HTMLParser):
    """Tags, their attributes and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        """tags that are not closed yet"""
        self.crossed: list[str] = []
        """tags closed while another one inside was open"""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data

    def check_harmless(self, plain: Reader, also: tuple[str, ...] = ()) -> None:
        """Check that names with markup stayed text: nothing runs or loads, and all tags are in
        ``plain``, a page with harmless names, or in ``also``."""
        assert {name for name, _ in self.tags} <= {name for name, _ in plain.tags} | {*also}
        assert not any(
            key.startswith("on") or key in ("href", "src", "xlink:href")
            for _, attributes in self.tags
            for key in attributes
        )
        assert "<script>alert(1)" in self.text, "the name itself is shown"


def check_in_chromium(page: Path, width_px: int) -> None:
    """Open ``page`` and fail if the browser complains or draws next to nothing."""
    cv2 = pytest.importorskip("cv2")
    picture = page.with_name("shot.png")
    errors = open_in_chromium(page, picture, width_px)
    assert not re.findall(r".*CONSOLE.*", errors)
    pixels = cv2.imread(str(picture))
    assert pixels is not None and pixels.shape[1] == width_px
    assert np.unique(pixels.reshape(-1, 3), axis=0).shape[0] > 20, "nothing was drawn"
    inked = np.flatnonzero((pixels != pixels[0, 0]).any(axis=(1, 2)))
    assert inked.size > 0.3 * len(pixels), "most of the page is blank"


def open_in_chromium(page: Path, picture: Path, width_px: int, height_px: int = 3000) -> str:
    """Take a screenshot with every network access refused; returns the browser's stderr."""
    assert CHROMIUM
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--proxy-server=127.0.0.1:9",
            "--enable-logging=stderr",
            f"--user-data-dir={picture.parent / 'profile'}",
            f"--window-size={width_px},{height_px}",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr
