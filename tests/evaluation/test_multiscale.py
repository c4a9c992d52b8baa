"""Multi-scale detection: views, size filters and box voting, and what is refused.

The reference is a slow, literal version of the papers' protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.decode import HeadLayout
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import OptionError
from edgeface.evaluation.multiscale import (
    MultiScaleDetector,
    ScaledView,
    box_vote,
    detect_views,
    views,
)
from edgeface.images import Image
from edgeface.runners import Heads, Runner

Row = list[float]
"""x1, y1, x2, y2, score"""


def bright(image: Image) -> Detections:
    """A detector without a network: finds bright blobs, which score by their size in the view."""
    _, _, blobs, _ = cv2.connectedComponentsWithStats((image[:, :, 0] > 127).astype(np.uint8))
    x, y, w, h, _ = blobs[1:].T.astype(np.float32)
    scores = (1 - 1 / (1 + w / 50)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return Detections(np.stack([x, y, x + w, y + h], 1)[order], scores[order])


def scene(width: int, height: int, *squares: tuple[int, int, int]) -> Image:
    """A black image with white squares (x, y, side)."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = 255
    return image


# The protocol of the papers' programs, step by step; shares nothing with the code under test.


def literal_vote(rows: list[Row], agreed_only: bool) -> list[Row]:
    rows = sorted(rows, key=lambda row: -row[4])
    merged = []
    while rows:
        best = rows[0]
        group: list[Row] = []
        rest: list[Row] = []
        for row in rows:
            w = max(0.0, min(best[2], row[2]) - max(best[0], row[0]) + 1)
            h = max(0.0, min(best[3], row[3]) - max(best[1], row[1]) + 1)
            areas = [(r[2] - r[0] + 1) * (r[3] - r[1] + 1) for r in (best, row)]
            (group if w * h / (sum(areas) - w * h) >= 0.3 else rest).append(row)
        if len(group) > 1 or not agreed_only:
            total = sum(row[4] for row in group)
            merged.append(
                [*(sum(row[i] * row[4] for row in group) / total for i in range(4)), best[4]]
            )
        rows = rest
    return merged


def literal_rows(image: Image, scale: float) -> list[Row]:
    if scale != 1:
        scaled: Any = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        image = scaled
    found = bright(image)
    return [
        [*(box / scale).tolist(), score]
        for box, score in zip(found.boxes, found.scores.tolist(), strict=True)
    ]


def literal_test(image: Image, agreed_only: bool) -> list[Row]:
    height, width = image.shape[:2]
    s = (1700 * 1200 / (height * width)) ** 0.5
    plain = literal_rows(image, min(1, s))
    flipped = [
        [width - r[2], r[1], width - r[0], r[3], r[4]]
        for r in literal_rows(image[:, ::-1].copy(), min(1, s))
    ]
    st = 0.5 if s >= 0.75 else 0.5 * s
    small = [r for r in literal_rows(image, st) if max(r[2] - r[0], r[3] - r[1]) + 1 > 30]
    bt = min(2, s) if s > 1 else (st + s) / 2
    large = literal_rows(image, bt)
    if s > 2:
        bt = 4
        while bt < s:
            large += literal_rows(image, bt)
            bt *= 2
        large += literal_rows(image, s)
    if bt > 1:
        large = [r for r in large if min(r[2] - r[0], r[3] - r[1]) + 1 < 100]
    else:
        large = [r for r in large if max(r[2] - r[0], r[3] - r[1]) + 1 > 30]
    return literal_vote(plain + flipped + small + large, agreed_only)


def random_boxes(
    seed: int, count: int, faces: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes around a few faces, each off by some px, and their scores, some of them equal."""
    random = np.random.default_rng(seed)
    centres, sides = random.uniform(0, 300, (faces, 2)), random.uniform(4, 80, (faces, 2))
    which = random.integers(0, faces, count)
    middle = centres[which] + random.normal(0, 6, (count, 2))
    half = sides[which] * random.uniform(0.7, 1.4, (count, 2)) / 2
    return np.concatenate([middle - half, middle + half], 1), random.integers(1, 60, count) / 60


@pytest.mark.parametrize("agreed_only", [False, True])
@pytest.mark.parametrize(
    ("seed", "count", "faces"),
    [(0, 0, 1), (1, 1, 1), (2, 40, 3), (3, 200, 12), (4, 300, 80), (5, 100, 100)],
)
def test_vote_is_that_of_the_papers(seed: int, count: int, faces: int, agreed_only: bool) -> None:
    boxes, scores = random_boxes(seed, count, faces)
    found, best = box_vote(boxes, scores, agreed_only)
    expected = np.array(
        literal_vote(np.column_stack([boxes, scores]).tolist(), agreed_only)
    ).reshape(-1, 5)
    assert found.shape == (len(expected), 4) and best.shape == (len(expected),)
    np.testing.assert_allclose(np.column_stack([found, best]), expected, rtol=1e-9, atol=1e-9)
    assert np.all(np.diff(best) <= 0)


def test_vote_by_hand() -> None:
    """Two overlapping boxes are averaged 3 : 1 and get the better score.

    A box alone is kept, or dropped with ``agreed_only``."""
    boxes = np.array([[10.0, 10, 30, 30], [200, 200, 230, 240], [14, 10, 34, 30]])
    scores = np.array([0.25, 0.5, 0.75])
    found, best = box_vote(boxes, scores)
    assert found.tolist() == [[13, 10, 33, 30], [200, 200, 230, 240]] and best.tolist() == [
        0.75,
        0.5,
    ]
    found, best = box_vote(boxes, scores, agreed_only=True)
    assert found.tolist() == [[13, 10, 33, 30]] and best.tolist() == [0.75]
    found, best = box_vote(boxes[:0], scores[:0])
    assert found.shape == (0, 4) and best.shape == (0,)
    assert np.isfinite(box_vote(boxes, np.zeros(3))[0]).all(), "scores of 0"
    for right, width, count in ((9, 7, 1), (11, 8, 2)):  # with 6 px: 3 of 10 px in common, 2 of 12
        pair = np.array([[0.0, 0, 5, 9], [right - width + 1, 0, right, 9]])
        assert len(box_vote(pair, scores[:2])[0]) == count


SQUARES = (
    (20, 30, 12),
    (60, 35, 20),
    (100, 20, 50),
    (170, 30, 90),
    (20, 130, 8),
    (80, 130, 130),
    (300, 100, 64),
)
SIZES = [(400, 300), (700, 500), (850, 600), (1024, 683), (1700, 1200), (2000, 1500), (3000, 1900)]
"""width and height of photos with three enlarged views; two; one by just 2; one by less; none;
shrunk a little; shrunk a lot"""


@pytest.mark.parametrize("agreed_only", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_all_views_together_are_the_papers_test(size: tuple[int, int], agreed_only: bool) -> None:
    image = scene(*size, *SQUARES)
    found = detect_views(image, bright, agreed_only)
    expected = np.array(literal_test(image, agreed_only))
    assert len(found) == len(expected) >= 5
    # The papers' programs scale by the exact factor, not by the ratio of two rounded sizes, with
    # which a square can appear a pixel wider.
    order, theirs = np.lexsort(found.boxes[:, :2].T.round()), np.lexsort(expected[:, :2].T.round())
    np.testing.assert_allclose(found.boxes[order], expected[theirs, :4], atol=0.75)
    np.testing.assert_allclose(found.scores[order], expected[theirs, 4], atol=0.01)


@pytest.mark.parametrize(
    ("size", "scales"),
    [
        ((400, 300), [1, 1, 0.5, 2, 4, 4.1231]),
        ((1024, 683), [1, 1, 0.5, 1.7079]),
        ((850, 600), [1, 1, 0.5, 2.0]),
        ((1700, 1200), [1, 1, 0.5, 0.75]),
        ((3400, 2400), [0.5, 0.5, 0.25, 0.375]),
        ((2000, 1600), [0.7984, 0.7984, 0.5, 0.6492]),
        ((100, 100), [1, 1, 1.28, 2, 4, 8, 14.2829]),
        ((1600, 100), [1, 1, 1.28, 2, 3.5707]),
    ],
)
def test_scales(size: tuple[int, int], scales: list[float]) -> None:
    found = list(views(*size))
    assert [view.scale for view in found] == pytest.approx(scales, abs=1e-4)
    assert [view.mirrored for view in found] == [False, True] + [False] * (len(found) - 2)
    enlarged = size[0] * size[1] < 1700 * 1200
    assert [view.counts for view in found] == ["all", "all", "large"] + [
        "small" if enlarged else "large"
    ] * (len(found) - 3)


@pytest.mark.parametrize(
    ("size", "looks"),
    [
        ((50000, 100), []),
        ((20000, 20), [(2.2583, "all")]),
        (
            (60, 60),
            [(2.1333, "all"), (4, "small"), (8, "small"), (16, "small"), (23.8048, "small")],
        ),
        (
            (24, 24),
            [(5.3333, "all"), (8, "small"), (16, "small"), (32, "small"), (59.5119, "small")],
        ),
        ((128, 300), [(2, "small"), (4, "small"), (7.2887, "small")]),
    ],
)
def test_views_that_the_least_size_makes_equal_are_one(
    size: tuple[int, int], looks: list[tuple[float, str]]
) -> None:
    plain, mirrored, *others = views(*size)
    assert (plain.scale, plain.counts, mirrored.mirrored) == (1, "all", True)
    assert [view.counts for view in others] == [counts for _, counts in looks]
    assert [view.scale for view in others] == pytest.approx([scale for scale, _ in looks], abs=1e-4)


@pytest.mark.parametrize("side", [16, 31, 60])
def test_one_look_does_not_agree_with_itself(side: int) -> None:
    """The detector finds a face in the first enlarged view of a small photo and in no other.

    With ``agreed_only``, that single view is no agreement."""
    found = 0

    def once(image: Image) -> Detections:
        nonlocal found
        if image.shape[0] != 128:
            return Detections.empty()
        found += 1
        return Detections(np.array([[20, 20, 100, 100]], np.float32), np.ones(1, np.float32))

    assert len(detect_views(scene(side, side), once, agreed_only=True)) == 0 and found == 1
    assert len(detect_views(scene(side, side), once)) == 1


@pytest.mark.parametrize("size", [(1600, 100), (100, 1600), (1999, 77), (333, 777), (2531, 1999)])
def test_every_view_puts_the_square_where_it_is(size: tuple[int, int]) -> None:
    """Also in views that are enlarged to 128 px, where the boxes of the authors' code are wrong."""
    x, y, side = size[0] * 3 // 8, size[1] // 8, 48
    image = scene(*size, (x, y, side))
    for view in views(*size):
        found = view.detect(image, bright)
        assert len(found) == 1, view
        coarser_px = max(1.0, 1 / view.scale)
        np.testing.assert_allclose(found.boxes[0], [x, y, x + side, y + side], atol=coarser_px)


def test_a_mirrored_box_lies_as_far_from_the_other_edge() -> None:
    boxes = np.array([[10, 20, 40, 60]], np.float32)
    found = ScaledView(2.0, mirrored=True).detect(
        np.zeros((80, 100, 3), np.uint8), lambda _: Detections(2 * boxes, np.ones(1, np.float32))
    )
    assert found.boxes.tolist() == [[60, 20, 90, 60]]


def test_views_are_scaled_bilinearly() -> None:
    """Of two columns at twice the size, the inner two are mixed 3 : 1."""
    seen: list[Image] = []

    def look(view: Image) -> Detections:
        seen.append(view)
        return Detections.empty()

    image = np.tile(np.array([[[0] * 3, [100] * 3]], np.uint8), (2, 1, 1))
    for mirrored in (False, True):
        ScaledView(2.0, mirrored).detect(image, look)
    assert seen[0][:, :, 0].tolist() == [[0, 25, 75, 100]] * 4
    assert seen[1][:, :, 0].tolist() == [[100, 75, 25, 0]] * 4


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.37, 1.7])
@pytest.mark.parametrize(
    ("side", "counts", "kept"),
    [
        ((29, 29), "large", 0),
        ((30, 12), "large", 1),
        ((12, 30), "large", 1),
        ((98, 150), "small", 1),
        ((150, 98), "small", 1),
        ((99, 150), "small", 0),
        ((10, 10), "all", 1),
        ((150, 150), "all", 1),
    ],
)
def test_views_are_trusted_with_sizes(
    side: tuple[int, int], counts: str, kept: int, scale: float
) -> None:
    """Filters use sides in the photo, plus one; boxes are exact for any rounded view size."""
    corners = np.array([50, 40, 50 + side[0], 40 + side[1]], np.float32)

    def exact(view: Image) -> Detections:
        factors = np.array([view.shape[1] / 403, view.shape[0] / 301] * 2, np.float32)
        return Detections((corners * factors)[None], np.ones(1, np.float32))

    found = ScaledView(scale, counts=counts).detect(scene(403, 301), exact)
    assert len(found) == kept
    if kept:
        np.testing.assert_allclose(found.boxes[0], corners, rtol=1e-6)


def test_at_most_750_boxes() -> None:
    many = scene(1200, 800, *((x, y, 6) for x in range(0, 1200, 24) for y in range(0, 800, 24)))
    assert len(bright(many)) == 50 * 34
    assert len(detect_views(many, bright)) == 750
    assert len(ScaledView(1.0).detect(many, bright)) == 750


class BlobRunner(Runner):
    """A runner that fires in one cell for each bright blob, with the blob's distances from it."""

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        super().__init__("blobs", HeadLayout(), size, "fake 1.0", 1)
        self.seen: list[tuple[int, int]] = []

    def _run_one(self, batch: Any) -> Heads:
        height, width = batch.shape[1:3]
        self.seen.append((width, height))
        outputs = {}
        for s in self.layout.strides:
            outputs[f"cls_{s}"] = np.full((1, height // s, width // s, 1), -9, np.float32)
            outputs[f"box_{s}"] = np.ones((1, height // s, width // s, 4), np.float32)
        found = bright(batch[0])
        for box in found.boxes / 8:
            column, row = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
            point = np.array([column, row, column, row]) + 0.5
            outputs["cls_8"][0, row, column] = 2
            outputs["box_8"][0, row, column] = (box - point) * [-1, -1, 1, 1]
        return outputs

    def _close(self) -> None:
        pass


def test_detector_in_several_sizes() -> None:
    image = scene(400, 300, (50, 40, 20), (200, 100, 60))
    with Detector(BlobRunner(), 0.05, 0.3) as detector:
        found = MultiScaleDetector(detector).detect(image)
        runner = detector.runner
        assert isinstance(runner, BlobRunner)
        assert runner.seen == [
            (416, 320),
            (416, 320),
            (224, 160),
            (800, 608),
            (1600, 1216),
            (1664, 1248),
        ]
        again = MultiScaleDetector(detector, agreed_only=True).detect(image)
    np.testing.assert_allclose(
        sorted(found.boxes.tolist()), [[50, 40, 70, 60], [200, 100, 260, 160]], atol=1
    )
    assert again == found, "more than one view sees each"


@pytest.mark.parametrize("shape", [(1, 1), (20, 20000), (3, 500), (2000, 3000)])
def test_extreme_images_are_looked_at(shape: tuple[int, int]) -> None:
    with Detector(BlobRunner(), 0.05, 0.3) as detector:
        assert len(MultiScaleDetector(detector).detect(np.zeros(shape, np.uint8))) == 0


def test_fixed_size_is_refused() -> None:
    with Detector(BlobRunner((640, 480))) as detector, pytest.raises(OptionError) as caught:
        MultiScaleDetector(detector)
    assert (
        str(caught.value)
        == "blobs is fixed at 640x480 px and cannot look at a photo in several sizes: use a zoo "
        "name or a file exported with --dynamic"
    )


def test_a_dynamic_export_looks_in_several_sizes(
    exported: Callable[..., Any], astronaut: Any
) -> None:
    """The smallest views are 64 px, which still has cells at stride 32."""
    image = np.ascontiguousarray(cv2.resize(astronaut, (96, 96)), np.uint8)
    with Detector.open(
        exported("onnx", dynamic=True).path, score_threshold=0.3, nms_iou=0.3
    ) as detector:
        single = Detector(detector.runner, 0.3, 0.3, "original").detect(image)
        found = MultiScaleDetector(detector).detect(image)
    assert len(single) > 0 and len(found) > 0
    assert found.scores[0] >= single.scores[0], "the best score of any view wins"
    assert (found.boxes >= 0).all() and (found.boxes <= 96).all()
