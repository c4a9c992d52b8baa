"""Tables and JSON on stdout.

A table never loses a figure: if the terminal is too narrow, names are cut in the middle or folded.
A file or a pipe gets everything. All text from outside (names of files, tensors, devices, networks)
passes :func:`printable`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from edgeface.errors import OutputError
from edgeface.files import write_text

LONGEST = 5000
"""characters of a text: more than any path has"""
NARROWEST = 12
"""characters to which a column of names may be narrowed"""
GAP = "  "
UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that move the cursor, turn text around, or cannot be seen"""


def printable(text: object, longest: int = LONGEST) -> str:
    """``text`` as one line without anything that a terminal obeys.

    A text of more than ``longest`` characters loses its middle, before characters are escaped."""
    line = str(text)
    line = middle(line, longest) if len(line) > longest else line
    return "".join(_escaped(c) if unicodedata.category(c) in UNPRINTABLE else c for c in line)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def say(text: object) -> None:
    """Print one line on stdout."""
    put(printable(text))


def print_json(data: Any) -> None:
    """Print JSON on stdout. Characters that are not ASCII are escaped as in JSON."""
    put(json.dumps(data, indent=1))


def put(text: str) -> bool:
    """Print at once. Returns False if the reader of stdout has closed it, as head does.

    That does not end the command or change its exit code. Raises OutputError if stdout takes no
    more, as on a full disk."""
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = nowhere()
        return False
    except OSError as error:
        sys.stdout = nowhere()
        raise OutputError(
            f"cannot print: {error.strerror or error}: send stdout to where there is room"
        ) from None
    return True


def settle() -> None:
    """Drop output that stdout does not take.

    Python would try again when it exits, and fail with a message and an exit code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = nowhere()


def nowhere() -> TextIO:
    """A stream that discards what is written to it."""
    # No context manager: the interpreter flushes it at exit.
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    right: Iterable[str] = (),
    fold: Iterable[str] = (),
    indent: int = 0,
) -> None:
    """Print a table on stdout, at most as wide as the terminal if it is one; see :func:`table`."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    put(table(columns, rows, right, fold, width and width - indent, indent))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    right: Iterable[str] | None = None,
    fold: Iterable[str] = (),
    width: int | None = None,
    indent: int = 0,
) -> str:
    """A table in plain text under a line of column names; None is printed as a dash.

    right: columns of figures, aligned right and never cut; default: all but the first. fold:
    columns whose text continues on the next line instead of being cut. width: characters available;
    None: unlimited.
    """
    figures = set(columns[1:] if right is None else right)
    cells = [
        [printable(column) for column in columns],
        *(["-" if value is None else printable(value) for value in row] for row in rows),
    ]
    widths = [max(map(cells_wide, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        narrow(widths, [i for i, name in enumerate(columns) if name not in figures], width)
    folded = [column in set(fold) for column in columns]
    lines = [line for row in cells for line in _lines(row, widths, folded)]
    aligned = (joined(line, widths, [column in figures for column in columns]) for line in lines)
    return textwrap.indent("\n".join(aligned), " " * indent)


def narrow(widths: list[int], names: Sequence[int], width: int) -> None:
    """Narrow the widest of the columns ``names`` until the table fits in ``width``.

    Stops when all of them have :data:`NARROWEST` characters or fewer."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    while excess > 0 and names and max(widths[i] for i in names) > NARROWEST:
        widest = max(names, key=lambda i: widths[i])
        widths[widest] -= 1
        excess -= 1


def _lines(
    row: Sequence[str], widths: Sequence[int], folded: Sequence[bool]
) -> Iterable[list[str]]:
    """The lines of one row: several if a text is folded."""
    parts = [
        _wrapped(text, width) if fold else [middle(text, width)]
        for text, width, fold in zip(row, widths, folded, strict=True)
    ]
    for i in range(max(map(len, parts))):
        yield [part[i] if i < len(part) else "" for part in parts]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(1, width), break_on_hyphens=False) or [""]


def joined(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """One line of a table; ``right``: for each column, whether it is aligned right."""
    padded = (
        (
            " " * (width - cells_wide(text)) + text
            if to_the_right
            else text + " " * (width - cells_wide(text))
        )
        for text, width, to_the_right in zip(line, widths, right, strict=True)
    )
    return GAP.join(padded).rstrip()


def middle(text: str, width: int) -> str:
    """``text``, or its two ends around ``...`` if it is wider than ``width`` terminal columns."""
    if cells_wide(text) <= width:
        return text
    left = right = ""
    while cells_wide(left + right) < width - 3:
        source = text[len(left)] if len(left) <= len(right) else text[-len(right) - 1]
        if cells_wide(left + right + source) > width - 3:
            break
        left, right = (left + source, right) if len(left) <= len(right) else (left, source + right)
    return f"{left}...{right}"


def cells_wide(text: str) -> int:
    """Columns that a terminal needs for ``text``."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def emit(data: Any, text: str, format: str, save: Path | None = None) -> None:
    """Print ``data`` as JSON, or ``text`` for people; also write the JSON to ``save``.

    Raises OutputError."""
    if save is not None:
        write_text(save, json.dumps(data, indent=1) + "\n")
    if format == "json":
        print_json(data)
    else:
        for line in text.splitlines():
            put(printable(line, sys.maxsize))
