"""Photos in and out: files, folders, videos and cameras; annotations; faces drawn."""

from __future__ import annotations

from edgeface.images.reading import (
    ACCEPTED,
    CAMERA,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Image,
    as_rgb,
    decode_image,
    fit_size,
    folder_images,
    letterbox,
    oriented,
    place,
    read_image,
    source_kind,
    sources,
    video_fps,
    video_frames,
)

__all__ = [
    "ACCEPTED", "CAMERA", "IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Image", "as_rgb", "decode_image", "fit_size",
    "folder_images", "letterbox", "oriented", "place", "read_image", "source_kind", "sources", "video_fps",
    "video_frames",
]
