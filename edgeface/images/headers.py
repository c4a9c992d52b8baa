"""Image files as containers: what must be known of a file before OpenCV decodes it.

OpenCV drops transparency when it applies the EXIF orientation, and makes that of a TIFF black;
older ones know the orientation of JPEG only and fill the rest of a truncated JPEG with grey, none
applies the rotation of an AVIF or scales a PNM by the maximum that it states, libpng writes to
stderr when a file is damaged, and some decoders take memory for all pixels that a header claims
before the limits are looked at. So five things are read here first: is the file whole, may it hold
transparent pixels, which orientation does it ask for, what is white, and how large is it. The sizes
are in :mod:`edgeface.images.sizes`.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

JPEG_MAGIC = b"\xff\xd8\xff"
SCAN = 0xDA
"""marker of a JPEG, behind which are its pixels"""
HOLE = 128
"""zeros in a row"""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGICS = (b"II*\0", b"MM\0*")
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION, EXTRA_SAMPLES = 258, 262, 274, 338
"""tags of TIFF 6.0; photometric 2 is RGB; an extra sample of 1 is alpha that the colours were
multiplied by, of 2 alpha that they were not"""
FIRST_BYTES = 1 << 16
"""of a file whose boxes are sought rather than walked"""
PNM = re.compile(rb"P([1-6])\s(?:\s|#[^\n]*\n)*(\d{1,10})\s(?:\s|#[^\n]*\n)*(\d{1,10})")
"""kind, width, height"""
_PNM_MAXIMUM = re.compile(PNM.pattern + rb"\s(?:\s|#[^\n]*\n)*(\d{1,5})\s")
AVIF_ORIENTATIONS = {None: (1, 8, 3, 6), 0: (4, 5, 2, 7), 1: (2, 7, 4, 5)}
"""EXIF orientation by the axis of ``imir``, which turns upside down (0) or left to right (1) what
``irot`` turned by 0, 90, 180 or 270 degrees anticlockwise (ISO/IEC 23008-12, 6.5.10 and 6.5.12)"""


@dataclass(frozen=True)
class Container:
    """What the file's chunks tell."""

    whole: bool = True
    """False: a chunk is cut off or fails its checksum"""
    alpha: bool = False
    """True: pixels may be transparent"""
    orientation: int = 0
    """EXIF orientation of a PNG, WebP or AVIF file, 1 to 8; 0: left to OpenCV"""
    maximum: int = 0
    """sample value that means white; 0: the largest of its type, or left to OpenCV"""
    premultiplied: bool = False
    """True: OpenCV gives colours that are multiplied by their alpha"""


def inspect(data: bytes) -> Container:
    """Read the chunks of a JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF or PNM file; any other content
    gives the defaults. Never raises."""
    if data.startswith(JPEG_MAGIC):
        return Container(whole=_jpeg_ends(data) and not _jpeg_has_hole(data))
    if data.startswith(PNG_MAGIC):
        return _inspect_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _inspect_webp(data)
    if data[4:8] == b"ftyp":
        return _inspect_avif(data[:FIRST_BYTES])
    if data[:4] in TIFF_MAGICS:
        return _inspect_tiff(data)
    if data.startswith(b"BM"):
        return Container(alpha=_bmp_alpha(data))
    if data.startswith(b"GIF8"):
        return Container(alpha=True)
    return Container(maximum=_pnm_maximum(data[:FIRST_BYTES]))


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, where its length stands) of each segment up to the first scan (0xDA); marker 0
    where a segment should begin and does not."""
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            yield 0, at
            return
        if (
            marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7
        ):  # padding, or a marker without a segment
            at += 1 if marker == 0xFF else 2
            continue
        yield marker, at + 2
        if marker == SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _jpeg_ends(data: bytes) -> bool:
    """Is there an end-of-image marker behind the first scan? Thumbnails in the segments before have
    their own."""
    for marker, at in jpeg_segments(data):
        if marker == SCAN:  # in the scans behind, 0xFF is followed by 0 or by a real marker
            return data.find(b"\xff\xd9", at) > 0
        if marker == 0:
            return True  # not as a JPEG should be: for OpenCV to judge
    return False


def _jpeg_has_hole(data: bytes) -> bool:
    """Is there a run of zeros in the first scan that no encoder writes, as where a page of a disk
    was lost? What follows is then decoded in the wrong places, without a word.

    In a baseline file the code of nothing but zero bits means, for at least one of its tables, a
    coefficient that is not zero (unless the tables were made for an image that is mostly flat): a
    run of them would be blocks of 63 such coefficients each.
    """
    codes: list[int] = []
    baseline = False
    for marker, at in jpeg_segments(data):
        baseline = baseline or marker in (0xC0, 0xC1)
        if marker == 0xC4:
            codes += _zero_codes(data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")])
        if marker == SCAN:
            end = data.find(b"\xff\xd9", at)
            scan = data[at:end].rstrip(b"\0")  # some cameras fill up with zeros
            return baseline and any(code & 15 for code in codes) and bytes(HOLE) in scan
    return False


def _zero_codes(tables: bytes) -> Iterator[int]:
    """The symbol that each AC table gives to zero bits: run << 4 | size of a coefficient."""
    while len(tables) > 17:
        count = sum(tables[1:17])
        if tables[0] >> 4 and count and len(tables) > 17:
            yield tables[17]
        tables = tables[17 + count :]


def _inspect_png(data: bytes) -> Container:
    alpha, orientation, ended = False, 1, False
    for kind, body in _png_chunks(data):
        if kind == b"IHDR" and len(body) == 13:
            alpha = alpha or body[9] in (4, 6)  # grey + alpha, RGB + alpha
        alpha = alpha or kind == b"tRNS"
        if kind == b"eXIf":
            orientation = exif_orientation(body)
        ended = kind == b"IEND"
    return Container(ended, alpha, orientation)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (kind, body) up to IEND; stop early at a chunk that is cut off or fails its CRC."""
    view, at = memoryview(data), len(PNG_MAGIC)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 12 + size > len(data):
            return
        (crc,) = struct.unpack_from(">I", data, at + 8 + size)
        if zlib.crc32(view[at + 4 : at + 8 + size]) != crc:
            return
        kind = bytes(view[at + 4 : at + 8])
        yield kind, view[at + 8 : at + 8 + size]
        if kind == b"IEND":
            return
        at += 12 + size


def _inspect_webp(data: bytes) -> Container:
    alpha, orientation, at = False, 1, 12
    while at + 8 <= len(data):
        kind, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        body = memoryview(data)[at + 8 : at + 8 + size]
        if kind == b"VP8X" and size >= 1 and body:
            alpha = alpha or bool(body[0] & 0x10)
        elif (
            kind == b"VP8L" and len(body) >= 5
        ):  # signature, 14 bits width - 1, 14 bits height - 1, 1 bit alpha
            alpha = alpha or bool(body[4] & 0x10)
        elif kind == b"EXIF":
            orientation = exif_orientation(body)
        at += 8 + size + size % 2
    return Container(True, alpha, orientation)


def _inspect_avif(data: bytes) -> Container:
    """Orientation and depth are properties of the image; an orientation in its EXIF block tells
    what these were made of, and is not applied again."""
    found: dict[bytes, bytes] = {}
    alpha = False
    for kind, body in _avif_properties(data):
        found.setdefault(kind, body)  # the image's own; others are of its alpha or thumbnail
        alpha = alpha or (kind == b"auxC" and b":auxiliary:alpha" in body)
    turned, mirrored = found.get(b"irot", b"\0")[:1], found.get(b"imir", b"")[:1]
    by_angle = AVIF_ORIENTATIONS[mirrored[0] & 1 if mirrored else None]
    depth = found.get(b"av1C", b"")[2:3]
    bits = 0 if not depth else depth[0] >> 5 & 3  # high_bitdepth, twelve_bit
    return Container(
        alpha=alpha,
        orientation=by_angle[turned[0] & 3 if turned else 0],
        maximum=(0, 0, 1023, 4095)[bits],
    )


def _avif_properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, body) of the boxes in the first item property container."""
    start = data.find(b"ipco")
    end = start - 4 + int.from_bytes(data[start - 4 : start], "big") if start >= 4 else 0
    at = start + 4
    while at + 8 <= min(end, len(data)):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += max(size, 8)


def _pnm_maximum(data: bytes) -> int:
    """The maximum of a PGM or PPM file for which OpenCV does not scale."""
    found = _PNM_MAXIMUM.match(data)
    if found is None or found[1] not in b"2356":
        return 0
    maximum = int(found[4])
    scaled = (255, 65535) if found[1] in b"56" else (*range(256), 65535)
    return 0 if maximum in scaled or maximum > 65535 else maximum


def _inspect_tiff(data: bytes) -> Container:
    """Of RGB with alpha: OpenCV takes 8 bits from libtiff, which multiplies them, 16 as they are in
    the file, and turns both."""
    tags = tiff_tags(data)
    kind, bits = tags.get(EXTRA_SAMPLES), tags.get(BITS_PER_SAMPLE)
    if kind not in (1, 2) or bits not in (8, 16) or tags.get(PHOTOMETRIC) != 2:
        return Container()
    return Container(alpha=True, premultiplied=kind == 1 or bits == 8)


def _bmp_alpha(data: bytes) -> bool:
    """Does the header have a mask for alpha? Without one the fourth byte of a pixel means
    nothing."""
    header = int.from_bytes(data[14:18], "little")
    return header >= 56 and any(data[66:70])


def tiff_tags(data: bytes) -> dict[int, int]:
    """The first value of each tag of short or long integers in the first directory of a TIFF file,
    which an EXIF block is, too; of a damaged one those that can be read."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    found: dict[int, int] = {}
    try:
        if order is None:
            return found
        (first,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
            size = {3: 2, 4: 4}.get(kind, 0)
            at = entry + 8
            if size * values > 4:
                (at,) = struct.unpack_from(order + "I", data, at)
            if size:
                (found[tag],) = struct.unpack_from(order + ("H" if size == 2 else "I"), data, at)
    except struct.error:
        pass
    return found


def exif_orientation(exif: bytes | memoryview) -> int:
    """Orientation tag (0x0112) of the first directory of an EXIF block; 1 when there is none or it
    is damaged."""
    value = tiff_tags(bytes(exif[:65536]).removeprefix(b"Exif\0\0")).get(ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1
