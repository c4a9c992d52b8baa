"""From head outputs to candidates: boxes, scores and landmarks, in px of the network input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeface.architecture.strides import LANDMARKS
from edgeface.decode.layout import HeadLayout
from edgeface.decode.suppression import by_score
from edgeface.errors import ModelError
from edgeface.types import Floats


class Decoded(NamedTuple):
    """Candidates of one image, in px of the network input, not clipped."""

    boxes: Floats
    """float32 [N, 4]: x1, y1, x2, y2"""
    scores: Floats
    """float32 [N]"""
    landmarks: Floats | None
    """float32 [N, 5, 2], or None for networks without landmarks"""


def decode(
    outputs: Mapping[str, Floats],
    layout: HeadLayout,
    score_threshold: float = 0.5,
    top_k: int | None = None,
) -> Decoded:
    """Boxes, scores and landmarks of the candidates.

    Keeps every anchor with score >= ``score_threshold``, or the ``top_k`` best of them. Order:
    score descending, ties by position (level, row, column, anchor), so equal outputs give equal
    lists. Candidates are picked by their logits before any box is computed.

    Raises ModelError if the outputs do not fit the layout, or if a logit or a candidate's box or
    landmarks are not finite. That means a damaged file or an overflow; without the error, faces
    would be lost silently.
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
        # take needs a tenth of the time of indexing
        boxes.append(_boxes(box.reshape(-1, 4).take(picked, axis=0), anchor, stride, layout))
        if layout.landmarks:
            points.append(_landmarks(outputs[f"kps_{stride}"], picked, anchor, stride, layout))
    if not boxes:
        return Decoded(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros((0, LANDMARKS, 2), np.float32) if layout.landmarks else None,
        )
    scores = _sigmoid(np.concatenate(logits))
    order = by_score(scores)[:top_k]
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
    """Like :func:`decode`, but for every anchor, finite or not, in order of position.

    Serves to compare two model files.
    """
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


def check_outputs(outputs: Mapping[str, Floats], layout: HeadLayout) -> None:
    """Raise ModelError unless ``outputs`` has all arrays of ``layout`` in matching sizes.

    Each is float32 [1, rows, columns, channels].
    """
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
    """Anchor points x, y [N, 2] in strides of the anchors with flat indices ``picked`` [N]."""
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
        with np.errstate(over="ignore"):  # decode() refuses an infinite side
            coded = np.tile(np.exp(coded[:, 2:]) * (prior / 2), 2)
    boxes = np.empty((len(points), 4), np.float32)
    np.subtract(points, coded[:, :2], out=boxes[:, :2])
    np.add(points, coded[:, 2:], out=boxes[:, 2:])
    boxes *= stride
    return boxes


def _landmarks(
    kps: Floats, picked: NDArray[np.intp], points: Floats, stride: int, layout: HeadLayout
) -> Floats:
    """Landmark output of a level and anchor points [N, 2] of ``picked`` -> [N, 5, 2] px."""
    offsets = (
        kps.reshape(-1, 2 * layout.landmarks).take(picked, axis=0).reshape(-1, layout.landmarks, 2)
    )
    return np.asarray((points[:, None] + offsets) * np.float32(stride), np.float32)


def _logit(score: float) -> float:
    if not 0 <= score <= 1:
        raise ModelError(f"score threshold {score} is not between 0 and 1")
    if score in (0, 1):
        return -math.inf if score == 0 else math.inf
    return math.log(score / (1 - score))


def _sigmoid(logits: Floats) -> Floats:
    # exp of a large positive number would overflow; exp(-|x|) never does.
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small), np.float32)
