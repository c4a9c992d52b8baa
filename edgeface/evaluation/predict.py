"""Run a detector over the WIDER FACE validation images and evaluate what it finds.

The Detector resizes and pads the images. At scale ``640`` (published as "VGA") the long side is
resized to 640 px, ratio kept, small images enlarged. The usual protocol puts that image at the top
left of a 640x640 black canvas. For a network of any input size, the canvas here ends at the next
multiple of 32 px, which leaves out nothing but black::

    +--------------+--+
    |  640 x 427   |  |   640 stays, 427 -> 448
    +--------------+  |
    +--------------+--+

At this scale, a network with a fixed input size gets each image letterboxed into that size; the
report states it in ``scale`` and ``input``.

Scale ``original``: no resizing, the same padding.

Scale ``multi``: several sizes and a flip, boxes merged by a vote
(:mod:`edgeface.evaluation.multiscale`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgeface.decode import TOP_K, HeadLayout
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import DataError, OptionError, counted
from edgeface.evaluation import multiscale
from edgeface.evaluation.landmarks import LandmarkAccuracy, labelled_photos, measure_landmarks
from edgeface.evaluation.multiscale import MultiScaleDetector
from edgeface.evaluation.own import EVALUATOR as OWN_EVALUATOR
from edgeface.evaluation.own import in_photo, own_photos
from edgeface.evaluation.report import ANNOTATED, EVALUATED, EvaluationProtocol, Report
from edgeface.evaluation.wider import (
    IMAGE_SUFFIXES,
    GroundTruth,
    WiderResult,
    evaluate,
    image_key,
    load_ground_truth,
)
from edgeface.images.reading import OnError, read_or_tell
from edgeface.options import EVALUATION_SCALES
from edgeface.types import Progress, unseen
from edgeface.zoo import is_network

SCALES = EVALUATION_SCALES
MULTI = SCALES[-1]
SCORE_THRESHOLD = 0.02
NMS_IOU = 0.45


@dataclass(frozen=True)
class Predictions:
    """Detections and scales of the evaluated images, by key ``event/name``."""

    detections: dict[str, Detections]
    """in px of the original images"""
    scales: dict[str, float]
    """px of the evaluated image per px of the original"""


@dataclass(frozen=True)
class Evaluation:
    """A report, with the result and the predictions behind it."""

    report: Report
    result: WiderResult
    predictions: Predictions
    landmarks: LandmarkAccuracy | None = None
    """None if they were not measured"""


def evaluate_model(
    model: Path | str,
    root: Path | str,
    scale: str = "640",
    threads: int = 1,
    score_threshold: float | None = None,
    nms_iou: float | None = None,
    heights: str = ANNOTATED,
    progress: Progress = unseen,
    fast: bool = False,
    weights: Path | str | None = None,
    agreed_only: bool = False,
    landmarks: Path | str | None = None,
    annotations: Path | str | None = None,
    on_error: OnError | None = None,
) -> Evaluation:
    """Open a model and evaluate it on the annotated images that are present below ``root``.

    model, weights: see :meth:`Detector.open`. scale: '640', 'original' or 'multi'. The thresholds
    are by default .02 and .45, for 'multi' .05 and .3 as in the papers. heights: 'annotated' bins
    faces by px of the original image, 'evaluated' by px at the evaluated scale (for 'multi': of the
    plain view). progress: called with the images done. fast: see
    :func:`edgeface.runners.open_runner`. agreed_only: with 'multi', keep only faces that two or
    more boxes agree on. landmarks: file of faces with points; their error is measured on its photos
    below ``root``, see :mod:`edgeface.evaluation.landmarks`. annotations: file of faces on a user's
    own photos below ``root``, used instead of WIDER FACE's, see :mod:`edgeface.evaluation.own`.

    Raises an EdgefaceError for missing data, before the model is opened, for a model that cannot
    run at that scale, and for a damaged image. With ``on_error``, a damaged image is reported there
    instead and left out.
    """
    _check_scale(scale, agreed_only, landmarks is not None)
    _check_heights(heights)
    ground_truth, images = annotated_photos(root, annotations)
    labelled = labelled_photos(landmarks, root) if landmarks is not None else []
    size = "original" if scale == "original" else None  # None: 640, or what a fixed network has
    score, iou = thresholds_of(scale)
    score = score if score_threshold is None else score_threshold
    iou = iou if nms_iou is None else nms_iou
    with Detector.open(model, threads, score, iou, size, fast, weights) as detector:
        used = MultiScaleDetector(detector, agreed_only) if scale == MULTI else detector
        name = detector.runner.model if is_network(model) else Path(model).name
        points = measure_landmarks(detector, labelled, progress, on_error) if labelled else None
        done = evaluate_detector(used, name, ground_truth, images, heights, progress, on_error)
        return replace(done, landmarks=points)


def thresholds_of(scale: str) -> tuple[float, float]:
    """Default (score threshold, IoU of NMS) of an evaluation at ``scale``."""
    if scale == MULTI:
        return multiscale.SCORE_THRESHOLD, multiscale.NMS_IOU
    return SCORE_THRESHOLD, NMS_IOU


def annotated_photos(
    root: Path | str, annotations: Path | str | None = None
) -> tuple[GroundTruth, dict[str, Path]]:
    """Ground truth and photos (key -> path) on which AP is measured.

    They are WIDER FACE's below ``root``, or those of a user's own file ``annotations``. Raises
    DataError.
    """
    if annotations is not None:
        return own_photos(annotations, root)
    ground_truth = load_ground_truth(root)
    return ground_truth, present_images(root, ground_truth)


def _check_scale(scale: str, agreed_only: bool, landmarks: bool) -> None:
    if scale not in SCALES:
        raise OptionError(f"scale {scale!r} is not known; accepted: {', '.join(SCALES)}")
    if agreed_only and scale != MULTI:
        raise OptionError(
            f"--agreed-only is for --scale {MULTI}: at scale {scale} each face has one box"
        )
    if landmarks and scale == MULTI:
        raise OptionError(
            f"--landmarks is for --scale 640 or original: at scale {MULTI} boxes are put to a"
            " vote, and points are not"
        )


def _check_heights(heights: str) -> None:
    if heights not in (ANNOTATED, EVALUATED):
        raise OptionError(f"heights {heights!r} are not known; accepted: {ANNOTATED}, {EVALUATED}")


def evaluate_detector(
    detector: Detector | MultiScaleDetector,
    name: str,
    ground_truth: GroundTruth,
    images: Mapping[str, Path],
    heights: str = ANNOTATED,
    progress: Progress = unseen,
    on_error: OnError | None = None,
) -> Evaluation:
    """Evaluate an open Detector, with its thresholds and size, on ``images`` (key -> path) only.

    name: what the report calls the model. Raises DataError for an image that is not annotated, and
    for a box outside a user's own photo; see :func:`evaluate_model`.
    """
    _check_heights(heights)
    faces = ground_truth.restrict(images).images  # raises before any photo is read

    def look(key: str, width: int, height: int) -> None:
        faces[image_key(key)] = in_photo(faces[image_key(key)], width, height)

    predictions = predict(detector, images, progress, on_error, look)
    if not predictions.detections:
        raise DataError(
            f"none of {counted(len(images), 'photo')} can be read: there is nothing to judge"
        )
    restricted = GroundTruth(faces).restrict(predictions.detections)
    result = evaluate(
        predictions.detections, restricted, predictions.scales if heights == EVALUATED else None
    )
    protocol = protocol_of(detector, heights)
    if any(image.own for image in faces.values()):
        protocol = replace(protocol, evaluator=OWN_EVALUATOR)
    return Evaluation(Report.of(name, protocol, result), result, predictions)


def present_images(root: Path | str, ground_truth: GroundTruth) -> dict[str, Path]:
    """The annotated images below ``root/WIDER_val/images``: key -> path.

    They are in the order of the ground truth. Raises DataError if there is none.
    """
    folder = Path(root) / "WIDER_val" / "images"
    paths = (path for path in sorted(folder.glob("*/*")) if path.suffix.lower() in IMAGE_SUFFIXES)
    found = {image_key(path.relative_to(folder).as_posix()): path for path in paths}
    present = {key: found[key] for key in ground_truth.images if key in found}
    if not present:
        raise DataError(
            f"no annotated image in {folder}; accepted: <event>/<name>.jpg as WIDER FACE is"
            " distributed"
        )
    return present


def predict(
    detector: Detector | MultiScaleDetector,
    images: Mapping[str, Path],
    progress: Progress = unseen,
    on_error: OnError | None = None,
    look: Callable[[str, int, int], None] = lambda key, width, height: None,
) -> Predictions:
    """Detect in every image (key -> path).

    look: called with key, width and height of each image that can be read. Raises ImageError for a
    missing or damaged image; with ``on_error`` it is reported there and left out.
    """
    detections, scales = {}, {}
    for done, (key, path) in enumerate(images.items()):
        progress("evaluating", done, len(images))
        image = read_or_tell(path, on_error)
        if image is None:
            continue
        height, width = image.shape[:2]
        look(key, width, height)
        if isinstance(detector, MultiScaleDetector):
            detections[key] = detector.detect(image)
            scales[key] = multiscale.plain_scale(width, height)
        else:
            detections[key] = detector.detect(image, top_k=candidates(detector.runner.layout))
            scales[key] = _scale(detector, width, height)
    progress("evaluating", len(images), len(images))
    return Predictions(detections, scales)


def _scale(detector: Detector, width: int, height: int) -> float:
    """px of the network's input per px of a photo."""
    if fixed := detector.runner.input_size:
        return min(fixed[0] / width, fixed[1] / height)
    return 1.0 if detector.size == "original" else int(detector.size) / max(width, height)


def candidates(layout: HeadLayout) -> int | None:
    """How many boxes of an image enter NMS: all (None), or the best 5000 for the S3FD family.

    The S3FD papers do so: these networks have cells every 4 px, and the released ones give most
    cells a score above the lowest that we report.
    """
    return TOP_K if layout.coding == "ssd" else None


def protocol_of(
    detector: Detector | MultiScaleDetector, heights: str = ANNOTATED
) -> EvaluationProtocol:
    """The protocol that a report states for the predictions of ``detector``."""
    fixed = detector.runner.input_size
    multiple = detector.runner.layout.multiple_px
    return EvaluationProtocol(
        scale=str(detector.size),
        input=(
            f"letterboxed into {fixed[0]}x{fixed[1]}"
            if fixed
            else f"padded to multiples of {multiple}"
        ),
        score_threshold=detector.score_threshold,
        nms=detector.nms_iou,
        runtime=detector.runner.runtime,
        heights=heights,
    )
