"""Writes FlatBuffers without generated code for their schemas: tables by field number.

A field holds a :class:`Scalar`, text, bytes (aligned to 16, as nested buffers require), a NumPy
vector, a table, or a list of tables. Field numbers count the fields in the order of the schema,
from 0; a union has two, first its type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

NESTED_ALIGNMENT = 16


@dataclass(frozen=True)
class Scalar:
    """One number."""

    kind: str
    """type, as FlatBuffers names it: Float32, Int32, Uint32, Uint8, Bool"""
    value: float


class FlatTable(dict[int, Any]):
    """Field number -> value; fields left out have their default."""


def dumps(root: FlatTable, identifier: bytes) -> bytes:
    """The buffer of ``root``. ``identifier``: the four bytes that name its schema."""
    import flatbuffers

    builder = flatbuffers.Builder(0)
    builder.Finish(_table(builder, root), file_identifier=identifier)
    return bytes(builder.Output())


def _table(builder: Any, table: FlatTable) -> int:
    offsets = {
        number: _offset(builder, value)
        for number, value in table.items()
        if not isinstance(value, Scalar)
    }
    builder.StartObject(max(table, default=-1) + 1)
    for number, value in table.items():
        if isinstance(value, Scalar):
            getattr(builder, f"Prepend{value.kind}Slot")(number, value.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, offsets[number], 0)
    place: int = builder.EndObject()
    return place


def _offset(builder: Any, value: Any) -> int:
    if isinstance(value, str):
        found: int = builder.CreateString(value)
    elif isinstance(value, bytes):
        found = _bytes(builder, value)
    elif isinstance(value, np.ndarray):
        found = builder.CreateNumpyVector(value)
    elif isinstance(value, FlatTable):
        found = _table(builder, value)
    else:
        found = _vector(builder, [_offset(builder, item) for item in value])
    return found


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    place: int = builder.EndVector()
    return place


def _bytes(builder: Any, value: bytes) -> int:
    builder.StartVector(1, len(value), NESTED_ALIGNMENT)
    for byte in reversed(value):
        builder.PrependByte(byte)
    place: int = builder.EndVector()
    return place
