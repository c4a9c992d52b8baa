"""Reads JSON objects into dataclasses and checks every key and type, as files are not trusted.

Needs nothing beyond the standard library. Used for Architectures, head layouts, manifests and the
zoo's index.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgeface.errors import DataError, EdgefaceError, ModelError
from edgeface.files import read_regular

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

T = TypeVar("T")
MAX_DEPTH = 32
"""deepest nesting of lists and objects in a field of type Any"""
_SCALARS = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


def read_packaged(path: Path | Traversable, kind: type[T]) -> T:
    """Read the JSON list or object (``kind``) in a file that ships with edgeface.

    Raises ModelError for a damaged installation."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: install edgeface again ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(data, kind):
        raise ModelError(
            f"{path} is not a JSON {'object' if kind is dict else 'list'}: install edgeface again"
        )
    return data


def to_fields(value: Any) -> Any:
    """A dataclass as a JSON-ready dict, like :func:`dataclasses.asdict`, for :func:`from_fields`.

    A dataclass with methods ``to_fields`` and ``from_fields`` is written and read by these.
    """
    if hasattr(value, "to_fields"):
        return value.to_fields()
    if dataclasses.is_dataclass(value):
        return {f.name: to_fields(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_fields(item) for item in value]
    return (
        {key: to_fields(item) for key, item in value.items()} if isinstance(value, dict) else value
    )


def from_fields(cls: type[T], data: Any, where: str) -> T:
    """Build the dataclass ``cls`` from ``data``, with its own ``from_fields`` if it has one.

    Raises ModelError, in one line that starts with ``where``.
    """
    own = getattr(cls, "from_fields", None)
    found: T = own(data, where) if own else read_fields(cls, data, where)
    return found


def read_rows(cls: type[T], path: Path, advice: str) -> list[T]:
    """Read a JSON list of dataclasses ``cls``; empty if there is no file.

    Raises DataError for a file that cannot be read; the message ends in ``advice``.
    """
    if not path.is_file():
        return []
    try:
        return [from_fields(cls, row, str(path)) for row in json.loads(read_regular(path))]
    except (OSError, ValueError, TypeError, RecursionError, EdgefaceError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it, and {advice}") from None


def read_fields(cls: type[T], data: Any, where: str) -> T:
    """Build the dataclass ``cls`` from the JSON object ``data``, field by field.

    Raises ModelError, in one line that starts with ``where``, for an unknown or missing key, a
    value of another type than the field's, and values that the dataclass itself refuses with a
    ValueError.
    """
    if not isinstance(data, dict):
        raise ModelError(f"{where}: expected an object, got {short(data)}")
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    for key in data:
        if key not in {f.name for f in fields}:
            raise ModelError(
                f"{where}: unknown field {short(key)} (known: {', '.join(f.name for f in fields)})"
            )
    for f in fields:
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in data:
            raise ModelError(f"{where}: field {f.name!r} is missing")
    hints = get_type_hints(cls)
    values = {key: _read(value, hints[key], f"{where}.{key}") for key, value in data.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from None


def short(value: Any) -> str:
    """``repr`` of an untrusted value: ASCII, one line, at most 60 characters."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep list
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _read(value: Any, hint: Any, where: str) -> Any:
    """Return ``value`` as the type ``hint``: lists become tuples, objects dataclasses. Raises
    ModelError."""
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(value):  # already read
        return value
    if hint is Any:
        _expect(
            _is_plain(value),
            value,
            f"finite numbers, and lists and objects at most {MAX_DEPTH} deep",
            where,
        )
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [a for a in arguments if a is not type(None)]
        lists = [
            a for a in kinds if get_origin(a) is tuple
        ]  # a union of a scalar and a tuple is read as what was written
        chosen = (
            lists
            if lists and isinstance(value, (list, tuple))
            else [a for a in kinds if a not in lists] or lists
        )
        return _read(value, chosen[0], where)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return from_fields(hint, value, where)
    if origin is dict:
        _expect(isinstance(value, dict), value, "an object", where)
        return {
            key: _read(item, arguments[1], f"{where}[{short(key)}]") for key, item in value.items()
        }
    if origin is tuple:
        _expect(isinstance(value, (list, tuple)), value, "a list", where)
        hints = len(value) * arguments[:1] if arguments[-1] is ... else arguments
        _expect(len(value) == len(hints), value, f"a list of {len(hints)}", where)
        return tuple(_read(item, hints[i], f"{where}[{i}]") for i, item in enumerate(value))
    _expect(_is_scalar(value, hint), value, _SCALARS[hint], where)
    return value


def _is_scalar(value: Any, hint: Any) -> bool:
    if hint is float:  # not converted, so that a record is written back as it was read
        return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
    return type(value) is hint


def _is_plain(value: Any) -> bool:
    """Can ``value`` be written as JSON again, and is it at most :data:`MAX_DEPTH` deep?

    1e999 is JSON but reads as infinity, which JSON does not have."""
    level = [value]
    for _ in range(MAX_DEPTH):
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            return False
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list, tuple))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return not level


def _expect(good: bool, value: Any, wanted: str, where: str) -> None:
    if not good:
        raise ModelError(f"{where}: expected {wanted}, got {short(value)}")
