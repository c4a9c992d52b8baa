"""FlatBuffers read by hand, and the metadata of .tflite files."""

from __future__ import annotations

import struct


class Flat:
    """A table of a FlatBuffer, read by hand: little-endian, with field offsets in its vtable."""

    def __init__(self, content: bytes, place: int | None = None) -> None:
        self.content = content
        self.place = self._at("<I", 0) if place is None else place
        self.fields = self.place - self._at("<i", self.place)

    def _at(self, kind: str, place: int) -> int:
        found: int = struct.unpack_from(kind, self.content, place)[0]
        return found

    def _field(self, number: int) -> int:
        """Place of the field; 0 if it is absent."""
        if 4 + 2 * number >= self._at("<H", self.fields):
            return 0
        offset = self._at("<H", self.fields + 4 + 2 * number)
        return self.place + offset if offset else 0

    def _follow(self, number: int) -> int:
        return self._field(number) + self._at("<I", self._field(number))

    def child(self, number: int) -> Flat:
        return Flat(self.content, self._follow(number))

    def integer(self, number: int) -> int:
        return self._at("<i", self._field(number)) if self._field(number) else 0

    def real(self, number: int) -> float:
        (value,) = struct.unpack_from("<f", self.content, self._field(number))
        return float(value)

    def data(self, number: int) -> bytes:
        start = self._follow(number)
        return self.content[start + 4 : start + 4 + self._at("<I", start)]

    def text(self, number: int) -> str:
        return self.data(number).decode()

    def tables(self, *numbers: int) -> list[Flat]:
        owner: Flat = self
        for number in numbers[:-1]:
            owner = owner.child(number)
        start = owner._follow(numbers[-1])
        places = range(start + 4, start + 4 + 4 * owner._at("<I", start), 4)
        return [Flat(self.content, place + owner._at("<I", place)) for place in places]


def metadata_of(content: bytes, identifier: bytes) -> bytes:
    """The buffer called TFLITE_METADATA of a .tflite file."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    places = [entry.buffer for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    buffer = bytes(model.buffers[places[0]].data)
    assert len(places) == 1 and buffer[4:8] == identifier
    return buffer


def decoding_options(content: bytes) -> Flat:
    custom = Flat(metadata_of(content, b"M001")).tables(3)[0].tables(9)[0].data(1)
    assert custom[4:8] == b"V001"
    return Flat(custom)


def buffers_behind(content: bytes) -> int:
    """Number of buffers of a .tflite file that are stored after its FlatBuffer."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    return sum(model.Buffers(i).Offset() > 1 for i in range(model.BuffersLength()))
