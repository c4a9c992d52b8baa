"""Reads from the container of an image file what must be known before OpenCV decodes it.

OpenCV drops transparency when it applies the EXIF orientation, and turns transparent pixels of a
TIFF black. Older versions apply the orientation of JPEG only and fill the rest of a truncated JPEG
with grey. No version applies the rotation of an AVIF or scales a PNM by its stated maximum. libpng
writes to stderr if a file is damaged. Some decoders allocate memory for all pixels that a header
claims before limits are checked. Five properties are therefore read first: whether the file is
complete, whether it may hold transparent pixels, its orientation, the sample value of white, and
its size (:mod:`edgeface.images.sizes`).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

JPEG_MAGIC = b"\xff\xd8\xff"
SCAN = 0xDA
"""JPEG marker in front of the pixels"""
HOLE = 128
"""number of zero bytes in a row that mean lost data in a JPEG scan"""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGICS = (b"II*\0", b"MM\0*")
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION, EXTRA_SAMPLES = 258, 262, 274, 338
"""tags of TIFF 6.0. Photometric 2 is RGB; extra sample 1 is alpha with colours multiplied by it,
extra sample 2 is alpha with colours not multiplied by it"""
FIRST_BYTES = 1 << 16
"""number of bytes from the start of a file that are searched for boxes or a PNM header"""
PNM = re.compile(rb"P([1-6])\s(?:\s|#[^\n]*\n)*(\d{1,10})\s(?:\s|#[^\n]*\n)*(\d{1,10})")
"""groups: kind, width, height"""
_PNM_MAXIMUM = re.compile(PNM.pattern + rb"\s(?:\s|#[^\n]*\n)*(\d{1,5})\s")
AVIF_ORIENTATIONS = {None: (1, 8, 3, 6), 0: (4, 5, 2, 7), 1: (2, 7, 4, 5)}
"""EXIF orientations by the axis of ``imir`` (None: no ``imir``), each for the angles of ``irot``:
0, 90, 180 or 270 degrees anticlockwise. ``imir`` mirrors upside down (0) or left to right (1) what
``irot`` has turned (ISO/IEC 23008-12, 6.5.10 and 6.5.12)"""


@dataclass(frozen=True)
class Container:
    """Properties of an image file read from its chunks."""

    whole: bool = True
    """False: a chunk is cut off or fails its checksum"""
    alpha: bool = False
    """True: pixels may be transparent"""
    orientation: int = 0
    """EXIF orientation of a PNG, WebP or AVIF file, 1 to 8; 0: left to OpenCV"""
    maximum: int = 0
    """sample value of white; 0: the largest of the type, or left to OpenCV"""
    premultiplied: bool = False
    """True: OpenCV returns colours multiplied by their alpha"""


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
    """Yield (marker, position of its length field) of each segment up to the first scan (0xDA);
    marker 0 if no segment begins where one should."""
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
    """True if an end-of-image marker follows the first scan; thumbnails in earlier segments have
    their own."""
    for marker, at in jpeg_segments(data):
        if marker == SCAN:  # in a scan, 0xFF is followed by 0 or by a real marker
            return data.find(b"\xff\xd9", at) > 0
        if marker == 0:
            return True  # not a regular JPEG: left to OpenCV
    return False


def _jpeg_has_hole(data: bytes) -> bool:
    """True if the first scan has a run of zero bytes that no encoder writes, as after the loss of a
    disk page. Decoders then place all that follows wrongly, without a warning.

    In a baseline file, an AC code of zero bits only means a nonzero coefficient for at least one of
    the tables (unless the tables were made for a mostly flat image): a run of zeros would be blocks
    of 63 such coefficients each.
    """
    codes: list[int] = []
    baseline = False
    for marker, at in jpeg_segments(data):
        baseline = baseline or marker in (0xC0, 0xC1)
        if marker == 0xC4:
            codes += _zero_codes(data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")])
        if marker == SCAN:
            end = data.find(b"\xff\xd9", at)
            scan = data[at:end].rstrip(b"\0")  # some cameras pad with zeros
            return baseline and any(code & 15 for code in codes) and bytes(HOLE) in scan
    return False


def _zero_codes(tables: bytes) -> Iterator[int]:
    """Yield for each AC table the symbol whose code is zero bits: run << 4 | size of a
    coefficient."""
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
    """Orientation and bit depth from the properties of the image.

    An orientation in the EXIF block is ignored: the properties include it already.
    """
    found: dict[bytes, bytes] = {}
    alpha = False
    for kind, body in _avif_properties(data):
        found.setdefault(kind, body)  # the image's come first, before its alpha's or thumbnail's
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
    """The maximum of a PGM or PPM file if OpenCV does not scale samples by it, else 0."""
    found = _PNM_MAXIMUM.match(data)
    if found is None or found[1] not in b"2356":
        return 0
    maximum = int(found[4])
    scaled = (255, 65535) if found[1] in b"56" else (*range(256), 65535)
    return 0 if maximum in scaled or maximum > 65535 else maximum


def _inspect_tiff(data: bytes) -> Container:
    """Alpha of an RGB TIFF; all else is left to OpenCV, the orientation included.

    OpenCV takes 8-bit colours from libtiff, which multiplies them by alpha, and 16-bit colours
    unchanged from the file.
    """
    tags = tiff_tags(data)
    kind, bits = tags.get(EXTRA_SAMPLES), tags.get(BITS_PER_SAMPLE)
    if kind not in (1, 2) or bits not in (8, 16) or tags.get(PHOTOMETRIC) != 2:
        return Container()
    return Container(alpha=True, premultiplied=kind == 1 or bits == 8)


def _bmp_alpha(data: bytes) -> bool:
    """True if the header has a mask for alpha; without one the fourth byte of a pixel is unused."""
    header = int.from_bytes(data[14:18], "little")
    return header >= 56 and any(data[66:70])


def tiff_tags(data: bytes) -> dict[int, int]:
    """The first value of each tag of short or long integers in the first directory of a TIFF file
    or EXIF block, which has the same format; if it is damaged, of the tags that can be read."""
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
    """Orientation tag (0x0112) of the first directory of an EXIF block; 1 if there is none or it is
    damaged."""
    value = tiff_tags(bytes(exif[:65536]).removeprefix(b"Exif\0\0")).get(ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1
