"""Resizes images, and letterboxes them to a network's input size."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
BLOCK_BYTES = 1 << 31
"""limit for one resize: OpenCV counts the bytes of the image in 32 bits"""


def resized(image: Image, width: int, height: int, block_bytes: int = BLOCK_BYTES) -> Image:
    """``image`` [H, W, 3] at ``width`` x ``height`` px.

    Shrinking takes area averages, because bilinear interpolation would skip pixels and let small
    faces alias; enlarging is bilinear. An image of ``block_bytes`` or more is scaled in parts,
    first along its rows, then along its columns.
    """
    shrinks = max(width, height) < max(image.shape[:2])
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if image.nbytes < block_bytes:
        return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
    narrow = np.concatenate(
        [
            cv2.resize(part, (width, len(part)), interpolation=how)
            for part in _parts(image, block_bytes)
        ]
    )
    turned = np.ascontiguousarray(narrow.transpose(1, 0, 2))
    flat = [
        cv2.resize(part, (height, len(part)), interpolation=how)
        for part in _parts(turned, block_bytes)
    ]
    return np.ascontiguousarray(np.concatenate(flat).transpose(1, 0, 2), np.uint8)


def _parts(image: Image, block_bytes: int) -> Iterator[Image]:
    rows = max(1, (block_bytes - 1) // (image.shape[1] * 3))
    return (image[top : top + rows] for top in range(0, len(image), rows))


def fit_size(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """Largest (width, height) in px of the same aspect ratio inside a box, both at least 1."""
    scale = min(box_width / width, box_height / height)
    return (
        min(box_width, max(1, round(width * scale))),
        min(box_height, max(1, round(height * scale))),
    )


def letterbox(image: Image, width: int, height: int) -> tuple[Image, float]:
    """Fit ``image`` [H, W, 3] into a canvas uint8 [height, width, 3]; return it with the scale
    canvas px / image px.

    The aspect ratio is kept, the image is at the top left, the rest is 0 (black)::

        +-------------+------+
        |   image     |  0   |
        +-------------+  0   |
        |   0     0      0   |
        +--------------------+

    A resized side has a whole number of pixels, so the true factor along one side differs a little
    from ``scale``: use :func:`fit_size` if that matters.
    """
    image_height, image_width = image.shape[:2]
    fitted = fit_size(image_width, image_height, width, height)
    return place(image, fitted, width, height), min(width / image_width, height / image_height)


def place(image: Image, fitted: tuple[int, int], width: int, height: int) -> Image:
    """Resize ``image`` to ``fitted`` (width, height) px at the top left of a black canvas uint8
    [height, width, 3]."""
    canvas = np.zeros((height, width, 3), np.uint8)
    inside = canvas[: fitted[1], : fitted[0]]
    # OpenCV writes to its own array: part of a canvas is not contiguous.
    inside[:] = image if fitted == image.shape[1::-1] else resized(image, *fitted)
    return canvas
