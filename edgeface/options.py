"""Values that several commands accept, parsed in one place."""

from __future__ import annotations

import ast
import inspect
import math
import numbers
import os
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeface.errors import OptionError

MAX_SIDE_PX = 8192
DEFAULT_LONG_SIDE_PX = 640
"""long side that a photo is scaled to for a model that takes any size"""
MAX_THREADS = 1024
MAX_SEED = 2**31 - 1
EVALUATION_SCALES = ("640", "original", "multi")
"""scales of WIDER FACE photos: long side in px, unscaled, or several scales with box voting"""


def parse_size(text: str) -> tuple[int, int]:
    """``"640x480"`` -> (width, height) in px.

    Raises OptionError unless both are multiples of 32 up to 8192."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text) if isinstance(text, str) else None
    if not match:
        raise OptionError(f"size {text!r} is not WIDTHxHEIGHT, for example 640x480")
    width, height = int(match[1]), int(match[2])
    for side in (width, height):
        if side % 32 or not 32 <= side <= MAX_SIDE_PX:
            raise OptionError(
                f"size {text!r}: width and height must be multiples of 32 from 32 to {MAX_SIDE_PX}"
            )
    return width, height


def whole_number(text: str, digits: int = 9) -> int | None:
    """The number that ``text`` is; None unless it is one to ``digits`` of 0 to 9.

    Python itself refuses to convert thousands of digits, with a ValueError."""
    plain = text.isascii() and text.isdigit() and len(text) <= digits
    return int(text) if plain else None


def check_number(what: str, value: object, low: float, high: float) -> float:
    """``value`` as a float. Raises OptionError unless it is a number from ``low`` to ``high``.

    Also raises it for NaN and for a number given as text."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        raise OptionError(f"{what} {value!r} is not a number between {low:g} and {high:g}")
    return float(value)  # type: ignore[arg-type]


def check_count(what: str, value: object, low: int = 0, high: int | None = None) -> int:
    """``value`` as an int, from Python or NumPy.

    Raises OptionError unless it is a whole number from ``low`` to ``high``."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not low <= value <= (math.inf if high is None else high):  # type: ignore[operator]
        upto = "on" if high is None else f"to {high}"
        raise OptionError(f"{what} {value!r} is not a whole number from {low} {upto}")
    return int(value)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Range:
    """The range of numbers that an option takes, ``high`` included."""

    low: float
    high: float
    open: bool = False
    """True if ``low`` itself is excluded"""

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open else self.low <= value
        return above and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        return f"{'above' if self.open else 'from'} {self.low} to {self.high}"


def check_ranges(options: Any) -> None:
    """Raise OptionError, which names the option, if a field is outside its class's ``ranges``."""
    for name, numbers_ in options.ranges.items():
        value = getattr(options, name)
        if value not in numbers_:
            raise OptionError(f"--{name.replace('_', '-')} must be {numbers_}, got {value}")


def as_path(what: str, value: object) -> Path:
    """``value`` as a Path. Raises OptionError if it is neither a path nor a string."""
    if not isinstance(value, (str, os.PathLike)):
        raise OptionError(f"{what} must be a path or its text, got {type(value).__name__}")
    return Path(value)


def check_choice(option: str, values: Iterable[str], known: Iterable[str]) -> None:
    """Raise OptionError for the first of the ``values`` of ``--option`` that is not ``known``."""
    for value in values:
        if value not in known:
            raise OptionError(f"--{option} {value!r} is not one of: {', '.join(known)}")


def field_help(cls: type) -> dict[str, str]:
    """Field name -> the docstring below it in the source of a dataclass, which is its --help text.

    Includes the fields of base classes.
    """
    inherited = [field_help(base) for base in reversed(cls.__mro__[1:-1])]
    return {name: text for texts in (*inherited, _own_help(cls)) for name, text in texts.items()}


def _own_help(cls: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
        ):
            texts[field.target.id] = str(ast.literal_eval(below.value))
    return texts
