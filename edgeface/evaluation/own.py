"""AP on a user's own annotated photos, by the official evaluator.

Every face counts that is not marked invalid. All faces form one set, which takes the place of WIDER
FACE's hard setting. On a photo without faces every box is a false positive, whereas such photos of
WIDER FACE are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeface.errors import DataError, counted
from edgeface.evaluation.wider import SETTINGS, GroundTruth, ImageFaces, image_key
from edgeface.images.annotated import AnnotatedImage, check_boxes, check_visible, named
from edgeface.images.annotations import read_annotations
from edgeface.images.reading import OnError, read_or_tell
from edgeface.types import Doubles, Progress, unseen

FOLDERS = ("WIDER_train/images", "WIDER_val/images", ".")
"""folders below the root in which photos are looked for"""
EVALUATOR = (
    "own annotations, all faces, also false boxes on photos without any, by WIDER FACE's protocol"
    " (IoU 0.5, 1000 thresholds)"
)


def own_photos(annotations: Path | str, root: Path | str) -> tuple[GroundTruth, dict[str, Path]]:
    """Ground truth and photos (key -> path) of an annotation file.

    Photos lie below ``root``, or in WIDER FACE's folders there. Raises DataError for a file that
    cannot be used, for one without visible faces, and for missing photos.
    """
    return judged_photos(read_annotations(annotations), annotations, root)


def judged_photos(
    images: Sequence[AnnotatedImage], annotations: Path | str, root: Path | str
) -> tuple[GroundTruth, dict[str, Path]]:
    """Like :func:`own_photos`, for ``images``; messages call their file ``annotations``."""
    photos = {image_key(image.path): find_photo(Path(root), image.path) for image in images}
    missing = [image for image in images if photos[image_key(image.path)] is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} photos of {annotations} are not below {root}:"
            f" {named(missing)}; accepted: a folder that has all of them"
        )
    if len(photos) < len(images):
        raise DataError(
            f"{annotations} names two photos that differ in their suffix alone; accepted: each"
            " photo under a name of its own"
        )
    truth = ground_truth_of(images, annotations)
    check_visible(images, annotations, "found")
    return truth, {k: p for k, p in photos.items() if p}


def ground_truth_of(images: Sequence[AnnotatedImage], annotations: Path | str) -> GroundTruth:
    """Ground truth of annotated photos. Raises DataError if no face counts."""
    found = {image_key(image.path): _faces(image) for image in images}
    if not any(faces.counts[SETTINGS[-1]].any() for faces in found.values()):
        raise DataError(
            f"{annotations} has no face to find in its {counted(len(images), 'photo')}, so there is"
            " no AP; accepted: annotations with faces that are not marked invalid"
        )
    return GroundTruth(found)


def _faces(image: AnnotatedImage) -> ImageFaces:
    counts = {setting: np.zeros(len(image.boxes), np.bool_) for setting in SETTINGS}
    counts[SETTINGS[-1]] = ~image.invalid
    return ImageFaces(_sized(image), counts, image)


def _sized(image: AnnotatedImage) -> Doubles:
    """Boxes as x, y, w, h."""
    x1, y1, x2, y2 = image.boxes.astype(np.float64).T
    return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)


def in_photo(faces: ImageFaces, width: int, height: int) -> ImageFaces:
    """Cut the boxes of a user's own photo of ``width`` x ``height`` px at its edges.

    Training does the same. WIDER FACE's boxes stay unchanged, as in the official tool. Raises
    DataError for a box outside a user's own photo.
    """
    if faces.own is None:
        return faces
    return replace(faces, boxes=_sized(check_boxes(faces.own, width, height)))


def check_inside(
    truth: GroundTruth,
    photos: Mapping[str, Path],
    on_error: OnError | None,
    progress: Progress = unseen,
) -> None:
    """Raise DataError for a face outside its photo, and ImageError for an unreadable photo.

    With ``on_error``, an unreadable photo is reported there instead.
    """
    for done, (key, path) in enumerate(photos.items()):
        progress("reading the photos", done, len(photos))
        image = read_or_tell(path, on_error)
        if image is not None:
            in_photo(truth.images[key], image.shape[1], image.shape[0])
    progress("reading the photos", len(photos), len(photos))


def find_photo(root: Path, path: str) -> Path | None:
    """The photo with the annotated ``path`` below ``root``; None if there is none."""
    return next((photo for folder in FOLDERS if (photo := root / folder / path).is_file()), None)
