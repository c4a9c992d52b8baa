"""A photo with its annotated faces, independent of the file format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DataError, counted

NAMED = 5
"""largest number of images that a message names"""
LEAST_SIDE_PX = 3
"""least larger side of a visible face"""
POINT_MARGIN = 0.5
"""A landmark may lie outside the image by at most this share of the face's larger side"""


@dataclass(frozen=True)
class AnnotatedImage:
    """The faces of one photo."""

    path: str
    """relative to the folder of images, with forward slashes"""
    boxes: NDArray[np.float32]
    """[N, 4] x1, y1, x2, y2 in px of the image"""
    invalid: NDArray[np.bool_]
    """[N] faces to ignore: marked invalid by the annotators, or of no positive size (the official
    file has some)"""
    landmarks: NDArray[np.float32] | None = None
    """[N, 5, 2] x, y in px of the image, NaN for a face without; None if the file has no landmarks
    at all"""
    traits: NDArray[np.int64] | None = None
    """[N, 6] blur, expression, illumination, invalid, occlusion, pose, as WIDER FACE codes them;
    None in other files"""
    line: int = 0
    """line of the annotation file, from 1, that names the image; 0: not from a file"""


def named(images: Sequence[AnnotatedImage]) -> str:
    """Paths and lines of the first few ``images``, for a message."""
    first = [f"{i.path} (line {i.line})" if i.line else i.path for i in images[:NAMED]]
    return ", ".join(first) + ", ..." * (len(images) > NAMED)


def listed(numbers: NDArray[np.float32]) -> str:
    """The numbers of a box, comma-separated, for a message."""
    return ",".join(f"{value:g}" for value in numbers)


def check_visible(
    images: Sequence[AnnotatedImage], annotations: Path | str, use: str = "learned"
) -> None:
    """Raise DataError, with counts, if no face is visible. ``use``: "learned" or "found", for the
    message."""
    boxes = np.concatenate([image.boxes for image in images])
    invalid = np.concatenate([image.invalid for image in images])
    small = ~invalid & ((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) < LEAST_SIDE_PX)
    if not (invalid | small).all():
        return
    counts = f"{counted(len(images), 'photo')}, {counted(len(boxes), 'face')}, 0 that can be {use}"
    kinds = (
        (int(invalid.sum()), "marked invalid or of no size"),
        (int(small.sum()), f"of less than {LEAST_SIDE_PX} px"),
    )
    reasons = "".join(f", {count} {what}" for count, what in kinds if count)
    shares = len(boxes) > 0 and bool(small.any()) and float(np.abs(boxes).max()) <= 1
    hint = "; are these shares of the image? " if shares else "; "
    raise DataError(f"{annotations}: {counts}{reasons}{hint}accepted: boxes in px of the photo")


def check_boxes(image: AnnotatedImage, width: int, height: int) -> AnnotatedImage:
    """Clip the boxes to an image of ``width`` x ``height`` px.

    Raises DataError naming the image if a box lies wholly outside, or a landmark far outside, which
    means that annotations and image do not belong together. Faces marked invalid are not checked,
    but clipped.
    """
    x1, y1, x2, y2 = image.boxes.T
    outside = ~image.invalid & ((x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0))
    if outside.any():
        box = ", ".join(f"{value:g}" for value in image.boxes[np.argmax(outside)])
        raise DataError(
            f"{image.path}: box x1,y1,x2,y2 = {box} lies outside the image of {width}x{height} px;"
            " accepted: boxes that overlap the image; check that annotations and images have the"
            " same scale"
        )
    _check_points(image, width, height)
    limits = np.array([width, height, width, height], np.float32)
    return replace(image, boxes=np.clip(image.boxes, 0, limits))


def _check_points(image: AnnotatedImage, width: int, height: int) -> None:
    """Raise DataError if a landmark lies outside the image by more than POINT_MARGIN allows.

    A face cut by the edge of the photo may have landmarks slightly beyond it.
    """
    if image.landmarks is None:
        return
    side = (image.boxes[:, 2:] - image.boxes[:, :2]).max(1, initial=0)[:, None, None]
    beyond = np.maximum(-image.landmarks, image.landmarks - np.array([width, height], np.float32))
    outside = (beyond > POINT_MARGIN * side).any((1, 2)) & ~image.invalid
    if outside.any():
        raise DataError(
            f"{image.path}: landmarks of the face {listed(image.boxes[np.argmax(outside)])} lie"
            f" outside the image of {width}x{height} px; accepted: px of the image, at most half a"
            " face beyond its edge; -1, or in a CSV nothing, where a face has none"
        )
