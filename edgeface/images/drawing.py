"""Faces drawn into a photo."""

from __future__ import annotations

import cv2
import numpy as np

from edgeface.detections import Detections
from edgeface.images.reading import Image


def draw(
    image: Image, detections: Detections, colour: tuple[int, int, int] = (0, 255, 0), scores: bool = True
) -> Image:
    """Return a copy of an RGB image [H, W, 3] with each face's box, score and landmarks; lines scale with the image."""
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    thickness = max(1, round(min(height, width) / 300))
    for index, (box, score) in enumerate(zip(detections.boxes, detections.scores, strict=True)):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness)
        if detections.landmarks is not None:
            for x, y in detections.landmarks[index]:
                cv2.circle(canvas, (round(float(x)), round(float(y))), 2 * thickness, colour, -1)
        if scores:
            _label(canvas, f"{score:.2f}", x1, y1, thickness, colour)
    return canvas


def _label(
    canvas: Image, text: str, x: int, y: int, thickness: int, colour: tuple[int, int, int]
) -> None:
    """Black text on a filled tag above the corner (x, y), moved down into the image where there is no room."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * max(1.0, thickness / 1.5)
    stroke = max(1, thickness // 2)
    (width, height), baseline = cv2.getTextSize(text, font, size, stroke)
    bottom = max(y, height + baseline + 1)
    cv2.rectangle(canvas, (x, bottom - height - baseline - 1), (x + width, bottom), colour, -1)
    cv2.putText(canvas, text, (x, bottom - baseline), font, size, (0, 0, 0), stroke, cv2.LINE_AA)
