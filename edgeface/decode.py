"""From head outputs to boxes: the one decoder and the one NMS of the project, in NumPy.

Runner outputs are float32 NHWC arrays: ``cls_s`` [1, H/s, W/s, A] logits and ``box_s`` [1, H/s,
W/s, 4A] distances left, top, right, bottom in strides. The native examples follow the same
HeadLayout, read from the manifest.

    anchor point of cell (row, col) at stride s:  ((col + offset) * s, (row + offset) * s) px

           col      col + 1
      row   +---------+            x1 = (col + offset - left)   * s
            |  top    |            y1 = (row + offset - top)    * s
            |   |     |            x2 = (col + offset + right)  * s
         left---*---right          y2 = (row + offset + bottom) * s
            |   |     |
            | bottom  |            * = anchor point, here with offset 0.5
    row + 1 +---------+

Networks of the S3FD family have a prior box around each anchor point instead, ``prior`` = (width,
height) in strides. ``box_s`` then holds x, y, w, h of the SSD coding (Liu et al., ECCV 2016,
section 2.2), in px at stride s:

    centre = anchor point + (x, y) * prior * s        size = prior * s * (exp(w), exp(h))

Networks with landmarks also have ``kps_s`` [1, H/s, W/s, 10A], x and y of five points from the
anchor point, in strides: the eye on the left of the image, the one on the right, the nose, the left
and the right corner of the mouth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.specs import S3FDHeadSpec
from edgeface.architecture.strides import LANDMARKS, S3FD_STRIDES, SIZE_MULTIPLE_PX, STRIDES
from edgeface.errors import ModelError
from edgeface.schema import from_fields
from edgeface.types import Doubles, Floats

DEFAULT_SCORE = 0.5
DEFAULT_IOU = 0.45
TOP_K = 5000
"""best candidates that enter NMS: far above any real scene, it bounds the time that noise can
cost"""
NMS_BLOCK = 64
"""boxes whose mutual overlaps are computed at once: large enough to amortise NumPy calls, small
enough for the cache"""


@dataclass(frozen=True)
class HeadLayout:
    """How a network's outputs are named and what they mean."""

    strides: tuple[int, ...] = STRIDES
    anchors: int = 1
    """boxes per cell"""
    offset: float = 0.5
    """anchor point inside a cell, in strides"""
    coding: str = "distance"
    """box coding: 'distance' = left, top, right, bottom from the anchor point, in strides; 'ssd' =
    shift of the centre in prior sizes, and logarithm of size over prior size"""
    activation: str = "sigmoid"
    """what turns a cls output into a score"""
    prior: tuple[float, ...] = ()
    """ssd: width and height of a prior box, in strides"""
    landmarks: int = 0
    """points of a face, in outputs of their own: 5, or 0 for none"""

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in zip(self.strides, self.strides[1:], strict=False))
        if not self.strides or not increasing or not all(0 < s <= 1024 for s in self.strides):
            raise ValueError("strides must be one or more increasing numbers of px up to 1024")
        if not 1 <= self.anchors <= 64:
            raise ValueError("anchors must be 1 to 64")
        if not 0 <= self.offset <= 1:
            raise ValueError("offset must be 0 to 1 strides")
        if self.coding not in ("distance", "ssd"):
            raise ValueError(f"unknown box coding {self.coding!r} (known: distance, ssd)")
        if len(self.prior) != (2 if self.coding == "ssd" else 0) or not all(
            0 < side <= 1024 for side in self.prior
        ):
            raise ValueError(
                "prior must be two positive numbers of strides with box coding ssd, none with"
                " distance"
            )
        if self.landmarks not in (0, LANDMARKS):
            raise ValueError(f"landmarks must be 0 or {LANDMARKS}")
        if self.activation != "sigmoid":
            raise ValueError(f"unknown activation {self.activation!r} (known: sigmoid)")

    @property
    def multiple_px(self) -> int:
        """Width and height of an input are multiples of this; what is coarser covers the rest with
        a cell more."""
        return min(self.strides[-1], SIZE_MULTIPLE_PX)

    @property
    def channels(self) -> dict[str, int]:
        """Kind of output -> its channels, in the order in which the networks return the outputs of
        a level."""
        kinds = {"cls": self.anchors, "box": 4 * self.anchors}
        return kinds | {"kps": 2 * self.landmarks * self.anchors} if self.landmarks else kinds

    @property
    def output_names(self) -> tuple[str, ...]:
        """cls_8, box_8, (kps_8,) cls_16, box_16, ... in the order the networks return them."""
        return tuple(f"{kind}_{s}" for s in self.strides for kind in self.channels)

    def to_fields(self) -> dict[str, Any]:
        """As manifests hold it."""
        return self.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict; :meth:`from_json` gives back an equal HeadLayout.

        Without landmarks it does not speak of them: the text is what it was before there were any.
        """
        return {key: value for key, value in asdict(self).items() if key != "landmarks" or value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HeadLayout:
        """Read :meth:`to_json` output. Raises ModelError on a missing, unknown or malformed
        field."""
        return from_fields(cls, data, "head_layout")


def head_layout(architecture: Architecture) -> HeadLayout:
    """Layout of the outputs of a network built from ``architecture``."""
    head = architecture.head
    if isinstance(head, S3FDHeadSpec):
        return HeadLayout(S3FD_STRIDES, coding="ssd", prior=head.prior)
    return HeadLayout(anchors=head.anchors, offset=head.offset, landmarks=head.landmarks)


class Decoded(NamedTuple):
    """Candidates of one image, in px of the network input, not clipped."""

    boxes: Floats
    """float32 [N, 4]: x1, y1, x2, y2"""
    scores: Floats
    """float32 [N]"""
    landmarks: Floats | None
    """float32 [N, 5, 2], or None for networks without"""


def decode(
    outputs: Mapping[str, Floats],
    layout: HeadLayout,
    score_threshold: float = 0.5,
    top_k: int | None = None,
) -> Decoded:
    """Boxes, scores and landmarks of the candidates.

    Keeps every anchor with score >= ``score_threshold``, or the ``top_k`` best of them. Order:
    score descending, ties by position (level, row, column, anchor), so equal outputs give equal
    lists. Candidates are picked on the logits before any box is computed. Raises ModelError when
    the outputs do not fit the layout, and when a logit or a candidate's box is not finite: that
    means a damaged file or an overflow, which silently lost faces would hide.
    """
    check_outputs(outputs, layout)
    lowest = _logit(score_threshold)
    boxes, logits, points = [], [], []
    for stride in layout.strides:
        cls, box = outputs[f"cls_{stride}"], outputs[f"box_{stride}"]
        flat = cls.reshape(-1)
        _check_finite(f"output cls_{stride}", flat)
        picked = np.flatnonzero(flat >= lowest)
        if picked.size == 0:
            continue
        logits.append(flat.take(picked))
        anchor = _anchor_points(picked, cls.shape[2], layout)
        boxes.append(
            _boxes(box.reshape(-1, 4).take(picked, axis=0), anchor, stride, layout)
        )  # a tenth of indexing
        if layout.landmarks:
            points.append(_landmarks(outputs[f"kps_{stride}"], picked, anchor, stride, layout))
    if not boxes:
        return Decoded(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros((0, LANDMARKS, 2), np.float32) if layout.landmarks else None,
        )
    scores = _sigmoid(np.concatenate(logits))
    order = _by_score(scores)[:top_k]
    found = Decoded(
        np.concatenate(boxes).take(order, axis=0),
        scores.take(order),
        np.concatenate(points).take(order, axis=0) if points else None,
    )
    for kind, values in (("box", found.boxes), ("kps", found.landmarks)):
        if values is not None:
            _check_finite(f"a {kind} output", values)
    return found


def _check_finite(what: str, values: Floats) -> None:
    if not np.isfinite(values).all():
        raise ModelError(
            f"{what} holds values that are not finite: the model file is damaged or its arithmetic"
            " overflowed"
        )


def decode_all(outputs: Mapping[str, Floats], layout: HeadLayout) -> Decoded:
    """Like :func:`decode` for every anchor, in the order of their positions, finite or not: to
    compare two files."""
    check_outputs(outputs, layout)
    boxes, logits, points = [], [], []
    for stride in layout.strides:
        cls, box = outputs[f"cls_{stride}"], outputs[f"box_{stride}"]
        every = np.arange(cls.size)
        anchor = _anchor_points(every, cls.shape[2], layout)
        logits.append(cls.reshape(-1))
        boxes.append(_boxes(box.reshape(-1, 4), anchor, stride, layout))
        if layout.landmarks:
            points.append(_landmarks(outputs[f"kps_{stride}"], every, anchor, stride, layout))
    return Decoded(
        np.concatenate(boxes),
        _sigmoid(np.concatenate(logits)),
        np.concatenate(points) if points else None,
    )


def nms(boxes: Floats, scores: Floats, iou: float = 0.45) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the kept boxes, score descending, ties by index.

    A box is dropped when its intersection over union with a better kept one exceeds ``iou``. Boxes
    are continuous coordinates x1, y1, x2, y2 (no + 1); an inverted or empty box has area 0 and
    touches nothing. Blocks of candidates are resolved among themselves, then one matrix of
    kept-against-rest drops the rest, so the cost in NumPy calls grows with N / NMS_BLOCK instead of
    with the number of faces.
    """
    order = _by_score(np.asarray(scores, np.float32))
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[order].T, np.float32)
    # IoU > t  <=>  intersection > t / (1 + t) * (area_a + area_b): no division per pair.
    share = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0) * np.float32(iou / (1 + iou))
    rows = np.stack((x1, y1, x2, y2, share))
    kept: list[NDArray[np.intp]] = []
    while order.size:
        block = rows[:, :NMS_BLOCK]
        survivors = _greedy(_overlaps(block, block))
        kept.append(order[survivors])
        rest, order = rows[:, NMS_BLOCK:], order[NMS_BLOCK:]
        if order.size == 0:
            break
        free = ~_overlaps(block[:, survivors], rest).any(axis=0)
        rows, order = rest[:, free], order[free]
    return np.concatenate(kept) if kept else np.zeros(0, np.intp)


def box_iou(a: Floats | Doubles, b: Floats | Doubles) -> Doubles:
    """IoU [N, M] of boxes x1, y1, x2, y2 with continuous edges; an empty box has none."""
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(axis=2)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=2) for box in (a, b)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0))


def check_outputs(outputs: Mapping[str, Floats], layout: HeadLayout) -> None:
    """Raise ModelError unless ``outputs`` has each array of ``layout`` as float32 [1, rows, cols,
    channels]."""
    area = None
    for stride in layout.strides:
        cells = None
        for kind, channels in layout.channels.items():
            name = f"{kind}_{stride}"
            if name not in outputs:
                raise ModelError(
                    f"the model has no output {name!r} (it has:"
                    f" {', '.join(sorted(outputs)) or 'none'})"
                )
            array = outputs[name]
            if (
                array.dtype != np.float32
                or array.ndim != 4
                or array.shape[0] != 1
                or array.shape[3] != channels
            ):
                raise ModelError(
                    f"output {name}: expected float32 [1, rows, columns, {channels}], got "
                    f"{array.dtype} {list(array.shape)}"
                )
            if cells is not None and array.shape[1:3] != cells:
                raise ModelError(f"outputs cls_{stride} and {name} differ in rows and columns")
            cells = array.shape[1:3]
        assert cells is not None
        if area is None:
            area = (cells[0] * stride, cells[1] * stride)
        if cells != tuple(-(-side // stride) for side in area):
            raise ModelError(
                f"outputs at stride {stride} cover {cells[1] * stride}x{cells[0] * stride} px,"
                f" others {area[1]}x{area[0]}: width and height must be multiples of"
                f" {layout.multiple_px}"
            )


def _anchor_points(picked: NDArray[np.intp], columns: int, layout: HeadLayout) -> Floats:
    """x, y [N, 2] of the anchor points of these anchors of a level, in strides."""
    cell = picked // layout.anchors if layout.anchors > 1 else picked
    row = cell // columns
    points = np.empty((len(picked), 2), np.float32)
    points[:, 0] = cell - row * columns
    points[:, 1] = row
    points += np.float32(layout.offset)
    return points


def _boxes(coded: Floats, points: Floats, stride: int, layout: HeadLayout) -> Floats:
    """Box outputs [N, 4] around anchor points [N, 2] -> boxes [N, 4] px."""
    if layout.coding == "ssd":
        prior = np.array(layout.prior, np.float32)
        points = points + coded[:, :2] * prior
        with np.errstate(over="ignore"):  # an infinite side is refused by the caller
            coded = np.tile(np.exp(coded[:, 2:]) * (prior / 2), 2)
    boxes = np.empty((len(points), 4), np.float32)
    np.subtract(points, coded[:, :2], out=boxes[:, :2])
    np.add(points, coded[:, 2:], out=boxes[:, 2:])
    boxes *= stride
    return boxes


def _landmarks(
    kps: Floats, picked: NDArray[np.intp], points: Floats, stride: int, layout: HeadLayout
) -> Floats:
    """Landmark output of a level around anchor points [N, 2] -> [N, 5, 2] px."""
    offsets = (
        kps.reshape(-1, 2 * layout.landmarks).take(picked, axis=0).reshape(-1, layout.landmarks, 2)
    )
    return np.asarray((points[:, None] + offsets) * np.float32(stride), np.float32)


def _by_score(scores: Floats) -> NDArray[np.intp]:
    """Indices by score descending, ties by index: a stable argsort of float32, five times faster.

    Bits of a float, as an integer, sort like the float once those of negative floats are turned
    round. Inverted bits (to descend) and index make one integer each: integers sort with vector
    instructions, and no two are equal.
    """
    bits = np.ascontiguousarray(scores + np.float32(0)).view(
        np.int32
    )  # + 0 makes a negative zero equal to zero
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    keys = ~bits.astype(np.int64) << 32 | np.arange(len(bits), dtype=np.int64)
    keys.sort()
    return (keys & 0xFFFFFFFF).astype(np.intp)


def _logit(score: float) -> float:
    if not 0 <= score <= 1:
        raise ModelError(f"score threshold {score} is not between 0 and 1")
    if score in (0, 1):
        return -math.inf if score == 0 else math.inf
    return math.log(score / (1 - score))


def _sigmoid(logits: Floats) -> Floats:
    # exp of a large positive number would overflow: exp(-|x|) never does.
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small), np.float32)


def _overlaps(kept: Floats, others: Floats) -> NDArray[np.bool_]:
    """[5, K] and [5, M] rows of x1, y1, x2, y2, share -> bool [K, M], True where IoU exceeds the
    threshold."""
    width = np.minimum(kept[2, :, None], others[2])
    width -= np.maximum(kept[0, :, None], others[0])
    np.maximum(
        width, 0, out=width
    )  # one clipped factor is enough: a negative height gives a product <= 0
    height = np.minimum(kept[3, :, None], others[3])
    height -= np.maximum(kept[1, :, None], others[1])
    width *= height
    return np.asarray(width > kept[4, :, None] + others[4])


def _greedy(overlaps: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices that greedy suppression keeps, from a square bool matrix in score order."""
    free = np.ones(len(overlaps), np.bool_)
    survivors = []
    for index in range(len(overlaps)):
        if free[index]:
            survivors.append(index)
            free[index + 1 :] &= ~overlaps[index, index + 1 :]
    return np.array(survivors, np.intp)
