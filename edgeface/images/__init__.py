"""Input and output of photos: files, folders, videos, cameras and streams; annotations; drawing,
blurring and cropping of faces."""

from __future__ import annotations

from edgeface.images.alignment import align
from edgeface.images.blurring import blur
from edgeface.images.inputs import sources
from edgeface.images.reading import as_rgb, decode_image, read_image
from edgeface.images.scaling import Image, fit_size, letterbox, place

__all__ = [
    "Image",
    "align",
    "as_rgb",
    "blur",
    "decode_image",
    "fit_size",
    "letterbox",
    "place",
    "read_image",
    "sources",
]
