"""What a saved figure was measured on: a resumed run reuses it only for the same photos and
protocol.

Photos are identified by name and size in bytes, which takes seconds; reading them takes minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from edgeface.errors import counted
from edgeface.evaluation.predict import MULTI, annotated_photos, thresholds_of
from edgeface.evaluation.report import EVALUATOR
from edgeface.evaluation.wider import SETTINGS
from edgeface.images.inputs import list_folder
from quantize.calibration import photo_folder


def validation_photos(root: Path | str) -> str:
    """Count and digest of the annotated photos below a WIDER FACE ``root``, and of their faces.
    Raises DataError."""
    ground_truth, images = annotated_photos(root)
    faces = [ground_truth.images[key] for key in images]
    annotated = (
        each.boxes.tobytes() + b"".join(each.counts[s].tobytes() for s in SETTINGS)
        for each in faces
    )
    return _told(zip(images, images.values(), annotated, strict=True))


def calibration_photos(root: Path | str) -> str:
    """Count and digest of the photos that calibrate INT8. Raises DataError, ImageError."""
    folder = photo_folder(Path(root))
    found = list_folder(folder).photos
    return _told((path.relative_to(folder).as_posix(), path, b"") for path in found)


def measured_on(photos: str, scale: str = "640", agreed_only: bool = False) -> str:
    """``photos`` and the protocol that :func:`edgeface.evaluation.evaluate_model` follows at
    ``scale``."""
    score, iou = thresholds_of(scale)
    boxes = " agreed" * (agreed_only and scale == MULTI)
    return f"{photos}; scale {scale}{boxes}, score >= {score:g}, NMS IoU {iou:g}; {EVALUATOR}"


def photos_of(measured: str) -> str:
    """The photos in what :func:`measured_on` returned."""
    return measured.partition("; ")[0]


def different_photos(figures: Iterable[tuple[str, str]]) -> list[str]:
    """One line of warning if ``figures``, (name, measured on), are of different photos, else
    none."""
    names: dict[str, dict[str, None]] = {}
    for name, measured in figures:
        names.setdefault(photos_of(measured) or "unknown photos", {})[name] = None
    told = (f"{', '.join(found)}: {photos}" for photos, found in names.items())
    return [f"AP of different photos, do not compare: {'; '.join(told)}."] * (len(names) > 1)


def _told(photos: Iterable[tuple[str, Path, bytes]]) -> str:
    digest, count = hashlib.sha256(), 0
    for name, path, faces in photos:
        digest.update(f"{name}\0{path.stat().st_size}\0{len(faces)}\0".encode() + faces)
        count += 1
    return f"{counted(count, 'photo')} {digest.hexdigest()[:12]}"
