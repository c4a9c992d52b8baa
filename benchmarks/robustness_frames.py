"""Frames of 640x480 px with faces to find, which the models of :mod:`benchmarks.robustness` see.

photos    Each photo, letterboxed. Faces are grouped by height in px of the photo; those of 24 px
          and more also by the conditions that WIDER FACE's annotators noted. A face is clean if
          each condition has its first value.
fill      Clean faces of 192 px and more, cropped from their photo so that the face takes a given
          percentage of the frame's height. The crop is 4:3, or as wide as the photo if that is
          narrower, with the face in the middle as far as the photo's edges allow; faces whose photo
          is not high enough for the crop are left out. Boxes end at the frame: at 125 % forehead
          and chin are cut off, and the rest of the face must be found.
roll      The largest clean face of each photo if it is at least 48 px high in the frame, with the
          photo turned around the face's centre, both ways; faces that a turn could cut are left
          out. The box encloses the turned ellipse that filled the upright box: a head is rounder
          than a rectangle, and the box around a turned rectangle would be half as large again at
          45 degrees.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.images import Image, fit_size, letterbox
from edgeface.images.annotated import AnnotatedImage
from edgeface.types import Doubles

Group = tuple[str, str]
"""kind and value, such as ("occlusion", "heavy")"""

WIDTH, HEIGHT = 640, 480
SIZES_PX = (0, 16, 32, 64, 128, 256, math.inf)
LEAST_PX, FILL_PX, ROLL_PX = 24, 192, 48
CONDITIONS = {
    "blur": (0, ("clear", "normal", "heavy")),
    "light": (2, ("normal", "extreme")),
    "occlusion": (4, ("none", "partial", "heavy")),
    "pose": (5, ("typical", "atypical")),
}
"""kind -> column of the annotated traits, and the names of its values 0, 1, ..."""
FILLS = (60, 80, 90, 100, 125)
ROLLS = (0, 15, 30, 45, 60, 75, 90)
VALUES: dict[str, tuple[str, ...]] = {
    "size": ("0-16", "16-32", "32-64", "64-128", "128-256", "256+"),
    "faces": ("all", "clean"),
    **{kind: names for kind, (_, names) in CONDITIONS.items()},
    "fill": tuple(map(str, FILLS)),
    "roll": tuple(map(str, ROLLS)),
}
"""kind -> names of its values, in the order of the result"""


class Frame(NamedTuple):
    """One image that all models see."""

    image: Image
    """uint8 RGB [480, 640, 3]"""
    boxes: Doubles
    """[N, 4] x1, y1, x2, y2 of faces in px of the frame"""
    groups: Mapping[Group, NDArray[np.bool_]]
    """row of the result -> [N] which of the faces belong to it"""
    complete: bool
    """whether ``boxes`` holds every face of the image, so that all other found boxes are false"""


def frames(faces: AnnotatedImage, photo: Image) -> Iterator[Frame]:
    """All frames of one photo."""
    whole = photo_frame(photo, faces)
    yield whole
    clean = whole.groups["faces", "clean"]
    for box in faces.boxes[clean & (_heights(faces) >= FILL_PX)]:
        yield from fill_frames(photo, box.astype(np.float64))
    boxes = whole.boxes[clean]
    if len(boxes):
        largest = boxes[np.argmax(boxes[:, 3] - boxes[:, 1])]
        yield from roll_frames(whole.image, largest, _fitted(photo))


def photo_frame(photo: Image, faces: AnnotatedImage) -> Frame:
    """The photo as a whole; its faces by size and condition."""
    assert faces.traits is not None, "WIDER FACE's own format"
    height, valid = _heights(faces), ~faces.invalid
    groups = {
        ("size", name): valid & (height >= low) & (height < high)
        for name, (low, high) in zip(VALUES["size"], itertools.pairwise(SIZES_PX), strict=True)
    }
    large = valid & (height >= LEAST_PX)
    noted = faces.traits[:, [column for column, _ in CONDITIONS.values()]]
    clean = large & (noted == 0).all(axis=1)
    groups |= {("faces", "all"): large, ("faces", "clean"): clean}
    groups |= {
        (kind, name): large & (faces.traits[:, column] == value)
        for kind, (column, names) in CONDITIONS.items()
        for value, name in enumerate(names)
    }
    factors = np.tile(np.array(_fitted(photo)) / photo.shape[1::-1], 2)
    return Frame(letterbox(photo, WIDTH, HEIGHT)[0], faces.boxes * factors, groups, True)


def fill_frames(photo: Image, box: Doubles) -> Iterator[Frame]:
    """Crops in which the face ``box`` takes each percentage of FILLS of the height."""
    for percent in FILLS:
        rows = round((box[3] - box[1]) * 100 / percent)
        if rows > photo.shape[0]:
            continue
        columns = min(round(rows * WIDTH / HEIGHT), photo.shape[1])
        left = _start((box[0] + box[2]) / 2, columns, photo.shape[1])
        top = _start((box[1] + box[3]) / 2, rows, photo.shape[0])
        crop = photo[top : top + rows, left : left + columns]
        image, scale = letterbox(crop, WIDTH, HEIGHT)
        inside = np.clip(box - (left, top, left, top), 0, (columns, rows, columns, rows)) * scale
        yield _of_one(image, inside, "fill", percent)


def roll_frames(image: Image, box: Doubles, size: tuple[int, int]) -> Iterator[Frame]:
    """The letterboxed photo, ``size`` px in ``image``, turned around the face ``box``.

    Yields no frame if the face is less than ROLL_PX high, or if a turn could cut it.
    """
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    reach = half.max()
    if 2 * half[1] < ROLL_PX or (centre < reach).any() or (centre > np.array(size) - reach).any():
        return
    for degrees in ROLLS:
        for turn in sorted({-degrees, degrees}):
            matrix = cv2.getRotationMatrix2D((centre - 0.5).tolist(), turn, 1)
            turned = np.asarray(cv2.warpAffine(image, matrix, (WIDTH, HEIGHT)), np.uint8)
            around = turned_half(half, turn)
            edges = np.concatenate((centre - around, centre + around))
            yield _of_one(turned, edges, "roll", degrees)


def turned_half(half: Doubles, degrees: float) -> Doubles:
    """Half width and height [2] of the box around an ellipse with these half axes, turned."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.hypot(half * cosine, half[::-1] * sine)


def _of_one(image: Image, box: Doubles, kind: str, value: int) -> Frame:
    return Frame(image, box[None], {(kind, str(value)): np.ones(1, np.bool_)}, False)


def _heights(faces: AnnotatedImage) -> Doubles:
    return (faces.boxes[:, 3] - faces.boxes[:, 1]).astype(np.float64)


def _start(centre: float, length: int, side: int) -> int:
    """First px of a window of ``length`` around ``centre``, moved into 0 to ``side``."""
    return min(max(round(centre - length / 2), 0), side - length)


def _fitted(photo: Image) -> tuple[int, int]:
    """Width and height in px that the photo has in the frame."""
    return fit_size(photo.shape[1], photo.shape[0], WIDTH, HEIGHT)
