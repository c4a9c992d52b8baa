"""Training: annotated photos in, weights out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeface.architecture.architecture import Architecture
from edgeface.decode import head_layout
from edgeface.errors import DataError, OptionError
from edgeface.files import LOCK, locked
from edgeface.training.options import AugmentOptions, TrainOptions
from edgeface.types import Progress, unnoted, unseen

if TYPE_CHECKING:
    from edgeface.images.annotated import AnnotatedImage
    from edgeface.images.reading import OnError
    from edgeface.training.dataset import Cache

__all__ = [
    "AugmentOptions",
    "TrainOptions",
    "open_photos",
    "prepare_torch",
    "read_photos",
    "train_model",
]

WIDER_LIST = Path("wider_face_split/wider_face_train_bbx_gt.txt")
WIDER_IMAGES = Path("WIDER_train/images")


def open_photos(
    data: Path,
    annotations: Path | None,
    cache: Path,
    progress: Progress = unseen,
    on_error: OnError | None = None,
) -> Cache:
    """Open the photos of a WIDER FACE folder, or of any folder with ``annotations``.

    The decoded photos are kept in the folder ``cache``. Raises DataError for annotations or photos
    that cannot be used, and if there is nothing to learn; ImageError for a photo that cannot be
    decoded. With ``on_error``, such a photo is reported there and left out.
    """
    from edgeface.training.dataset import open_cache

    photos = read_photos(data, annotations)
    return open_cache(cache, *photos, progress=progress, on_error=on_error)


def read_photos(
    data: Path, annotations: Path | None, landmarks: Path | None = None
) -> tuple[Path, list[AnnotatedImage]]:
    """The folder of photos and their annotations, as :func:`open_cache` takes them.

    landmarks: a file with the landmarks of these faces, for those that have none in the
    annotations. Raises DataError.
    """
    from edgeface.images.annotated import check_visible
    from edgeface.images.annotations import read_annotations
    from edgeface.images.landmarks import with_landmarks
    from edgeface.training.photos import check_photos

    boxes = annotations or data / WIDER_LIST
    images = data / WIDER_IMAGES if (data / WIDER_IMAGES).is_dir() else data
    if not boxes.is_file():
        raise DataError(
            f"no annotations at {boxes}: pass a WIDER FACE folder as --data, or --annotations FILE"
        )
    annotated = read_annotations(boxes)
    check_visible(annotated, boxes)
    check_photos(images, annotated, boxes)
    return images, with_landmarks(annotated, landmarks) if landmarks else annotated


def prepare_torch(threads: int, device: str) -> None:
    """Set the threads of torch and of OpenCV, which makes the crops (0: their own choice).

    Raises OptionError for a device that is not available.
    """
    import cv2
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise OptionError(f"--device {device!r} is not usable here: use cpu") from None
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


def train_model(
    architecture: Architecture,
    options: TrainOptions,
    data: Path,
    run: Path,
    annotations: Path | None,
    cache: Path,
    in_memory: bool = False,
    threads: int = 0,
    device: str = "cpu",
    *,
    landmarks: Path | None = None,
    init: str | None = None,
    branch: Path | None = None,
    until: int | None = None,
    progress: Progress = unseen,
    note: Callable[[str], None] = lambda text: print(f"note: {text}", file=sys.stderr),
    on_error: OnError | None = None,
) -> bool:
    """Train on WIDER FACE, or any folder of photos with ``annotations``; see :class:`Trainer`.

    landmarks: file with landmarks of the faces. init: name or file of weights to start from.
    branch: run folder to start from. until: step after which to stop. progress, note: called with
    the progress, and with messages for the user. on_error: called for photos that cannot be
    decoded; they are left out. Returns False if stopped before the last step.

    Raises DataError for unusable annotations or photos and if no face is large enough, OptionError
    for a device that is not available or a run that another process works on, ModelError if
    ``init`` or ``branch`` does not fit, TrainingError if the loss is not finite, ImageError for a
    photo that cannot be decoded if there is no ``on_error``.
    """
    from edgeface.training.dataset import open_cache
    from edgeface.training.distributed import distributed
    from edgeface.training.loop import Trainer
    from edgeface.training.resume import refuse_others_files

    prepare_torch(threads, device)
    folder, images = read_photos(data, annotations, landmarks)
    _check_landmarks(architecture, images, note)
    with distributed() as first, _alone(run, first):
        if first:  # the other processes then open the finished cache
            refuse_others_files(run)
            open_cache(cache, folder, images, progress=progress, on_error=on_error)
    with distributed() as first, _alone(run, first):
        left_out = None if on_error is None else unnoted  # photos were reported above
        photos = open_cache(cache, folder, images, in_memory, on_error=left_out)
        _check_sizes(photos, options, annotations or data / WIDER_LIST, note if first else unnoted)
        trainer = Trainer(architecture, options, photos, run, device)
        fit = trainer.begin(init, branch)
        if first and fit:
            note(f"{init}: {fit}")
        return trainer.fit(progress, until)


def _alone(run: Path, first: bool) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of the run in its first process, on behalf of all."""
    return locked(run / LOCK, f"the training in {run}") if first else contextlib.nullcontext()


def _check_sizes(
    photos: Cache, options: TrainOptions, annotations: Path, note: Callable[[str], None]
) -> None:
    """Report how many faces stay too small to be learned even in the most enlarged crop.

    Raises DataError if all of them do.
    """
    from edgeface.training.dataset import LONG_SIDE_PX

    augment = options.augment_at(0)  # the first crops of a run are enlarged most
    if augment.crop != "zoom":  # other crops bring a face to a given size, however small it is
        return
    boxes, least = photos.boxes[~photos.ignore], augment.min_face_px / augment.scale_high
    sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
    small = int((sides < least).sum())
    scaled = f"{least:.3g} px once photos are scaled to {LONG_SIDE_PX} px"
    if small and small == len(sides):
        raise DataError(
            f"{annotations}: all {small} faces are below {scaled}, {float(sides.max()):.2g} px at"
            " most: too small to be learned; accepted: parts of the photos, in which faces are"
            " larger"
        )
    if small:
        note(f"{small} of {len(sides)} faces are below {scaled}: too small to be learned")


def _check_landmarks(
    architecture: Architecture, images: list[AnnotatedImage], note: Callable[[str], None]
) -> None:
    """Report landmarks that only the network or only the photos have; boxes are learned anyway."""
    layout = head_layout(architecture)
    known = any(
        image.landmarks is not None and np.isfinite(image.landmarks).any() for image in images
    )
    if layout.landmarks and not known:
        note(
            f"no annotated face has landmarks: {architecture.name} learns boxes alone; its"
            " landmarks get worse than those of --init, and mean nothing without it; pass"
            " --landmarks FILE (RetinaFace's labels or CSV)"
        )
    if known and not layout.landmarks:
        note(f"{architecture.name} has no landmarks: those of the annotations are not used")
