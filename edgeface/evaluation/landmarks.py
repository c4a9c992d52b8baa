"""Normalised mean error (NME): how far the five landmarks of a face are from annotated ones.

The error of a face is the mean distance of its points from the annotated ones, as a share of
sqrt(width x height) of the annotated box. A face counts if

- sqrt(width x height) is 20 px or more in the photo with its long side scaled to 640 px, whatever
  size the network sees;
- it is not marked invalid;
- it has points, and all are inside the photo, because annotators can only guess points of a face
  that the photo cuts. A point without coordinates is left out; the other points count.

A face is matched by the detected box with the highest IoU, which must be .5 or more; boxes with a
score below .3 are not considered. The mean is over matched faces and must be read with their
number: a detector that finds only the easy faces looks better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeface.decode import box_iou
from edgeface.errors import DataError, ModelError
from edgeface.evaluation.own import FOLDERS, find_photo
from edgeface.images.annotated import AnnotatedImage
from edgeface.images.annotations import read_annotations
from edgeface.images.reading import OnError, read_or_tell
from edgeface.types import Doubles, Progress, unseen

if TYPE_CHECKING:
    from edgeface.detections import Detections
    from edgeface.detector import Detector

Boxes = NDArray[np.floating[Any]]

SCORE_THRESHOLD = 0.3
MATCH_IOU = 0.5
LONG_SIDE_PX = 640
LEAST_SIDE_PX = 20
FAILURE = 0.1
"""a face with a larger error has failed"""


@dataclass(frozen=True)
class LandmarkAccuracy:
    """NME and failures of the matched faces; both are None if no face is matched."""

    nme: float | None
    """mean error of the matched faces"""
    failures: float | None
    """share of the matched faces with an error above .1"""
    matched: int
    annotated: int
    """faces that count"""

    @classmethod
    def of(cls, errors: Doubles, annotated: int) -> LandmarkAccuracy:
        """From ``errors`` [N] of the matched faces; annotated: number of faces that count."""
        if not len(errors):
            return cls(None, None, 0, annotated)
        return cls(float(errors.mean()), float((errors > FAILURE).mean()), len(errors), annotated)

    def to_json(self) -> dict[str, Any]:
        """nme, nme_failures, nme_faces (matched) and nme_annotated."""
        return {
            "nme": self.nme,
            "nme_failures": self.failures,
            "nme_faces": self.matched,
            "nme_annotated": self.annotated,
        }

    def __str__(self) -> str:
        found = f"{self.matched} of {self.annotated} faces found"
        if self.nme is None or self.failures is None:
            return f"landmarks: {found}"
        return (
            f"landmarks: mean error {self.nme:.4f}, {self.failures:.3f} above {FAILURE:g}; {found}"
        )


def labelled_photos(path: Path | str, root: Path | str) -> list[tuple[AnnotatedImage, Path]]:
    """The images of the annotation file ``path`` whose photo is present, each with its photo.

    Photos lie below ``root``'s WIDER_train/images or WIDER_val/images, or below ``root`` itself.
    Raises DataError for a file without landmarks, and if no photo is found.
    """
    images = read_annotations(path)
    if all(image.landmarks is None for image in images):
        raise DataError(
            f"{path} holds no landmarks; accepted: RetinaFace's labels, or a CSV with ten more "
            "columns"
        )
    found = [(image, photo) for image in images if (photo := find_photo(Path(root), image.path))]
    if not found:
        raise DataError(
            f"none of the {len(images)} images of {path} is below {root}, {images[0].path} for "
            f"one; accepted: a folder that has them in {FOLDERS[0]}, {FOLDERS[1]} or itself"
        )
    return found


def measure_landmarks(
    detector: Detector,
    photos: Sequence[tuple[AnnotatedImage, Path]],
    progress: Progress = unseen,
    on_error: OnError | None = None,
) -> LandmarkAccuracy:
    """Detect in each of ``photos``, as :func:`labelled_photos` returns them, and measure the error.

    Raises ModelError for a model without landmarks, ImageError for a damaged photo; with
    ``on_error`` the photo is reported there and left out.
    """
    runner = detector.runner
    if not runner.layout.landmarks:
        raise ModelError(
            f"{runner.model} finds no landmarks: leave --landmarks out, or give a model that was "
            "trained with them"
        )
    errors, annotated = [np.zeros(0)], 0
    for done, (labels, path) in enumerate(photos):
        progress("measuring landmarks", done, len(photos))
        image = read_or_tell(path, on_error)
        if image is None:
            continue
        height, width = image.shape[:2]
        counting = counting_faces(labels, width, height)
        annotated += int(counting.sum())
        errors.append(face_errors(detector.detect(image, SCORE_THRESHOLD), labels, counting))
    return LandmarkAccuracy.of(np.concatenate(errors), annotated)


def counting_faces(labels: AnnotatedImage, width: int, height: int) -> NDArray[np.bool_]:
    """Which faces of a photo of ``width`` x ``height`` px count: bool [N]."""
    if labels.landmarks is None:
        return np.zeros(len(labels.boxes), np.bool_)
    points = labels.landmarks
    outside = ((points < 0) | (points > (width, height))).any(axis=(1, 2))
    large = _sizes(labels) * LONG_SIDE_PX / max(width, height) >= LEAST_SIDE_PX
    return ~labels.invalid & large & ~outside & _known(points).any(axis=1)


def face_errors(found: Detections, labels: AnnotatedImage, counting: NDArray[np.bool_]) -> Doubles:
    """Errors of the faces that count and are matched."""
    assert found.landmarks is not None
    if not counting.any() or not len(found):
        return np.zeros(0)
    assert labels.landmarks is not None, "a face counts by its landmarks"
    points = labels.landmarks[counting].astype(np.float64)
    iou = box_iou(found.boxes, labels.boxes[counting])
    best = iou.argmax(axis=0)
    matched = iou[best, np.arange(len(best))] >= MATCH_IOU
    distance = np.linalg.norm(found.landmarks[best] - points, axis=2)
    mean = np.where(_known(points), distance, 0).sum(axis=1) / _known(points).sum(axis=1)
    return np.asarray((mean / _sizes(labels)[counting])[matched])


def _known(points: Boxes) -> NDArray[np.bool_]:
    """Which points [N, 5, 2] have coordinates: bool [N, 5]."""
    return np.asarray(np.isfinite(points).all(axis=2))


def _sizes(labels: AnnotatedImage) -> Doubles:
    """sqrt(width x height) in px of the photo [N]."""
    sides = labels.boxes[:, 2:].astype(np.float64) - labels.boxes[:, :2]
    return np.asarray(np.sqrt(sides.prod(axis=1)))
