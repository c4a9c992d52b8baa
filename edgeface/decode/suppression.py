"""From candidates to faces: the project's only non-maximum suppression (NMS), in NumPy.

Also averages the landmarks of each kept candidate over all candidates that overlap it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgeface.types import Doubles, Floats

DEFAULT_IOU = 0.45
NMS_BLOCK = 64
"""boxes whose mutual overlaps are computed at once: large enough to amortise NumPy calls, small
enough for the cache"""
MEAN_BLOCK = 16
"""faces whose overlaps with all candidates are computed at once: few enough that the arrays stay in
the cache"""


def nms(boxes: Floats, scores: Floats, iou: float = DEFAULT_IOU) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the kept boxes, score descending, ties by index.

    A box is dropped when its intersection over union with a better kept one exceeds ``iou``. Boxes
    are continuous coordinates x1, y1, x2, y2 (no + 1); an inverted or empty box has area 0 and
    overlaps nothing. Candidates are processed in blocks: each block is resolved within itself, then
    one matrix of its kept boxes against all later boxes drops those that overlap. So the number of
    NumPy calls grows with N / NMS_BLOCK instead of with the number of faces.
    """
    order = by_score(np.asarray(scores, np.float32))
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


def mean_landmarks(
    boxes: Floats,
    scores: Floats,
    landmarks: Floats,
    kept: NDArray[np.intp],
    iou: float = DEFAULT_IOU,
) -> Floats:
    """Averaged landmarks float32 [K, 5, 2] of the ``kept`` candidates.

    Each is the mean over all candidates, including itself, whose IoU with the kept box exceeds
    ``iou``. The weights are score x (IoU - iou). A box without area keeps its own landmarks.

    Several cells of a network see one face, each with its own error; the mean has a smaller error.
    Weights fall to 0 at the limit ``iou``, so that model files of one network that differ by
    rounding give points that differ as little.
    """
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T, np.float32)
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    points = landmarks.reshape(len(landmarks), math.prod(landmarks.shape[1:]))
    found = points[kept]
    for start in range(0, len(kept), MEAN_BLOCK):
        block = kept[start : start + MEAN_BLOCK]
        weight = np.minimum(x2[block, None], x2)
        weight -= np.maximum(x1[block, None], x1)
        np.maximum(weight, 0, out=weight)  # a negative height gives a product <= 0, which weighs 0
        height = np.minimum(y2[block, None], y2)
        height -= np.maximum(y1[block, None], y1)
        weight *= height
        union = np.subtract(area[block, None] + area, weight, out=height)
        weight /= np.maximum(union, np.finfo(np.float32).tiny, out=union)
        weight -= np.float32(iou)
        np.maximum(weight, 0, out=weight)
        weight *= scores
        total = weight.sum(axis=1)
        counts = np.flatnonzero(total > 0)  # excludes areas that overflow (damaged file)
        found[start + counts] = weight[counts] @ points / total[counts, None]
    return found.reshape(-1, *landmarks.shape[1:])


def box_iou(a: Floats | Doubles, b: Floats | Doubles) -> Doubles:
    """IoU [N, M] of boxes x1, y1, x2, y2 with continuous edges; 0 for an empty box."""
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(axis=2)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=2) for box in (a, b)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0))


def by_score(scores: Floats) -> NDArray[np.intp]:
    """Indices by score descending, ties by index: a stable argsort of float32, five times faster.

    The bits of a float, read as an integer, sort like the float once the bits of negative floats,
    except the sign, are inverted. These integers, inverted for descending order, and the indices
    are packed into 64-bit integers, which sort with vector instructions and are all different.
    """
    bits = np.ascontiguousarray(scores + np.float32(0)).view(
        np.int32
    )  # + 0 makes a negative zero equal to zero
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    keys = ~bits.astype(np.int64) << 32 | np.arange(len(bits), dtype=np.int64)
    keys.sort()
    return (keys & 0xFFFFFFFF).astype(np.intp)


def _overlaps(kept: Floats, others: Floats) -> NDArray[np.bool_]:
    """Bool [K, M]: True where IoU exceeds the threshold.

    ``kept`` [5, K] and ``others`` [5, M] have the rows x1, y1, x2, y2, share (see :func:`nms`).
    """
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
