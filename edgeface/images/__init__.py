"""Photos in and out: files, folders, videos and cameras; annotations; faces drawn."""

from __future__ import annotations

from edgeface.images.inputs import sources
from edgeface.images.reading import as_rgb, decode_image, read_image
from edgeface.images.scaling import Image, fit_size, letterbox, place

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
