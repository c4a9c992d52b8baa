"""Adds landmarks from a separate file to annotated faces that have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DataError
from edgeface.images.annotated import AnnotatedImage, listed
from edgeface.images.annotations import PLAIN_COLUMNS, POINT_COLUMNS, read_annotations


def with_landmarks(images: list[AnnotatedImage], path: Path | str) -> list[AnnotatedImage]:
    """``images`` with the landmarks that the file ``path`` (CSV or RetinaFace's labels) has for the
    same boxes.

    Faces with landmarks keep them; faces without any in either source get NaN. Raises DataError if
    the file has no landmarks, if a box of the file differs from every box of its image by more than
    half a pixel on a side, or if its image is not among ``images``.
    """
    labels = {image.path: image for image in read_annotations(path)}
    if not any(label.landmarks is not None for label in labels.values()):
        raise DataError(
            f"{path} holds no landmarks; accepted: RetinaFace's labels, or a CSV with "
            f"{','.join((*PLAIN_COLUMNS, *POINT_COLUMNS))}"
        )
    faces, strangers = sum(len(label.boxes) for label in labels.values()), []
    joined = []
    for image in images:
        label = labels.pop(image.path, None)
        points = np.full((len(image.boxes), 5, 2), np.nan, np.float32)
        if image.landmarks is not None:
            points = image.landmarks.copy()
        if label is not None and len(label.boxes):
            match = _same_boxes(label.boxes, image.boxes)
            strangers += [f"{image.path} {listed(box)}" for box in label.boxes[match < 0]]
            if label.landmarks is not None:
                rows = np.flatnonzero(match >= 0)
                rows = rows[np.isnan(points[match[rows]]).all((1, 2))]
                points[match[rows]] = label.landmarks[rows]
        joined.append(replace(image, landmarks=points))
    strangers += [f"{path} {listed(box)}" for path, label in labels.items() for box in label.boxes]
    if strangers:
        raise DataError(
            f"{path}: {len(strangers)} of {faces} boxes are not among the annotations, the first: "
            f"{strangers[0]}; accepted: landmarks for boxes of the same images, in the same px"
        )
    return joined


def _same_boxes(boxes: NDArray[np.float32], among: NDArray[np.float32]) -> NDArray[np.intp]:
    """For each of ``boxes`` [M, 4] the index of the box of ``among`` [N, 4] within half a pixel, or
    -1."""
    if not len(among):
        return np.full(len(boxes), -1)
    distance = np.abs(boxes[:, None] - among[None]).max(2)
    nearest = distance.argmin(1)
    return np.where(distance[np.arange(len(boxes)), nearest] <= 0.5, nearest, -1)
