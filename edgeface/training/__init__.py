"""Training: annotated photos in, weights out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.errors import DataError, OptionError
from edgeface.models.architecture import Architecture
from edgeface.progress import Progress, unseen
from edgeface.training.options import AugmentOptions, TrainOptions

if TYPE_CHECKING:
    from edgeface.training.dataset import Cache

__all__ = ["AugmentOptions", "TrainOptions", "open_photos", "prepare_torch", "train_model"]

WIDER_LIST = Path("wider_face_split/wider_face_train_bbx_gt.txt")
WIDER_IMAGES = Path("WIDER_train/images")


def open_photos(data: Path, annotations: Path | None, cache: Path, in_memory: bool = False,
                landmarks: Path | None = None, progress: Progress = unseen) -> Cache:
    """Open the photos of a WIDER FACE folder, or of any folder with ``annotations``, decoded in the folder ``cache``.

    landmarks: a file with landmarks of these faces, where the annotations have none. Raises DataError for annotations
    or photos that cannot be used.
    """
    from edgeface.annotations import read_annotations, with_landmarks
    from edgeface.training.dataset import open_cache

    boxes = annotations or data / WIDER_LIST
    images = data / WIDER_IMAGES if (data / WIDER_IMAGES).is_dir() else data
    if not boxes.is_file():
        raise DataError(f"no annotations at {boxes}: pass a WIDER FACE folder as --data, or --annotations FILE")
    annotated = read_annotations(boxes)
    return open_cache(cache, images, with_landmarks(annotated, landmarks) if landmarks else annotated, in_memory,
                      progress)


def prepare_torch(threads: int, device: str) -> None:
    """Give torch its threads (0: its own choice). Raises OptionError for a device that is not there."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise OptionError(f"--device {device!r} is not usable here: use cpu") from None
    if threads:
        torch.set_num_threads(threads)


def train_model(architecture: Architecture, options: TrainOptions, data: Path, run: Path, annotations: Path | None,
                cache: Path, in_memory: bool = False, threads: int = 0, device: str = "cpu",
                progress: Progress = unseen) -> bool:
    """Train on a WIDER FACE folder, or on any folder of photos with ``annotations``; see :class:`Trainer`.

    Returns False when it was stopped before the last step.

    Raises DataError for annotations or photos that cannot be used, OptionError for a device that is not there.
    """
    from edgeface.training.loop import Trainer, distributed

    prepare_torch(threads, device)
    with distributed() as first:
        if first:  # the others then find the cache made
            open_photos(data, annotations, cache, progress=progress)
    with distributed():
        pixels = open_photos(data, annotations, cache, in_memory)
        trainer = Trainer(architecture, options, pixels, run, device)
        trainer.resume()
        return trainer.fit(progress)
