"""Accuracy of a file of any target: AP on annotated photos, and noise in its heads.

Files are opened with the project's own runners, as a user would open them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import FORMAT_VERSION, Bundle, Manifest, write_bundle
from edgeface.decode import HeadLayout, decode_all
from edgeface.detector import Detector
from edgeface.errors import DataError, counted
from edgeface.evaluation import GroundTruth, evaluate_detector
from edgeface.evaluation.predict import NMS_IOU, SCORE_THRESHOLD, annotated_photos
from edgeface.files import read_file, scratch_folder
from edgeface.images import Image
from edgeface.images.reading import OnError
from edgeface.runners import Heads, open_runner
from edgeface.types import Floats, Progress, unseen
from quantize.base import Quantized
from quantize.budget import SETTINGS, FileAccuracy, HeadNoise

CANDIDATES = 300
"""number of best candidates of a photo whose change counts as damage: enough for its faces and for
the candidates that compete with them"""
HOPELESS = 1e30
"""noise power of a head with NaN or infinity in it"""


@dataclass(frozen=True)
class ValidationSet:
    """Annotated photos that AP is measured on."""

    ground_truth: GroundTruth
    images: dict[str, Path]
    """key -> file"""
    sha256: str
    """hash over keys, photos and annotations"""
    photos: frozenset[str] = frozenset()
    """SHA-256 of the content of each photo"""

    @classmethod
    def load(cls, root: Path | str, annotations: Path | str | None = None) -> ValidationSet:
        """The WIDER FACE validation photos below ``root``, or the photos in the file
        ``annotations``. Raises DataError."""
        ground_truth, images = annotated_photos(root, annotations)
        ground_truth = ground_truth.restrict(images)
        if not any(
            mask.any() for faces in ground_truth.images.values() for mask in faces.counts.values()
        ):
            raise DataError(
                f"no face counts in the {len(images)} validation photos in {root}: accuracy cannot"
                " be measured on them"
            )
        digest = hashlib.sha256()
        photos = {key: hashlib.sha256(read_file(path, DataError)) for key, path in images.items()}
        for key in images:
            faces = ground_truth.images[key]
            digest.update(key.encode() + b"\0" + photos[key].digest() + faces.boxes.tobytes())
            for setting in SETTINGS:
                digest.update(faces.counts[setting].tobytes())
        hashes = frozenset(photo.hexdigest() for photo in photos.values())
        return cls(ground_truth, images, digest.hexdigest(), hashes)

    def too_few_for(self, max_drop: float) -> str | None:
        """Why there are too few faces for a budget of ``max_drop`` AP points: one face counts for
        more. None if one face counts for less."""
        faces = sum(int(one.counts["hard"].sum()) for one in self.ground_truth.images.values())
        if not faces or 100 / faces <= max_drop:
            return None
        return (
            f"AP is that of {counted(faces, 'face')}, one of which is {100 / faces:.1f} points,"
            f" more than the budget of {max_drop:g}: chance decides whether it holds; annotate more"
            " photos, or widen it with --max-drop"
        )


@contextmanager
def as_bundle(manifest: Manifest, quantized: Quantized) -> Iterator[Bundle]:
    """A temporary Bundle of the files ``quantized``, deleted at the end of the block."""
    with scratch_folder() as scratch:
        yield write_bundle(
            scratch / manifest.folder_name, manifest, named_files(manifest, quantized)
        )


def named_files(manifest: Manifest, quantized: Quantized) -> dict[str, bytes]:
    """File name -> content."""
    return {manifest.model + suffix: content for suffix, content in quantized.files.items()}


def int8_manifest(manifest: Manifest, quantized: Quantized) -> Manifest:
    """The float Bundle's manifest with the fields that the INT8 files alone determine replaced."""
    return dataclasses.replace(
        manifest,
        precision="int8",
        input=dataclasses.replace(manifest.input, dtype=quantized.input_dtype),
        output_quantization=(
            dict(quantized.output_quantization) if quantized.output_quantization else None
        ),
        outputs=dict(quantized.outputs or manifest.outputs),
        parity=None,
        contract=None,
        format_version=FORMAT_VERSION,
    )


def accuracy_of(
    bundle: Bundle,
    validation: ValidationSet,
    threads: int,
    what: str,
    progress: Progress = unseen,
    on_error: OnError | None = None,
) -> FileAccuracy:
    """AP by the official protocol; face heights are those annotated, in px of the original photo.

    on_error: called for a photo that cannot be read, which is then skipped.
    """

    def told(_: str, done: int, total: int, note: str = "") -> None:
        progress(what, done, total, note)

    with Detector(open_runner(bundle, threads), SCORE_THRESHOLD, NMS_IOU) as detector:
        report = evaluate_detector(
            detector,
            bundle.manifest.model,
            validation.ground_truth,
            validation.images,
            progress=told,
            on_error=on_error,
        ).report
    return FileAccuracy(
        report.easy,
        report.medium,
        report.hard,
        report.by_height,
        report.images,
        str(report.protocol),
    )


def heads_of(bundle: Bundle, images: Sequence[Image]) -> list[Heads]:
    """Raw head outputs for each of ``images`` (uint8 RGB [H, W, 3] of the input size)."""
    with open_runner(bundle) as runner:
        return [runner.run(image[None]) for image in images]


def head_noise(reference: Sequence[Heads], found: Sequence[Heads], layout: HeadLayout) -> HeadNoise:
    """Noise of the heads ``found`` against the heads ``reference`` of the same photos."""
    power = {}
    for head in reference[0]:
        exact = np.concatenate([heads[head].ravel() for heads in reference]).astype(np.float64)
        error = np.concatenate([heads[head].ravel() for heads in found]).astype(np.float64) - exact
        with np.errstate(over="ignore", invalid="ignore"):
            ratio = float(np.mean(error**2) / max(float(exact.var()), 1e-30))
        power[head] = min(_or_hopeless(ratio), HOPELESS)
    pairs = zip(reference, found, strict=True)
    damage, moved, scores = np.mean([_change(a, b, layout) for a, b in pairs], axis=0)
    shift = _or_hopeless(moved / max(scores, 1e-30)) if layout.landmarks else None
    return HeadNoise(power, _or_hopeless(damage), shift)


def _or_hopeless(value: float) -> float:
    return float(value) if np.isfinite(value) else HOPELESS


def _change(reference: Heads, found: Heads, layout: HeadLayout) -> tuple[float, float, float]:
    """(damage, sum of score * shift of landmarks, sum of scores) over the best candidates of either
    file.

    Damage is the sum of (change of score)^2 + (score * (1 - IoU of the two boxes))^2, and with
    landmarks + (score * shift)^2 with the shift limited to 1, divided by CANDIDATES. NaN or
    infinite for broken heads.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        old, new = decode_all(reference, layout), decode_all(found, layout)
        best = np.union1d(_best(old.scores), _best(new.scores))
        score, boxes, shift = old.scores[best], old.boxes[best], np.zeros(len(best), np.float32)
        change = (score - new.scores[best]) ** 2 + (score * (1 - _iou(boxes, new.boxes[best]))) ** 2
        if old.landmarks is not None and new.landmarks is not None:
            shift = _shift(old.landmarks[best], new.landmarks[best], boxes)
            change += (score * np.minimum(shift, 1)) ** 2
        sums = [np.sum(v, dtype=np.float64) for v in (change, score * shift, score)]
        return float(sums[0] / CANDIDATES), float(sums[1]), float(sums[2])


def _best(scores: Floats) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")[:CANDIDATES]


def _shift(points: Floats, moved: Floats, boxes: Floats) -> Floats:
    """Mean distance [N] between the landmarks ``points`` and ``moved`` [N, 5, 2], in sides of their
    ``boxes`` [N, 4]."""
    side = np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(1e-3)).prod(axis=1))
    distance: Floats = np.hypot(*np.moveaxis(points - moved, 2, 0)).mean(axis=1) / side
    return distance


def _iou(a: Floats, b: Floats) -> Floats:
    """IoU [N] of each box of ``a`` [N, 4] with the box of ``b`` [N, 4] in the same row."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared: Floats = np.maximum(sides, 0).prod(axis=1)
    areas = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1)
    iou: Floats = shared / np.maximum(areas - shared, np.float32(1e-9))
    return iou
