"""Reads the size of an image from the file's header: a file of 35 bytes may claim 4 billion pixels,
for which a decoder would allocate memory.

If a file states several sizes, the largest counts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from edgeface.images.headers import (
    FIRST_BYTES,
    JPEG_MAGIC,
    PNG_MAGIC,
    PNM,
    jpeg_segments,
    tiff_tags,
)

Size = tuple[int, int]
"""width, height in px, as stored"""
CODESTREAM = b"\xff\x4f\xff\x51"
"""start of JPEG 2000 data, raw or in a .jp2 file"""


def stated_size(data: bytes) -> Size | None:
    """(width, height) in px that the file states; None if the kind is known but no size is found.

    Raises ValueError for a file of a kind that is not accepted.
    """
    for magic, read in _KINDS:
        if re.match(magic, data, re.DOTALL):
            try:
                return max(read(data), key=lambda size: size[0] * size[1], default=None)
            except struct.error:
                return None  # cut off: the decoder reports it
    raise ValueError("not an image")


def _jpeg(data: bytes) -> Iterator[Size]:
    for marker, at in jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 3)
            yield width, height


def _png(data: bytes) -> Iterator[Size]:
    yield struct.unpack_from(">II", data, 16)


def _gif(data: bytes) -> Iterator[Size]:
    yield struct.unpack_from("<HH", data, 6)


def _bmp(data: bytes) -> Iterator[Size]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    yield abs(width), abs(height)


def _webp(data: bytes) -> Iterator[Size]:
    at = 12
    while at + 8 <= len(data):
        kind, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[at + i : at + i + 3], "little") for i in (12, 15))
            yield width + 1, height + 1
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, at + 9)
            yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, at + 14)
            yield width & 0x3FFF, height & 0x3FFF
        at += 8 + size + size % 2


def _tiff(data: bytes) -> Iterator[Size]:
    tags = tiff_tags(data)
    if 256 in tags and 257 in tags:
        yield tags[256], tags[257]


def _pnm(data: bytes) -> Iterator[Size]:
    found = PNM.match(data[:FIRST_BYTES])
    if found:
        yield int(found[2]), int(found[3])


def _jpeg2000(data: bytes) -> Iterator[Size]:
    for at in _places(b"ihdr", data):
        height, width = struct.unpack_from(">II", data, at + 4)
        yield width, height
    for at in _places(CODESTREAM, data):
        width, height = struct.unpack_from(">II", data, at + 8)
        yield width, height


def _avif(data: bytes) -> Iterator[Size]:
    for at in _places(b"ispe", data):
        yield struct.unpack_from(">II", data, at + 8)


def _places(mark: bytes, data: bytes) -> Iterator[int]:
    return (found.start() for found in re.finditer(re.escape(mark), data[:FIRST_BYTES]))


_KINDS: tuple[tuple[bytes, Callable[[bytes], Iterator[Size]]], ...] = (
    (re.escape(JPEG_MAGIC), _jpeg),
    (re.escape(PNG_MAGIC), _png),
    (rb"GIF8", _gif),
    (rb"BM", _bmp),
    (rb"RIFF....WEBP", _webp),
    (rb"II\*\0|MM\0\*", _tiff),
    (rb"P[1-6]\s", _pnm),
    (rb"\0\0\0\x0cjP|" + re.escape(CODESTREAM), _jpeg2000),
    (rb"....ftyp", _avif),
)
