"""The official WIDER FACE evaluation, vectorised per image; same results to the last digit.

Source: ``eval_tools`` of WIDER FACE (Yang et al., CVPR 2016) in its Python port
wondervictor/WiderFace-Evaluation.

1. Scores are normalised once over all images: ``s <- (s - min) / (max - min)``. The running max
  starts at 0, the running min at 1.
2. In each image, predictions are judged by falling score. Each is compared with the face that it
  overlaps most among *all* annotated ones (IoU with the +1 convention below; the first of equals).
  An IoU below .5 is a false positive. If that face is outside the setting, the prediction is
  ignored. If it counts, the first prediction is a true positive, every later one a false positive.
  The second-best face is not tried.
3. At each of 1000 thresholds .999 ... 0, the kept predictions and the true positives of all images
  are summed. Images without an annotated face or without a prediction add no prediction, but their
  faces stay in the recall. (Ours: a user's own photos without an annotated face add their
  predictions as false positives.)
4. AP is the area under the precision envelope (VOC 2010).

The settings easy, medium and hard differ only in which faces count; the height bins split the faces
of the hard setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DataError, MissingExtraError
from edgeface.types import Doubles

if TYPE_CHECKING:
    from edgeface.detections import Detections
    from edgeface.images.annotated import AnnotatedImage

SETTINGS = ("easy", "medium", "hard")
HEIGHT_BINS_PX: dict[str, tuple[float, float]] = {
    "0-16": (0, 16),
    "16-32": (16, 32),
    "32-96": (32, 96),
    "96+": (96, np.inf),
}
"""lower bound included, upper excluded"""
IOU_THRESHOLD = 0.5
THRESHOLDS: Doubles = 1 - (np.arange(1000) + 1) / 1000
OPERATING_SCORES: Doubles = np.arange(1, 10) / 10
OPERATING_SCORES = np.minimum(OPERATING_SCORES, np.float32(OPERATING_SCORES))
"""score thresholds of the operating points; each is lowered to its float32 value if that is
smaller, so that a detector's float32 score of .9 reaches .9"""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class ImageFaces:
    """The annotated faces of one image."""

    boxes: Doubles
    """[N, 4] x, y, w, h in px of the original image, as annotated"""
    counts: dict[str, NDArray[np.bool_]]
    """per setting [N]: whether the face counts; every other face is ignored"""
    own: AnnotatedImage | None = None
    """the annotated photo if it is a user's own; None for WIDER FACE"""


@dataclass(frozen=True)
class GroundTruth:
    """The annotated images by key, ``event/name`` without suffix."""

    images: dict[str, ImageFaces]

    def restrict(self, keys: Iterable[str]) -> GroundTruth:
        """Keep only these images (a suffix is allowed), in the order of the ground truth.

        Raises DataError on an image that is not annotated.
        """
        wanted = {image_key(key) for key in keys}
        _refuse_unknown(wanted, self)
        return GroundTruth({key: faces for key, faces in self.images.items() if key in wanted})


@dataclass(frozen=True)
class Curve:
    """Precision and recall at the 1000 thresholds, highest first; precision is 0 without boxes."""

    precision: Doubles
    recall: Doubles


@dataclass(frozen=True)
class OperatingPoint:
    """Precision and recall on the faces of the hard setting at one score threshold."""

    score: float
    """boxes with at least this score count; scores as the detector gives them, not normalised"""
    precision: float | None
    """share of the boxes that are true positives; None without boxes"""
    recall: float | None
    """share of the faces that are found; None without faces"""
    false_boxes: float
    """false positives per image"""
    recall_by_height: dict[str, float | None]
    """recall of each height bin"""


@dataclass(frozen=True)
class WiderResult:
    """AP of each setting and height bin; None where no face counts."""

    easy: float | None
    medium: float | None
    hard: float | None
    by_height: dict[str, float | None]
    images: int
    faces: dict[str, int]
    """counting faces per setting and height bin"""
    curves: dict[str, Curve] = field(repr=False, compare=False)
    """per setting and height bin that has faces"""
    operating_points: tuple[OperatingPoint, ...]
    """at each of OPERATING_SCORES"""


def image_key(path: str) -> str:
    """``event/name.jpg`` -> ``event/name``, the key of ground truth and predictions.

    All suffixes of images are removed (``name.png.jpg``), so that the key of a key is the same key.
    """
    while path.lower().endswith(IMAGE_SUFFIXES):
        path = path[: path.rindex(".")]
    return path


def load_ground_truth(root: Path | str) -> GroundTruth:
    """Read the official ``.mat`` files from ``root/eval_tools/ground_truth``, or else ``root``.

    Raises DataError for a missing, damaged or inconsistent file; MissingExtraError without SciPy.
    """
    root = Path(root)
    folder = root / "eval_tools" / "ground_truth"
    folder = folder if folder.is_dir() else root
    val = _load_mat(folder / "wider_face_val.mat", ("event_list", "file_list", "face_bbx_list"))
    lists = {s: _load_mat(folder / f"wider_{s}_val.mat", ("gt_list",))["gt_list"] for s in SETTINGS}
    images = {}
    try:
        for e, event in enumerate(val["event_list"][:, 0]):
            for i, name in enumerate(val["file_list"][e, 0][:, 0]):
                boxes = np.asarray(val["face_bbx_list"][e, 0][i, 0], np.float64).reshape(-1, 4)
                counts = {s: _counting_mask(lists[s][e, 0][i, 0], len(boxes)) for s in SETTINGS}
                images[f"{event[0]}/{name[0]}"] = ImageFaces(boxes, counts)
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"the .mat files in {folder} do not belong together ({error}); accepted: the four of"
            " one official eval_tools/ground_truth"
        ) from error
    return GroundTruth(images)


def evaluate(
    predictions: Mapping[str, NDArray[Any] | Detections],
    ground_truth: GroundTruth,
    scales: Mapping[str, float] | None = None,
) -> WiderResult:
    """AP over all images of ``ground_truth``; one without an entry in ``predictions`` has no boxes.

    predictions: per image, keyed ``event/name`` (a suffix is allowed), either [n, 5] x, y, w, h,
    score in px of the original image, in any order, or Detections, for which w = x2 - x1: the
    annotations measure so, and our networks learn x + w as the right edge. (Several published
    repositories write w = x2 - x1 + 1; do that in the array if you compare with them.) scales: px
    of the evaluated image per px of the original, by key. The height bins sort the hard faces by
    annotated height: in px of the original image, or with scales in px of the evaluated image.

    Raises DataError for predictions of an unknown image or of the wrong form.
    """
    ranked = {image_key(key): as_table(key, value) for key, value in predictions.items()}
    _refuse_unknown(ranked, ground_truth)
    low, high = _score_range(ranked.values())
    sets = (*SETTINGS, *HEIGHT_BINS_PX)
    faces = np.zeros(len(sets), np.int64)
    kept, true = np.zeros((2, len(sets), len(THRESHOLDS) + len(OPERATING_SCORES)), np.int64)
    for key, image in ground_truth.images.items():
        counting = _counting_faces(image, 1.0 if scales is None else scales[key])
        faces += counting.sum(axis=1)
        prediction = ranked.get(key)
        if prediction is None or not len(prediction) or not (len(image.boxes) or image.own):
            continue
        reached = _reached(prediction[:, 4], low, high)
        if not len(image.boxes):
            kept += reached  # false positives, all of them
            continue
        image_kept, image_true = _judge(prediction[:, :4], image.boxes, counting)
        kept += image_kept[:, reached]
        true += image_true[:, reached]
    return _result(sets, faces, kept, true, len(ground_truth.images))


def as_table(key: str, value: NDArray[Any] | Detections) -> Doubles:
    """Convert predictions of one image, in either form, to [n, 5] x, y, w, h, score, best first.

    Equal scores keep their order. Raises DataError naming the image ``key``.
    """
    if isinstance(value, np.ndarray):
        table = np.asarray(value, np.float64)
    else:
        corners = np.asarray(value.boxes, np.float64)
        table = np.column_stack(
            [corners[:, :2], corners[:, 2:] - corners[:, :2], np.asarray(value.scores, np.float64)]
        )
    if table.ndim != 2 or table.shape[1] != 5 or not np.isfinite(table).all():
        raise DataError(
            f"predictions of {key}: array of shape {list(table.shape)}; accepted: finite [n, 5] x,"
            " y, w, h, score"
        )
    return table[np.argsort(-table[:, 4], kind="stable")]


def overlaps(boxes: Doubles, faces: Doubles) -> Doubles:
    """IoU [n, m] of x, y, w, h boxes by the official convention: x2 = x + w, width x2 - x1 + 1 px.

    The additions keep the order of the original, so that the last digits are equal.
    """
    x1, y1, x2, y2 = (edge[:, None] for edge in _corners(boxes))
    fx1, fy1, fx2, fy2 = _corners(faces)
    width = np.maximum(np.minimum(x2, fx2) - np.maximum(x1, fx1) + 1, 0)
    height = np.maximum(np.minimum(y2, fy2) - np.maximum(y1, fy1) + 1, 0)
    intersection = width * height
    union = (x2 - x1 + 1) * (y2 - y1 + 1) + (fx2 - fx1 + 1) * (fy2 - fy1 + 1) - intersection
    iou: Doubles = intersection / union
    return iou


def average_precision(precision: Doubles, recall: Doubles) -> float:
    """Area under the precision envelope (VOC 2010 and later)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    step = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[step + 1] - recall[step]) * envelope[step + 1]))


def _corners(boxes: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    x, y, w, h = boxes.T
    return x, y, x + w, y + h


def _judge(
    boxes: Doubles, faces: Doubles, counting: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Count kept predictions and true positives among the first 0 ... n: two int [sets, n + 1].

    boxes [n, 4] in order of falling score, faces [m, 4], counting [sets, m].
    """
    iou = overlaps(boxes, faces)
    best = iou.argmax(axis=1)
    hit = iou[np.arange(len(boxes)), best] >= IOU_THRESHOLD
    hits = np.flatnonzero(hit)
    first = np.zeros(len(boxes), np.bool_)
    # The first hit on a face is the true positive in every setting where that face counts.
    first[hits[np.unique(best[hits], return_index=True)[1]]] = True
    counts = counting[:, best]
    outcomes = np.stack([counts | ~hit, counts & first])
    kept, true = np.pad(outcomes.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
    return kept, true


def _counting_faces(image: ImageFaces, scale: float) -> NDArray[np.bool_]:
    """Which faces count in each setting and height bin: bool [settings + height bins, N]."""
    height_px = image.boxes[:, 3] * scale
    bins = [
        image.counts["hard"] & (height_px >= low) & (height_px < high)
        for low, high in HEIGHT_BINS_PX.values()
    ]
    return np.stack([*(image.counts[setting] for setting in SETTINGS), *bins])


def _reached(scores: Doubles, low: float, high: float) -> NDArray[np.intp]:
    """How many falling ``scores`` reach each of THRESHOLDS, then each of OPERATING_SCORES.

    Scores are normalised for THRESHOLDS only.
    """
    normalised = (scores - low) / (high - low) if high > low else np.ones(len(scores))
    return np.concatenate(
        [
            np.searchsorted(-normalised, -THRESHOLDS, side="right"),
            np.searchsorted(-scores, -OPERATING_SCORES, side="right"),
        ]
    )


def _result(
    sets: Sequence[str],
    faces: NDArray[np.int64],
    kept: NDArray[np.int64],
    true: NDArray[np.int64],
    images: int,
) -> WiderResult:
    points = _operating_points(
        dict(zip(sets, faces.tolist(), strict=True)),
        dict(zip(sets, kept[:, len(THRESHOLDS) :].tolist(), strict=True)),
        dict(zip(sets, true[:, len(THRESHOLDS) :].tolist(), strict=True)),
        images,
    )
    kept, true = kept[:, : len(THRESHOLDS)], true[:, : len(THRESHOLDS)]
    precision = np.divide(true, kept, out=np.zeros(true.shape), where=kept > 0)
    curves = {s: Curve(precision[i], true[i] / faces[i]) for i, s in enumerate(sets) if faces[i]}
    ap = {
        s: average_precision(curves[s].precision, curves[s].recall) if s in curves else None
        for s in sets
    }
    return WiderResult(
        easy=ap["easy"],
        medium=ap["medium"],
        hard=ap["hard"],
        by_height={s: ap[s] for s in HEIGHT_BINS_PX},
        images=images,
        faces=dict(zip(sets, faces.tolist(), strict=True)),
        curves=curves,
        operating_points=points,
    )


def _operating_points(
    faces: Mapping[str, int],
    kept: Mapping[str, Sequence[int]],
    true: Mapping[str, Sequence[int]],
    images: int,
) -> tuple[OperatingPoint, ...]:
    """Operating points at OPERATING_SCORES, from counts by setting or height bin."""

    def recall(name: str, i: int) -> float | None:
        return true[name][i] / faces[name] if faces[name] else None

    return tuple(
        OperatingPoint(
            score=round(score, 1),
            precision=found / boxes if boxes else None,
            recall=recall("hard", i),
            false_boxes=(boxes - found) / max(images, 1),
            recall_by_height={name: recall(name, i) for name in HEIGHT_BINS_PX},
        )
        for i, (score, boxes, found) in enumerate(
            zip(OPERATING_SCORES.tolist(), kept["hard"], true["hard"], strict=True)
        )
    )


def _score_range(ranked: Iterable[Doubles]) -> tuple[float, float]:
    low, high = 1.0, 0.0
    for table in ranked:
        if len(table):
            low, high = min(low, float(table[-1, 4])), max(high, float(table[0, 4]))
    return low, high


def _counting_mask(indices: NDArray[Any], faces: int) -> NDArray[np.bool_]:
    """bool [faces] from an official list: 1-based indices of the faces that count."""
    index = np.asarray(indices).astype(np.int64).ravel() - 1
    if index.size and (index.min() < 0 or index.max() >= faces):
        raise ValueError(f"face {index.max() + 1} of {faces}")
    mask = np.zeros(faces, np.bool_)
    mask[index] = True
    return mask


def _refuse_unknown(keys: Iterable[str], ground_truth: GroundTruth) -> None:
    unknown = sorted(set(keys) - ground_truth.images.keys())
    if unknown:
        known = next(iter(ground_truth.images), "none")
        raise DataError(
            f"image {unknown[0]} ({len(unknown)} such) is not in the ground truth; accepted: like"
            f" {known}"
        )


def _load_mat(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError("scipy", "eval", "reading the WIDER FACE ground truth") from error
    if not path.is_file():
        raise DataError(
            f"no ground truth {path}; accepted: a WIDER FACE folder with the official"
            " eval_tools/ground_truth/*.mat, or photos of your own with --annotations FILE"
        )
    try:
        content: dict[str, Any] = loadmat(path, variable_names=names)
    except Exception as error:  # a damaged file fails in many ways inside SciPy
        raise DataError(
            f"cannot read {path}: it is not a MATLAB 5 file, or it is damaged"
        ) from error
    for name in names:
        if name not in content:
            raise DataError(
                f"{path} has no variable {name}; accepted: the official file of that name"
            )
    return content
