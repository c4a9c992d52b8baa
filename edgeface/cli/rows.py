"""Prints the faces of each photo or frame as soon as they are found, and keeps none in memory."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Protocol

from edgeface.cli.output import GAP, cells_wide, joined, middle, narrow, printable, put

Row = dict[str, Any]
"""name and faces of one image, as in the JSON output"""
ROW_FORMATS = ("table", "json", "jsonl")
FIGURES = {"score": 7, "x1": 7, "y1": 7, "x2": 7, "y2": 7}
"""column of figures -> its width in characters"""
FRAME_DIGITS = 7
"""characters for # and the number of a frame, behind the name of a video"""


class Rows(Protocol):
    """Prints rows."""

    gone: bool
    """True once the reader of stdout, such as head, has closed it"""

    def add(self, row: Row) -> None:
        """Print the row of one image."""

    def end(self) -> None:
        """Finish the output after the last row."""


def open_rows(format: str, names: Sequence[tuple[str, bool]], tracked: bool) -> Rows:
    """Rows in one of ``ROW_FORMATS``.

    names: name of each input, and whether it is a video. tracked: faces have ids."""
    if format == "json":
        return _Array()
    return _Lines() if format == "jsonl" else _Table(names, tracked)


class _Lines:
    """A line of JSON for each image."""

    gone = False

    def add(self, row: Row) -> None:
        self.gone = not put(json.dumps(row)) or self.gone

    def end(self) -> None:
        pass


class _Array:
    """One JSON array, the same text as json.dumps(rows, indent=1)."""

    gone = False
    _item = ""

    def add(self, row: Row) -> None:
        # A row is printed when the next one comes: only then is it known that a comma follows.
        begin = f"{self._item}," if self._item else "["
        self.gone = not put(begin) or self.gone
        self._item = textwrap.indent(json.dumps(row, indent=1), " ")

    def end(self) -> None:
        self.gone = not put(f"{self._item}\n]" if self._item else "[]") or self.gone


class _Table:
    """A line for each face, under a line of names; see :func:`edgeface.cli.output.table`."""

    gone = False
    _begun = False

    def __init__(self, names: Sequence[tuple[str, bool]], tracked: bool) -> None:
        self._columns = ("image", *FIGURES, *(("id",) if tracked else ()))
        self._tracked = tracked
        self._widths = [5, *FIGURES.values(), *((5,) if tracked else ())]
        for name, is_video in names:
            self._widths[0] = max(
                self._widths[0], cells_wide(printable(name)) + is_video * FRAME_DIGITS
            )
        self._room = sys.maxsize
        if sys.stdout.isatty():
            columns = shutil.get_terminal_size().columns
            narrow(self._widths, [0], columns)
            self._room = columns - sum(self._widths[1:]) - len(GAP) * (len(self._widths) - 1)

    def add(self, row: Row) -> None:
        if not self._begun:
            self._line(*self._columns)
            self._begun = True
        name = printable(row["image"])
        # The frame numbers of a camera get longer after some hours; they are not cut.
        self._widths[0] = max(self._widths[0], min(cells_wide(name), self._room))
        for face in row["faces"]:
            numbers = (str(face.get("id", "-")),) if self._tracked else ()
            self._line(name, f"{face['score']:.3f}", *(f"{v:.1f}" for v in face["box"]), *numbers)
        if not row["faces"]:
            self._line(name, "no face", *[""] * (len(self._columns) - 2))

    def end(self) -> None:
        pass

    def _line(self, name: str, *figures: str) -> None:
        right = [False, *[True] * len(figures)]
        line = joined((middle(name, self._widths[0]), *figures), self._widths, right)
        self.gone = not put(line) or self.gone
