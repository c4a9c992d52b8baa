"""Detections: what a detector found, and how to draw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DOT_COLOURS = ((0, 255, 255), (0, 255, 255), (255, 255, 0), (255, 0, 255), (255, 0, 255))
"""RGB, of the dots of eyes, nose and mouth"""
JOINED = ((0, 2), (1, 2), (3, 4))
"""landmarks with a line between them: each eye and the nose, the corners of the mouth"""
MAX_PX = 1 << 20
"""further away than any image reaches, and still a coordinate that OpenCV takes"""


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces of one image, best first."""

    boxes: Floats
    """float32 [N, 4]: x1, y1, x2, y2 in px of the image passed in"""
    scores: Floats
    """float32 [N], 0 to 1"""
    landmarks: Floats | None = None
    """float32 [N, 5, 2], None for models without: x, y in px of the eye on the left of the image,
    that on the right, nose, left and right corner of the mouth; they may lie outside the image"""

    def __post_init__(self) -> None:
        count = len(self.scores)
        assert self.boxes.shape == (count, 4) and self.scores.shape == (count,)
        assert self.landmarks is None or self.landmarks.shape == (count, 5, 2)

    @classmethod
    def empty(cls) -> Detections:
        """No faces."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        same = np.array_equal(self.boxes, other.boxes) and np.array_equal(self.scores, other.scores)
        if self.landmarks is None or other.landmarks is None:
            return same and (self.landmarks is other.landmarks or not len(self))
        return same and np.array_equal(self.landmarks, other.landmarks)

    def to_json(self) -> list[dict[str, Any]]:
        """``[{"box": [x1, y1, x2, y2], "score": s}, ...]``.

        A face with landmarks also has ``"landmarks": [[x, y], ...]``, five of them.

        Numbers carry just the digits that give the same float32 back.
        """
        faces: list[dict[str, Any]] = [
            {"box": _plain(box), "score": _plain(score)} for box, score in zip(self.boxes, self.scores, strict=True)
        ]
        if self.landmarks is not None:
            for face, points in zip(faces, self.landmarks, strict=True):
                face["landmarks"] = _plain(points)
        return faces

    @classmethod
    def from_json(cls, faces: list[dict[str, Any]]) -> Detections:
        """Read :meth:`to_json` output."""
        points = [face["landmarks"] for face in faces if "landmarks" in face]
        return cls(
            np.array([face["box"] for face in faces], np.float32).reshape(-1, 4),
            np.array([face["score"] for face in faces], np.float32),
            np.array(points, np.float32).reshape(-1, 5, 2) if points else None,
        )


def draw(
    image: NDArray[np.uint8], detections: Detections, colour: tuple[int, int, int] = (0, 255, 0), scores: bool = True
) -> NDArray[np.uint8]:
    """Return a copy of an RGB image [H, W, 3] with each face's box, score and landmarks.

    Lines scale with the image. Landmarks are dots, eyes, nose and mouth each in a colour of
    :data:`DOT_COLOURS`, and lines join those of one face.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    thickness = max(1, round(min(height, width) / 300))
    for index, (box, score) in enumerate(zip(detections.boxes, detections.scores, strict=True)):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness)
        if detections.landmarks is not None:
            _mark(canvas, detections.landmarks[index], min(x2 - x1, y2 - y1), thickness, colour)
        if scores:
            _label(canvas, f"{score:.2f}", x1, y1, thickness, colour)
    return canvas


def _mark(
    canvas: NDArray[np.uint8], points: Floats, side: int, thickness: int,
    colour: tuple[int, int, int],
) -> None:
    """The [5, 2] landmarks of a face of ``side`` px; the dots of a small face stay apart."""
    places = [(round(x), round(y)) for x, y in np.clip(points, -MAX_PX, MAX_PX).tolist()]
    for start, end in JOINED:
        cv2.line(canvas, places[start], places[end], colour, max(1, thickness // 2), cv2.LINE_AA)
    radius = max(0, min(2 * thickness, side // 16))  # 0: one pixel
    for place, dot in zip(places, DOT_COLOURS, strict=True):
        cv2.circle(canvas, place, radius, dot, -1)


def _label(
    canvas: NDArray[np.uint8], text: str, x: int, y: int, thickness: int, colour: tuple[int, int, int]
) -> None:
    """Black text on a filled tag above the corner (x, y), moved down into the image where there is no room."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * max(1.0, thickness / 1.5)
    stroke = max(1, thickness // 2)
    (width, height), baseline = cv2.getTextSize(text, font, size, stroke)
    bottom = max(y, height + baseline + 1)
    cv2.rectangle(canvas, (x, bottom - height - baseline - 1), (x + width, bottom), colour, -1)
    cv2.putText(canvas, text, (x, bottom - baseline), font, size, (0, 0, 0), stroke, cv2.LINE_AA)


def _plain(value: Any) -> Any:
    """float32 array or scalar -> nested lists of the shortest Python floats that round to the same float32."""
    array = np.asarray(value, np.float32)
    return float(str(array)) if array.ndim == 0 else [_plain(item) for item in array]
