"""Detections: what a detector found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DataError
from edgeface.types import Floats


class Face(NamedTuple):
    """One of the faces of an image: a view of :class:`Detections`."""

    box: Floats
    """float32 [4]: x1, y1, x2, y2 in px of the image passed in"""
    score: float
    """0 to 1"""
    landmarks: Floats | None
    """float32 [5, 2] in px, or None for models without"""


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces of one image, best first.

    ``for face in detections`` yields each as a :class:`Face`, ``detections[0]`` is the best,
    ``detections[:3]`` the best three, ``detections[detections.scores > 0.8]`` those above 0.8."""

    boxes: Floats
    """float32 [N, 4]: x1, y1, x2, y2 in px of the image passed in"""
    scores: Floats
    """float32 [N], 0 to 1"""
    landmarks: Floats | None = None
    """float32 [N, 5, 2], None for models without: x, y in px of left eye, right eye, nose, left and
    right corner of the mouth, left and right as in the image; they may lie outside the image"""

    def __post_init__(self) -> None:
        given = {"boxes": self.boxes, "scores": self.scores, "landmarks": self.landmarks}
        shapes = {name: getattr(value, "shape", None) for name, value in given.items()}
        count = (shapes["scores"] or (-1,))[0]
        points = None if self.landmarks is None else (count, 5, 2)
        wanted = {"boxes": (count, 4), "scores": (count,), "landmarks": points}
        if shapes != wanted:
            got = ", ".join(
                f"{name} {_kind(value) if shape is None else list(shape)}"
                for (name, value), shape in zip(given.items(), shapes.values(), strict=True)
            )
            raise DataError(
                "Detections take arrays: boxes [N, 4], scores [N], and landmarks [N, 5, 2] or None,"
                f" got {got}"
            )

    @classmethod
    def empty(cls) -> Detections:
        """No faces."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, index: int) -> Face: ...

    @overload
    def __getitem__(self, index: slice | NDArray[np.generic]) -> Detections: ...

    def __getitem__(self, index: int | slice | NDArray[np.generic]) -> Face | Detections:
        points = None if self.landmarks is None else self.landmarks[index]
        if isinstance(index, slice) or np.ndim(index) > 0:
            return Detections(self.boxes[index], self.scores[index], points)
        return Face(self.boxes[index], float(self.scores[index]), points)

    def __iter__(self) -> Iterator[Face]:
        return (self[i] for i in range(len(self)))

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
            {"box": _plain(box), "score": _plain(score)}
            for box, score in zip(self.boxes, self.scores, strict=True)
        ]
        if self.landmarks is not None:
            for face, points in zip(faces, self.landmarks, strict=True):
                face["landmarks"] = _plain(points)
        return faces

    @classmethod
    def from_json(cls, faces: list[dict[str, Any]]) -> Detections:
        """Read :meth:`to_json` output. Raises DataError for anything else."""
        if not isinstance(faces, (list, tuple)):
            raise DataError(f"{_NO_FACES}: got {type(faces).__name__}")
        try:
            boxes = _array([face["box"] for face in faces], 4)
            scores = _array([face["score"] for face in faces])
            with_points = bool(faces) and "landmarks" in faces[0]
            if any(("landmarks" in face) != with_points for face in faces):
                raise ValueError("some faces have landmarks, others none")
            points = _array([face["landmarks"] for face in faces], 5, 2) if with_points else None
        except KeyError as error:
            raise DataError(f"{_NO_FACES}: a face has no {error}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{_NO_FACES}: {' '.join(str(error).split())}") from None
        return cls(boxes, scores, points)


_NO_FACES = "expected faces as Detections.to_json gives them"


def _array(values: list[Any], *shape: int) -> Floats:
    """float32 [N, *shape]. Raises TypeError, ValueError or OverflowError."""
    with np.errstate(over="ignore"):  # values too large for float32 become infinite
        array = np.array(values, np.float32)
    if not np.isfinite(array).all():
        raise ValueError("not all numbers are finite")
    if array.shape != (len(values), *shape) and values:
        raise ValueError(f"got shape {list(array.shape)} instead of {[len(values), *shape]}")
    return array.reshape(-1, *shape)


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _plain(value: Any) -> Any:
    """float32 array or scalar -> nested lists of the shortest floats that give the same float32."""
    array = np.asarray(value, np.float32)
    return float(str(array)) if array.ndim == 0 else [_plain(item) for item in array]
