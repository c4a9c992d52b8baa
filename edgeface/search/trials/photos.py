"""Which photos trials are trained on, and which are kept aside to measure them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeface.errors import DataError, counted
from edgeface.files import atomic_write
from edgeface.images.annotated import AnnotatedImage
from edgeface.images.annotations import PLAIN_COLUMNS, POINT_COLUMNS, read_annotations
from edgeface.images.landmarks import with_landmarks
from edgeface.search.trials.training import Plan
from edgeface.training.options import TrainOptions

KEPT_SHARE = 5
"""of one's own photos, one in so many is kept aside"""
LEAST_KEPT = 10
"""photos, below which an AP says nothing"""
TRAINED, KEPT = "annotations-trained.csv", "annotations-kept.csv"


def plan_of(
    folder: Path,
    data: Path,
    annotations: Path | None,
    options: TrainOptions,
    landmarks: Path | None = None,
) -> Plan:
    """Of trainings of the search in ``folder``, where the cache and the lists of one's own photos
    lie. ``data`` with WIDER FACE's ground truth: AP is its hard AP; else one photo in five of
    ``annotations`` is kept aside, chosen by its path. ``landmarks``: file of those of one's own
    photos, which join the list; WIDER FACE's have none.

    Raises DataError where there is nothing to train or to measure on.
    """
    kept = None
    if own := parted(data, annotations, landmarks):
        write_plain(folder / TRAINED, own[0])
        write_plain(folder / KEPT, own[1])
        annotations, kept = folder / TRAINED, folder / KEPT
    where = data.resolve()
    return Plan(
        options,
        str(where),
        str(annotations.resolve()) if annotations else None,
        str((folder / "cache").resolve()),
        str((folder / "trials").resolve()),
        str(where),
        kept=str(kept.resolve()) if kept else None,
    )


def parted(
    data: Path, annotations: Path | None, landmarks: Path | None = None
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]] | None:
    """One's own photos, those that are trained on and those that are kept aside; None for WIDER
    FACE, which is parted already. Raises DataError as :func:`plan_of`."""
    if (data / "eval_tools" / "ground_truth").is_dir():
        return None
    if annotations is None:
        raise DataError(
            f"--data {data} has no eval_tools/ground_truth to measure AP with: give WIDER FACE's"
            " folder, or --annotations FILE for photos of your own"
        )
    images = read_annotations(annotations)
    aside = kept_aside(images)
    if len(aside) < LEAST_KEPT:
        raise DataError(
            f"{annotations} has {counted(len(images), 'photo')}, accepted for trials:"
            f" {LEAST_KEPT * KEPT_SHARE} at least, of which one in {KEPT_SHARE} is kept aside"
        )
    if landmarks:
        images = with_landmarks(images, landmarks)
    return (
        [image for image in images if image.path not in aside],
        [image for image in images if image.path in aside],
    )


def kept_aside(images: Sequence[AnnotatedImage]) -> set[str]:
    """Paths of one photo in :data:`KEPT_SHARE`, the same ones whatever their order."""
    ranked = sorted((hashlib.sha256(i.path.encode()).hexdigest(), i.path) for i in images)
    return {path for _, path in ranked[: len(ranked) // KEPT_SHARE]}


def write_plain(path: Path, images: Sequence[AnnotatedImage]) -> None:
    """A CSV that :func:`edgeface.images.annotations.read_annotations` reads; faces marked invalid,
    which it cannot say, are left out. Raises OutputError."""
    points = any(image.landmarks is not None for image in images)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = (*PLAIN_COLUMNS, *(POINT_COLUMNS if points else ()))
        writer.writerow(columns)
        for image in images:
            rows = _rows(image)
            writer.writerows(rows or [[image.path, *[""] * (len(columns) - 1)]])


def _rows(image: AnnotatedImage) -> list[list[str]]:
    rows = []
    for place in np.flatnonzero(~image.invalid):
        values = [f"{v:g}" for v in image.boxes[place]]
        if image.landmarks is not None:
            values += ["" if np.isnan(v) else f"{v:g}" for v in image.landmarks[place].ravel()]
        rows.append([image.path, *values])
    return rows
