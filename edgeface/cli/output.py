"""Tables and JSON on stdout.

A table never loses a figure: where the terminal is too narrow, names are cut in the middle or
folded. A file or a pipe gets everything. Whatever comes from outside (names of files, tensors,
devices, networks) passes :func:`printable`.
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
"""characters of a text: longer than any path is"""
NARROWEST = 12
"""characters that a column of names keeps"""
GAP = "  "
UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that move the cursor, turn text around, or cannot be seen"""


def printable(text: object, longest: int = LONGEST) -> str:
    """One line of at most ``longest`` characters without anything that a terminal obeys; the middle
    is left out."""
    line = str(text)
    line = middle(line, longest) if len(line) > longest else line
    return "".join(_escaped(c) if unicodedata.category(c) in UNPRINTABLE else c for c in line)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def say(text: object) -> None:
    """One line on stdout."""
    put(printable(text))


def print_json(data: Any) -> None:
    """On stdout. What is not ASCII is escaped, as JSON can."""
    put(json.dumps(data, indent=1))


def put(text: str) -> bool:
    """Print at once. A reader that has enough, such as head, ends neither the command nor its exit
    code: False then. Raises OutputError where stdout takes no more, as on a full disk."""
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
    """Let go of what stdout does not take: Python would try again at its end, and have an exit code
    and words of its own for that."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = nowhere()


def nowhere() -> TextIO:
    """A stream for what nobody reads."""
    # No context manager: the interpreter flushes it at exit.
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    right: Iterable[str] = (),
    fold: Iterable[str] = (),
    indent: int = 0,
) -> None:
    """On stdout, as wide as the terminal, or as wide as it is where there is none; see
    :func:`table`."""
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
    """Plain text under a line of names; None is a dash.

    right: columns of figures, which are never cut; default: all but the first. fold: columns whose
    text goes on in the next line rather than being cut. width: characters that there are; None: as
    many as it takes.
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
    """Take from the widest of the columns ``names`` until all fit in ``width``, or until all are as
    narrow as may be."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    while excess > 0 and names and max(widths[i] for i in names) > NARROWEST:
        widest = max(names, key=lambda i: widths[i])
        widths[widest] -= 1
        excess -= 1


def _lines(
    row: Sequence[str], widths: Sequence[int], folded: Sequence[bool]
) -> Iterable[list[str]]:
    """The lines of one row: several where a text is folded."""
    parts = [
        _wrapped(text, width) if fold else [middle(text, width)]
        for text, width, fold in zip(row, widths, folded, strict=True)
    ]
    for i in range(max(map(len, parts))):
        yield [part[i] if i < len(part) else "" for part in parts]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(1, width), break_on_hyphens=False) or [""]


def joined(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """One line of a table; ``right``: of each column, whether its text ends at the right."""
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
    """``text``, or its two ends around ``...``, in ``width`` characters of a terminal."""
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
    """Print ``data`` as JSON, or ``text`` for people; keep the JSON in ``save``, too. Raises
    OutputError."""
    if save is not None:
        write_text(save, json.dumps(data, indent=1) + "\n")
    if format == "json":
        print_json(data)
    else:
        for line in text.splitlines():
            put(printable(line, sys.maxsize))
