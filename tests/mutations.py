"""Random changes to files, as a bad disk, a cut download or an attacker leaves them."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

from edgeface.images.headers import PNG_MAGIC, jpeg_segments

Mutation = Callable[[bytes, random.Random], bytes]
SIDES = (0, 1, 2, 7, 255, 256, 4096, 11585, 32768, 65535, 65536, 1 << 20, 1 << 31, (1 << 32) - 1)
"""widths and heights in px that a changed header may claim"""


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Replace a few bytes; half of the time near the beginning, where headers are."""
    changed = bytearray(data)
    end = min(len(data), 600) if rng.random() < 0.5 else len(data)
    for _ in range(rng.choice((1, 2, 4, 30))):
        changed[rng.randrange(end)] = rng.randrange(256)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Cut off the end; sometimes all but the first few bytes."""
    return data[: rng.randrange(64 if rng.random() < 0.2 else len(data))]


def zeroed(data: bytes, rng: random.Random) -> bytes:
    """Zero a block, as if a disk had never written it."""
    at, size = rng.randrange(len(data)), rng.choice((1, 16, 512, 4096))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def moved(data: bytes, rng: random.Random) -> bytes:
    """Leave out, double or move a piece."""
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 4, 100, 3000)))
    piece, rest = data[start:stop], data[:start] + data[stop:]
    to = rng.randrange(len(rest) + 1)
    return rng.choice((rest, data[:stop] + data[start:], rest[:to] + piece + rest[to:]))


def numbered(data: bytes, rng: random.Random) -> bytes:
    """Replace a number in the header, of 16 or 32 bits, in either byte order."""
    form = rng.choice(("<H", ">H", "<I", ">I"))
    at = rng.randrange(max(1, min(len(data), 200) - 4))
    value = rng.choice(SIDES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
    new = struct.pack(form, value)
    return data[:at] + new + data[at + len(new) :]


def swapped(data: bytes, rng: random.Random) -> bytes:
    """Swap two of the parts that :func:`split` finds, or leave one out."""
    parts = split(data)
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    if i == j:
        del parts[i]
    else:
        parts[i], parts[j] = parts[j], parts[i]
    return b"".join(parts)


BYTES: tuple[Mutation, ...] = (flipped, cut, zeroed, moved)
IMAGE: tuple[Mutation, ...] = (*BYTES, numbered, swapped)


def split(data: bytes) -> list[bytes]:
    """Segments of a JPEG, chunks of a PNG or of a RIFF file; other content in pieces of 512 B."""
    if data.startswith(b"\xff\xd8"):
        places = [at - 2 for marker, at in jpeg_segments(data) if marker]
    elif data.startswith(PNG_MAGIC):
        places = _walk(data, len(PNG_MAGIC), ">I", 0, 12)
    elif data.startswith(b"RIFF"):
        places = _walk(data, 12, "<I", 4, 8)
    else:
        places = list(range(0, len(data), 512))
    bounds = [0, *places, len(data)]
    return [data[a:b] for a, b in pairwise(bounds) if b > a] or [data]


def _walk(data: bytes, at: int, form: str, length_at: int, around: int) -> list[int]:
    places = []
    while at + around <= len(data):
        places.append(at)
        (size,) = struct.unpack_from(form, data, at + length_at)
        at += size + around + (size % 2 if around == 8 else 0)
    return places


def spliced(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Join the beginning of one file to the end of another."""
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def signed(data: bytes) -> bytes:
    """Correct the checksums of a changed PNG, so that the changes reach the decoder."""
    if not data.startswith(PNG_MAGIC):
        return data
    changed = bytearray(data)
    for at in _walk(data, len(PNG_MAGIC), ">I", 0, 12):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 12 + size <= len(data):
            crc = zlib.crc32(data[at + 4 : at + 8 + size])
            struct.pack_into(">I", changed, at + 8 + size, crc)
    return bytes(changed)


def mutated_image(sources: Sequence[bytes], others: Sequence[bytes], rng: random.Random) -> bytes:
    """One of ``sources`` after one to three mutations, or its start joined to one of ``others``."""
    data = rng.choice(sources)
    if rng.random() < 0.1:
        return spliced(data, rng.choice(others), rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(IMAGE)(data, rng) if data else data
    return signed(data) if rng.random() < 0.9 else data
