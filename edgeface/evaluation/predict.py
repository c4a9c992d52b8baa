"""Run a detector over the WIDER FACE validation images and evaluate what it finds.

The Detector fits the images. At scale ``640`` (published as "VGA") the long side is resized to 640
px, ratio kept, small images enlarged. The usual protocol puts that image at the top left of a
640x640 black canvas; a network of any input size gets the canvas only as far as the next multiple
of 32 px, which leaves out nothing but black::

    +--------------+--+
    |  640 x 427   |  |   640 stays, 427 -> 448
    +--------------+  |
    +--------------+--+

Scale ``original``: no resizing, the same padding. A network of one fixed input size gets each image
letterboxed into that size, whatever its scale then is; the report's ``scale`` and ``input`` say so.

Scale ``multi``: several sizes and a flip, boxes put to a vote
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
    """What a detector found, by key ``event/name``."""

    detections: dict[str, Detections]
    """in px of the original images"""
    scales: dict[str, float]
    """px of the evaluated image per px of the original"""


@dataclass(frozen=True)
class Evaluation:
    """A report with all that it came from."""

    report: Report
    result: WiderResult
    predictions: Predictions
    landmarks: LandmarkAccuracy | None = None
    """where they were asked for"""


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
    """Open a model (see :meth:`Detector.open`) and evaluate it on the annotated images that are
    present below ``root``.

    scale: '640', 'original' or 'multi'. The thresholds are by default .02 and .45, for 'multi' .05
    and .3 as in the papers. heights: 'annotated' bins faces by px of the original image,
    'evaluated' by px at the evaluated scale (for 'multi': of the plain view). progress: told how
    far it is. fast: see :func:`edgeface.runners.open_runner`. weights: see :meth:`Detector.open`.
    agreed_only: with 'multi', faces that two or more boxes agree on. landmarks: file of faces with
    points, whose photos below ``root`` are looked at as well: see
    :mod:`edgeface.evaluation.landmarks`. annotations: a file of faces on photos of one's own below
    ``root``, in place of WIDER FACE's: see :mod:`edgeface.evaluation.own`.

    Raises an EdgefaceError: for data that is missing, before the model is opened, for a model that
    cannot run at that scale, for a damaged image, which with ``on_error`` is told and left out.
    """
    _check_scale(scale, agreed_only, landmarks is not None)
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
    """(score, IoU of NMS) of an evaluation at ``scale`` that names no other."""
    if scale == MULTI:
        return multiscale.SCORE_THRESHOLD, multiscale.NMS_IOU
    return SCORE_THRESHOLD, NMS_IOU


def annotated_photos(
    root: Path | str, annotations: Path | str | None = None
) -> tuple[GroundTruth, dict[str, Path]]:
    """Faces and photos (key -> path) that AP is measured on: WIDER FACE's below ``root``, or those
    of a file of one's own. Raises DataError."""
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


def evaluate_detector(
    detector: Detector | MultiScaleDetector,
    name: str,
    ground_truth: GroundTruth,
    images: Mapping[str, Path],
    heights: str = ANNOTATED,
    progress: Progress = unseen,
    on_error: OnError | None = None,
) -> Evaluation:
    """Evaluate an open Detector, with its own thresholds and size, on ``images`` (key -> path) and
    no others.

    name: what the report calls it. Raises DataError for an image that is not annotated, and for a
    box outside a photo of one's own; see :func:`evaluate_model`.
    """
    if heights not in (ANNOTATED, EVALUATED):
        raise OptionError(f"heights {heights!r} are not known; accepted: {ANNOTATED}, {EVALUATED}")
    faces = ground_truth.restrict(images).images  # before the first photo is looked at

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
    """The annotated images below ``root/WIDER_val/images``: key -> path, in the order of the ground
    truth.

    Raises DataError if there is none.
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
    """Detect in every image (key -> path). Raises ImageError for one that is missing or damaged;
    with ``on_error`` it is told there and left out. look: told key, width and height of each that
    is not."""
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
    """How many boxes of an image enter NMS: all; of the S3FD family the best 5000, as its papers
    do.

    It has cells every 4 px, of which its released networks give most a score above ours to report.
    """
    return TOP_K if layout.coding == "ssd" else None


def protocol_of(
    detector: Detector | MultiScaleDetector, heights: str = ANNOTATED
) -> EvaluationProtocol:
    """What a report says about the predictions of ``detector``."""
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
