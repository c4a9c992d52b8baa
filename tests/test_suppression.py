"""NMS compared with the textbook version, and mean landmarks with a loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeface.decode import mean_landmarks, nms

# Small whole numbers: the exact overlap is a ratio of integers, so NMS and the textbook version
# decide a tie with the threshold alike.
CORNERS = st.integers(0, 12)
BOX = st.tuples(CORNERS, CORNERS, CORNERS, CORNERS)


def textbook_nms(
    boxes: list[tuple[int, ...]], scores: list[float], numerator: int, denominator: int
) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(not _exceeds(boxes[i], boxes[j], numerator, denominator) for j in kept):
            kept.append(i)
    return kept


def _exceeds(a: tuple[int, ...], b: tuple[int, ...], numerator: int, denominator: int) -> bool:
    def area(x1: int, y1: int, x2: int, y2: int) -> int:
        return max(0, x2 - x1) * max(0, y2 - y1)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return shared * denominator > numerator * (area(*a) + area(*b) - shared)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(BOX, st.integers(-3, 3)), max_size=150),
    st.sampled_from([(1, 3), (1, 7), (3, 5)]),
)
def test_nms_equals_the_textbook(
    items: list[tuple[tuple[int, ...], int]], threshold: tuple[int, int]
) -> None:
    boxes, scores = [box for box, _ in items], [float(score) for _, score in items]
    # Rounding may put the threshold below an overlap equal to it: raise it a little, so that such
    # an overlap does not exceed it.
    iou = threshold[0] / threshold[1] + 1e-5
    found = nms(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), iou)
    assert found.tolist() == textbook_nms(boxes, scores, *threshold)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 1000, 3000])
def test_nms_across_blocks(count: int) -> None:
    random = np.random.default_rng(count)
    corner = random.uniform(0, 300, (count, 2))
    boxes = np.concatenate((corner, corner + random.uniform(5, 60, (count, 2))), 1).astype(
        np.float32
    )
    scores = random.uniform(0, 1, count).astype(np.float32)
    kept = nms(boxes, scores, 0.45)
    assert kept.tolist() == _quick_textbook(boxes, scores, 0.45)


def _quick_textbook(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float
) -> list[int]:
    x1, y1, x2, y2 = boxes.astype(float).T
    area = (x2 - x1) * (y2 - y1)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        i, rest = order[0], order[1:]
        kept.append(int(i))
        width = np.maximum(0, np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest]))
        height = np.maximum(0, np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest]))
        shared = width * height
        order = rest[shared / (area[i] + area[rest] - shared) <= iou]
    return kept


def test_nms_at_the_ends() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [9, 9, 12, 12], [20, 20, 30, 30]], np.float32)
    scores = np.array([0.5, 0.9, 0.8, 0.1], np.float32)
    assert nms(boxes, scores, 0).tolist() == [1, 3]
    assert nms(boxes, scores, 1).tolist() == [1, 2, 0, 3]
    assert nms(boxes[:0], scores[:0]).tolist() == []


def test_nms_ignores_boxes_without_area() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 5, 5, 5], [10, 10, 0, 0], [8, 2, 2, 8]], np.float32)
    assert nms(boxes, np.array([4, 3, 2, 1], np.float32)).tolist() == [0, 1, 2, 3]


def test_negative_zero_ties_with_zero() -> None:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert nms(boxes, np.array([0.0, -0.0, 0.0], np.float32), 1).tolist() == [0, 1, 2]


Array = NDArray[np.float32]


def scene(count: int, seed: int) -> tuple[Array, Array, Array]:
    """Boxes, scores and landmarks: dozens of boxes around each of a few faces."""
    random = np.random.default_rng(seed)
    face = random.integers(0, max(count // 20, 1), count)
    corner = np.stack((face % 7, face // 7), 1) * 60 + random.normal(0, 4, (count, 2))
    boxes = np.concatenate((corner, corner + random.uniform(30, 50, (count, 2))), 1)
    points = corner[:, None] + random.uniform(0, 40, (count, 5, 2))
    scores = random.uniform(0.02, 1, count)
    return (
        boxes.astype(np.float32), scores.astype(np.float32), points.astype(np.float32),
    )  # fmt: skip


def pairwise(
    boxes: Array, scores: Array, points: Array, face: int, iou: float
) -> list[list[float]]:
    """Mean landmarks of one face, summed candidate by candidate."""
    total, sums = 0.0, [[0.0, 0.0] for _ in range(5)]
    for other in range(len(boxes)):
        a, b = boxes[face].tolist(), boxes[other].tolist()
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(w, 0) * max(h, 0)
        union = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared
        weight = max(shared / union - iou, 0) * float(scores[other])
        total += weight
        for i in range(5):
            for axis in (0, 1):
                sums[i][axis] += weight * float(points[other, i, axis])
    return [[value / total for value in point] for point in sums]


@pytest.mark.parametrize(("count", "iou"), [(1, 0.45), (40, 0.45), (200, 0.3), (2500, 0.45)])
def test_mean_landmarks_equal_a_loop_over_pairs(count: int, iou: float) -> None:
    """The tolerance covers the rounding of float32 at positions of up to a thousand px."""
    boxes, scores, points = scene(count, count)
    kept = nms(boxes, scores, iou)
    found = mean_landmarks(boxes, scores, points, kept, iou)
    assert found.dtype == np.float32 and found.shape == (len(kept), 5, 2)
    for place in range(0, len(kept), max(len(kept) // 20, 1)):
        expected = pairwise(boxes, scores, points, int(kept[place]), iou)
        np.testing.assert_allclose(found[place], expected, atol=1e-3)
    if count > 1:
        assert np.abs(found - points[kept]).max() > 1


def test_landmarks_of_a_face_that_no_other_sees_are_its_own() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [5, 5, 5, 5]], np.float32)
    points = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    kept = np.arange(3)
    np.testing.assert_allclose(mean_landmarks(boxes, scores, points, kept), points, rtol=1e-6)
    assert (mean_landmarks(boxes, scores, points, kept, 1.0) == points).all()
    assert mean_landmarks(boxes, scores, points, kept[:0]).shape == (0, 5, 2)
    assert mean_landmarks(boxes[:0], scores[:0], points[:0], kept[:0]).shape == (0, 5, 2)


def test_mean_landmarks_do_not_jump_where_a_candidate_begins_to_count() -> None:
    """Two boxes slide apart in steps of a tenth px: no step moves the mean by more than the
    distance between the boxes' points times the change of the weight in that step."""
    points = np.zeros((2, 5, 2), np.float32)
    points[1] = 10
    seen = []
    for shift in np.arange(0, 80, 0.1):
        boxes = np.array([[0, 0, 100, 100], [shift, 0, 100 + shift, 100]], np.float32)
        mean = mean_landmarks(boxes, np.array([0.9, 0.9], np.float32), points, np.array([0]))
        seen.append(float(mean[0, 0, 0]))
    assert seen[0] == pytest.approx(5) and seen[-1] == 0
    assert np.abs(np.diff(seen)).max() < 0.03
