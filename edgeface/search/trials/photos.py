"""Split of the photos into those that trials are trained on and those kept aside for AP."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from edgeface.errors import DataError, counted
from edgeface.files import atomic_write
from edgeface.images.annotated import AnnotatedImage
from edgeface.images.annotations import PLAIN_COLUMNS, POINT_COLUMNS, read_annotations
from edgeface.images.landmarks import with_landmarks
from edgeface.search.trials.training import Plan
from edgeface.training.options import TrainOptions

KEPT_SHARE = 5
"""1 / KEPT_SHARE of a user's own photos is kept aside"""
LEAST_KEPT = 10
"""fewest photos kept aside: AP on fewer says nothing"""
TRAINED, KEPT = "annotations-trained.csv", "annotations-kept.csv"
LABELS = ".txt"
"""suffix of the same files in the format of RetinaFace's labels"""


def plan_of(
    folder: Path,
    data: Path,
    annotations: Path | None,
    options: TrainOptions,
    landmarks: Path | None = None,
) -> Plan:
    """Plan of a search's trainings; cache and lists of the user's own photos are in ``folder``.

    If ``data`` holds WIDER FACE's ground truth, AP is its hard AP. Otherwise one photo in five of
    ``annotations``, chosen by its path, is kept aside. landmarks: file with the landmarks of the
    user's own photos, which are added to the lists; unused for WIDER FACE, which has no lists.
    Raises DataError if there is nothing to train or to measure on.
    """
    kept = None
    if own := parted(data, annotations, landmarks):
        annotations, kept = (
            write_annotations(folder / name, images)
            for name, images in zip((TRAINED, KEPT), own, strict=True)
        )
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
    """The user's own photos: (trained on, kept aside). None for WIDER FACE, which is already split.
    Raises DataError as :func:`plan_of`."""
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
    """Paths of one photo in :data:`KEPT_SHARE`; the order of ``images`` does not matter."""
    ranked = sorted((hashlib.sha256(i.path.encode()).hexdigest(), i.path) for i in images)
    return {path for _, path in ranked[: len(ranked) // KEPT_SHARE]}


def write_annotations(path: Path, images: Sequence[AnnotatedImage]) -> Path:
    """Write a file that :func:`edgeface.images.annotations.read_annotations` reads as ``images``,
    and return its path: the CSV ``path``, with six digits of each coordinate, or a label file
    beside it if a CSV cannot express them.
    Raises OutputError."""
    plain = all(map(_is_plain, images))
    path = path if plain else path.with_suffix(LABELS)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        (_write_plain if plain else _write_labels)(file, images)
    return path


def _is_plain(image: AnnotatedImage) -> bool:
    """Can a CSV express ``image``? A CSV marks no face as invalid and has each box only once: not
    once with and once without landmarks."""
    once = image.landmarks is None or len(np.unique(image.boxes, axis=0)) == len(image.boxes)
    return once and not image.invalid.any()


def _write_plain(file: TextIO, images: Sequence[AnnotatedImage]) -> None:
    points = any(image.landmarks is not None for image in images)
    writer = csv.writer(file, lineterminator="\n")
    columns = (*PLAIN_COLUMNS, *(POINT_COLUMNS if points else ()))
    writer.writerow(columns)
    for image in images:
        rows = _rows(image)
        writer.writerows(rows or [[image.path, *[""] * (len(columns) - 1)]])


def _rows(image: AnnotatedImage) -> list[list[str]]:
    rows = []
    for place, box in enumerate(image.boxes):
        values = [f"{v:g}" for v in box]
        if image.landmarks is not None:
            values += ["" if np.isnan(v) else f"{v:g}" for v in image.landmarks[place].ravel()]
        rows.append([image.path, *values])
    return rows


def _write_labels(file: TextIO, images: Sequence[AnnotatedImage]) -> None:
    """Write RetinaFace's labels. A face to ignore begins at its opposite corner: its negative size
    marks it when it is read, as for such faces in WIDER FACE's own file."""
    for image in images:
        file.write(f"# {image.path}\n")
        for place, box in enumerate(image.boxes.astype(np.float64)):
            near, far = (box[2:], box[:2]) if image.invalid[place] else (box[:2], box[2:])
            values = [*near, *(far - near)]
            for x, y in (
                np.full((5, 2), np.nan) if image.landmarks is None else image.landmarks[place]
            ):
                values += [-1, -1, -1] if np.isnan(x) else [x, y, 1]
            file.write(" ".join(f"{float(v)!r}" for v in (*values, 1)) + "\n")
