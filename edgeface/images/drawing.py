"""Draws faces into a photo."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.detections import Detections
from edgeface.images.reading import as_rgb
from edgeface.images.scaling import Image
from edgeface.types import Floats

DOT_COLOURS = ((0, 255, 255), (0, 255, 255), (255, 255, 0), (255, 0, 255), (255, 0, 255))
"""RGB colours of the dots of the five landmarks: eyes, nose, corners of the mouth"""
JOINED = ((0, 2), (1, 2), (3, 4))
"""pairs of landmarks joined by a line: each eye with the nose, the corners of the mouth"""
MAX_PX = 1 << 20
"""limit of coordinates: beyond any image, and still accepted by OpenCV"""


def draw(
    image: Image,
    detections: Detections,
    colour: tuple[int, int, int] = (0, 255, 0),
    scores: bool = True,
    numbers: NDArray[np.int64] | None = None,
) -> Image:
    """Return a copy of an RGB image [H, W, 3] with each face's box, score and landmarks, and with
    its number if ``numbers`` [N] are given.

    Lines scale with the image. Landmarks are dots, coloured by :data:`DOT_COLOURS` and joined by
    lines. A face with NaN in its box is not drawn; a landmark with NaN is left out. Raises
    ImageError for any other image.
    """
    canvas = np.array(as_rgb(image))
    height, width = canvas.shape[:2]
    thickness = max(1, round(min(height, width) / 300))
    for index, (box, score) in enumerate(zip(detections.boxes, detections.scores, strict=True)):
        if np.isnan(box).any():
            continue
        (x1, y1), (x2, y2) = _places(box.reshape(2, 2))
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness)
        if detections.landmarks is not None:
            _mark(canvas, detections.landmarks[index], min(x2 - x1, y2 - y1), thickness, colour)
        number = "" if numbers is None else f"#{numbers[index]}"
        text = " ".join(filter(None, (number, f"{score:.2f}" if scores else "")))
        if text:
            _label(canvas, text, x1, y1, thickness, colour)
    return canvas


def _mark(
    canvas: Image, points: Floats, side: int, thickness: int, colour: tuple[int, int, int]
) -> None:
    """Draw the landmarks [5, 2] of a face of ``side`` px; dots are small enough not to merge."""
    known = [not np.isnan(point).any() for point in points]
    places = _places(np.nan_to_num(points, nan=0))
    for start, end in JOINED:
        if known[start] and known[end]:
            ends = places[start], places[end]
            cv2.line(canvas, *ends, colour, max(1, thickness // 2), cv2.LINE_AA)
    radius = max(0, min(2 * thickness, side // 16))  # 0: one pixel
    for place, dot, is_known in zip(places, DOT_COLOURS, known, strict=True):
        if is_known:
            cv2.circle(canvas, place, radius, dot, -1)


def _places(points: Floats) -> list[tuple[int, int]]:
    """[N, 2] x, y as whole px within the range of OpenCV."""
    return [(round(x), round(y)) for x, y in np.clip(points, -MAX_PX, MAX_PX).tolist()]


def _label(
    canvas: Image, text: str, x: int, y: int, thickness: int, colour: tuple[int, int, int]
) -> None:
    """Draw black text on a filled tag above the corner (x, y), moved down into the image if there
    is no room."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * max(1.0, thickness / 1.5)
    stroke = max(1, thickness // 2)
    (width, height), baseline = cv2.getTextSize(text, font, size, stroke)
    bottom = max(y, height + baseline + 1)
    cv2.rectangle(canvas, (x, bottom - height - baseline - 1), (x + width, bottom), colour, -1)
    cv2.putText(canvas, text, (x, bottom - baseline), font, size, (0, 0, 0), stroke, cv2.LINE_AA)
