"""Photos in and out: files, folders, videos and cameras; annotations; faces drawn."""

from __future__ import annotations

from edgeface.images.reading import (
    Image,
    as_rgb,
    decode_image,
    fit_size,
    letterbox,
    place,
    read_image,
    sources,
)

__all__ = [
    "Image",
    "as_rgb",
    "decode_image",
    "fit_size",
    "letterbox",
    "place",
    "read_image",
    "sources",
]
