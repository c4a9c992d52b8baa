"""The official protocol: the golden figures, a literal re-implementation, and each rule by hand."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeface.detections import Detections
from edgeface.errors import DataError
from edgeface.evaluation.wider import (
    HEIGHT_BINS_PX,
    SETTINGS,
    GroundTruth,
    ImageFaces,
    average_precision,
    evaluate,
    image_key,
    load_ground_truth,
    overlaps,
)

WriteMat = Callable[[Path, Mapping[str, Any]], Path]
FACE = [100.0, 100.0, 40.0, 50.0]
OTHER = [300.0, 100.0, 40.0, 50.0]
FAR = [600.0, 600.0, 40.0, 50.0]


def ground_truth(boxes: Any, counts: list[bool] | None = None, key: str = "e/a") -> GroundTruth:
    table = np.array(boxes, float).reshape(-1, 4)
    mask = np.ones(len(table), bool) if counts is None else np.array(counts, bool)
    return GroundTruth({key: ImageFaces(table, dict.fromkeys(SETTINGS, mask))})


def hard(faces: GroundTruth, *rows: list[float]) -> float | None:
    return evaluate({"e/a": np.array(rows, float).reshape(-1, 5)}, faces).hard


def test_the_golden_predictions_over_all_val_images(shared: Path) -> None:
    golden = np.load(shared / "goldens" / "eval_preds.npz")
    expected = json.loads((shared / "goldens" / "eval_expected.json").read_text())
    faces = load_ground_truth(shared / "wider")
    keys = {key.split("/")[1]: key for key in faces.images}
    assert len(keys) == 3226
    parts = np.split(golden["xywhs"].astype(float), np.cumsum(golden["counts"])[:-1])
    result = evaluate(
        {keys[name]: part for name, part in zip(golden["names"], parts, strict=True)}, faces
    )
    assert result.images == 3226
    assert [result.faces[s] for s in SETTINGS] == [7211, 13319, 31958]
    assert sum(result.faces[name] for name in HEIGHT_BINS_PX) == 31958
    for setting in SETTINGS:
        assert getattr(result, setting) == pytest.approx(expected[setting], abs=1e-12)


# The protocol as in the specification and the original script: one loop per step; shares nothing
# with the code under test.


def literal_iou(p: list[float], g: list[float]) -> float:
    iw = min(p[0] + p[2], g[0] + g[2]) - max(p[0], g[0]) + 1
    ih = min(p[1] + p[3], g[1] + g[3]) - max(p[1], g[1]) + 1
    if iw <= 0 or ih <= 0:
        return 0.0
    return iw * ih / ((p[2] + 1) * (p[3] + 1) + (g[2] + 1) * (g[3] + 1) - iw * ih)


def literal_ap(
    images: dict[str, tuple[list[list[float]], set[int]]], predictions: dict[str, list[list[float]]]
) -> Any:
    scores = [row[4] for rows in predictions.values() for row in rows]
    low, high = min([1.0, *scores]), max([0.0, *scores])
    kept, true, total = [0] * 1000, [0] * 1000, 0
    for key, (boxes, counting) in images.items():
        total += len(counting)
        rows = sorted(predictions.get(key, []), key=lambda row: -row[4])
        if not rows or not boxes:
            continue
        recalled: dict[int, int] = {}
        recall_after, proposal = [], []
        for row in rows:
            ious = [literal_iou(row, box) for box in boxes]
            best = ious.index(max(ious))
            proposal.append(1)
            if ious[best] >= 0.5:
                if best not in counting:
                    proposal[-1] = -1
                else:
                    recalled[best] = 1
            recall_after.append(len(recalled))
        for k in range(1000):
            threshold = 1 - (k + 1) / 1000
            reached = [
                i
                for i, row in enumerate(rows)
                if high == low or (row[4] - low) / (high - low) >= threshold
            ]
            if reached:
                kept[k] += proposal[: reached[-1] + 1].count(1)
                true[k] += recall_after[reached[-1]]
    if total == 0:
        return None
    recall = [0.0, *(t / total for t in true), 1.0]
    precision = [0.0, *(t / n if n else 0.0 for t, n in zip(true, kept, strict=True)), 0.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))


def literal_points(
    images: dict[str, tuple[list[list[float]], set[int]]], predictions: dict[str, list[list[float]]]
) -> list[tuple[int, int]]:
    """(boxes counted, true positives among them) at each score threshold."""
    points = []
    for score in (n / 10 for n in range(1, 10)):
        kept = true = 0
        for key, (boxes, counting) in images.items():
            found: set[int] = set()
            for row in sorted(predictions.get(key, []), key=lambda row: -row[4]):
                if row[4] < score or not boxes:
                    continue
                ious = [literal_iou(row, box) for box in boxes]
                best = ious.index(max(ious))
                if ious[best] < 0.5 or best in counting:
                    kept += 1
                if ious[best] >= 0.5 and best in counting and best not in found:
                    true += 1
                    found.add(best)
        points.append((kept, true))
    return points


COORDINATES = st.integers(0, 24).map(float)
SIZES = st.integers(6, 30).map(float)
BOXES = st.tuples(COORDINATES, COORDINATES, SIZES, SIZES).map(list)
SCORES = st.integers(0, 20).map(lambda score: score / 20) | st.floats(0, 1)


@st.composite
def data_sets(
    draw: st.DrawFn,
) -> tuple[dict[str, Any], dict[str, list[list[float]]], dict[str, float]]:
    """Crowded images, in which duplicates, ties and overlaps with ignored faces are common."""
    images: dict[str, Any] = {}
    predictions: dict[str, list[list[float]]] = {}
    scales: dict[str, float] = {}
    for i in range(draw(st.integers(1, 4))):
        key = f"event{i % 2}/image{i}"
        boxes = draw(st.lists(BOXES, max_size=4))
        subsets = st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes))
        counts = {s: [n for n, inside in enumerate(draw(subsets)) if inside] for s in SETTINGS}
        images[key] = (boxes, counts)
        near: Any = st.sampled_from(boxes) if boxes else BOXES
        rows: list[Any] = draw(st.lists(st.tuples(near | BOXES, SCORES), max_size=6))
        listed: bool = draw(st.booleans())
        if rows or listed:
            predictions[key] = [[*box, score] for box, score in rows]
        scales[key] = draw(st.sampled_from([0.5, 1.0, 2.0]))
    return images, predictions, scales


@settings(max_examples=60, deadline=None)
@given(data=data_sets())
def test_equal_to_the_literal_protocol(
    write_mat: WriteMat, data: tuple[dict[str, Any], dict[str, Any], dict[str, float]]
) -> None:
    images, predictions, scales = data
    with tempfile.TemporaryDirectory() as folder:
        faces = load_ground_truth(write_mat(Path(folder), images))
    tables = {key: np.array(rows, float).reshape(-1, 5) for key, rows in predictions.items()}
    result = evaluate(tables, faces, scales)
    assert result.images == len(images)
    for setting in SETTINGS:
        literal = {key: (boxes, set(counts[setting])) for key, (boxes, counts) in images.items()}
        assert getattr(result, setting) == pytest.approx(
            literal_ap(literal, predictions), abs=1e-12
        )
    for name, (low, high) in {
        "0-16": (0, 16),
        "16-32": (16, 32),
        "32-96": (32, 96),
        "96+": (96, 1e9),
    }.items():
        literal = {
            key: (boxes, {n for n in counts["hard"] if low <= boxes[n][3] * scales[key] < high})
            for key, (boxes, counts) in images.items()
        }
        assert result.by_height[name] == pytest.approx(literal_ap(literal, predictions), abs=1e-12)
        total = sum(len(counting) for _, counting in literal.values())
        assert result.faces[name] == total
        for point, (_, true) in zip(
            result.operating_points, literal_points(literal, predictions), strict=True
        ):
            assert point.recall_by_height[name] == (true / total if total else None)


@settings(max_examples=60, deadline=None)
@given(data=data_sets())
def test_operating_points_are_those_of_a_count(
    data: tuple[dict[str, Any], dict[str, Any], dict[str, float]],
) -> None:
    images, predictions, _ = data
    literal = {key: (boxes, set(counts["hard"])) for key, (boxes, counts) in images.items()}
    faces = {
        key: ImageFaces(
            np.array(boxes, float).reshape(-1, 4),
            dict.fromkeys(SETTINGS, np.isin(np.arange(len(boxes)), list(counting))),
        )
        for key, (boxes, counting) in literal.items()
    }
    tables = {key: np.array(rows, float).reshape(-1, 5) for key, rows in predictions.items()}
    total = sum(len(counting) for _, counting in literal.values())
    points = evaluate(tables, GroundTruth(faces)).operating_points
    for point, (kept, true) in zip(points, literal_points(literal, predictions), strict=True):
        assert point.precision == (true / kept if kept else None)
        assert point.recall == (true / total if total else None)
        assert point.false_boxes == (kept - true) / len(images)


# Each rule by hand.


def test_perfect_predictions() -> None:
    assert hard(ground_truth([FACE, OTHER]), [*FACE, 0.9], [*OTHER, 0.1]) == 1.0


def test_a_second_box_on_a_face_is_a_false_positive() -> None:
    faces = ground_truth([FACE, OTHER])
    assert hard(faces, [*FACE, 0.9], [*FACE, 0.8], [*OTHER, 0.1]) == pytest.approx(
        0.5 + 0.5 * 2 / 3
    )


def test_a_box_on_a_face_outside_the_setting_is_ignored_however_often() -> None:
    faces = ground_truth([FACE, OTHER], [True, False])
    assert hard(faces, [*OTHER, 0.9], [*OTHER, 0.8], [*FACE, 0.7]) == 1.0
    assert hard(faces, [*FAR, 0.9], [*OTHER, 0.8], [*FACE, 0.7]) == 0.5, (
        "one beside every face still counts"
    )


def test_the_best_face_decides_even_if_it_is_outside_the_setting() -> None:
    """Both faces overlap the box enough, the ignored one more; the second best is not tried."""
    faces = ground_truth([[100, 100, 40, 40], [106, 100, 40, 40]], [True, False])
    assert hard(faces, [105, 100, 40, 40, 0.9]) == 0.0
    assert hard(faces, [101, 100, 40, 40, 0.9]) == 1.0


def test_an_overlap_of_exactly_one_half_is_a_hit() -> None:
    """The official convention makes a box w + 1 px wide: 10 of 20 columns overlap."""
    faces = ground_truth([[0, 0, 19, 9]])
    assert overlaps(np.array([[0.0, 0, 9, 9]]), np.array([[0.0, 0, 19, 9]]))[0, 0] == 0.5
    assert hard(faces, [0, 0, 9, 9, 0.9]) == 1.0
    assert hard(faces, [0, 0, 8.9, 9, 0.9]) == 0.0


def test_missed_faces_lower_the_recall_also_in_images_without_predictions() -> None:
    one = ground_truth([FACE]).images["e/a"]
    faces = GroundTruth({"e/a": one, "e/b": one})
    assert evaluate({"e/a": np.array([[*FACE, 0.9]])}, faces).hard == 0.5
    assert evaluate({"e/a": np.array([[*FACE, 0.9]]), "e/b": np.zeros((0, 5))}, faces).hard == 0.5


def test_predictions_on_an_image_without_faces_do_not_count() -> None:
    """As in the original, an image without faces is skipped."""
    faces = GroundTruth({**ground_truth([FACE]).images, **ground_truth([], key="e/none").images})
    assert (
        evaluate({"e/a": np.array([[*FACE, 0.5]]), "e/none": np.array([[*FAR, 0.9]])}, faces).hard
        == 1.0
    )


def test_no_prediction_at_all_is_zero_and_no_face_is_none() -> None:
    assert evaluate({}, ground_truth([FACE])).hard == 0.0
    result = evaluate({"e/a": np.array([[*FACE, 0.9]])}, ground_truth([FACE], [False]))
    assert (result.easy, result.medium, result.hard) == (None, None, None)
    assert set(result.by_height.values()) == {None} and result.curves == {}


def test_the_order_of_predictions_does_not_matter() -> None:
    faces = ground_truth([FACE, OTHER])
    rows = [[*FACE, 0.9], [*FAR, 0.5], [*OTHER, 0.1]]
    assert hard(faces, *rows) == hard(faces, *rows[::-1]) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_scores_are_normalised_over_all_images() -> None:
    """Unnormalised, all three scores would fall between two of the 1000 thresholds and tie."""
    rows = [[*FACE, 0.50003], [*FAR, 0.50002], [*OTHER, 0.50001]]
    assert hard(ground_truth([FACE, OTHER]), *rows) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_scores_closer_than_a_thousandth_of_the_range_may_tie() -> None:
    faces, ends = ground_truth([FACE, OTHER]), ([*FACE, 1.0], [*FAR, 0.0])
    assert hard(faces, *ends, [*OTHER, 0.5050], [*FAR, 0.5015]) == 1.0
    assert hard(faces, *ends, [*OTHER, 0.5055], [*FAR, 0.5052]) == pytest.approx(0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_score_that_equals_a_threshold_reaches_it(kind: type[np.floating[Any]]) -> None:
    x, y, w, h = FACE
    box = np.array([[x, y, x + w, y + h]], np.float32)
    for score in np.arange(1, 10) / 10:
        points = evaluate(
            {"e/a": Detections(box, np.array([score], kind))}, ground_truth([FACE])
        ).operating_points
        found = [point.score for point in points if point.recall == 1.0]
        assert found == pytest.approx(np.arange(1, round(score * 10) + 1) / 10)


def test_height_bins_follow_the_scale() -> None:
    faces = ground_truth([FACE])  # 50 px
    for scale, name in [
        (0.3, "0-16"),
        (0.32, "16-32"),
        (0.64, "32-96"),
        (1.91, "32-96"),
        (1.92, "96+"),
    ]:
        result = evaluate({"e/a": np.array([[*FACE, 0.9]])}, faces, {"e/a": scale})
        assert result.by_height == {
            other: 1.0 if other == name else None for other in HEIGHT_BINS_PX
        }


def test_detections_measure_from_edge_to_edge() -> None:
    """w = x2 - x1: a detection whose edges are those of the annotation overlaps it fully."""
    x, y, w, h = FACE
    score = np.array([0.9], np.float32)
    detections = Detections(np.array([[x, y, x + w, y + h]], np.float32), score)
    corners = evaluate({"e/a": detections}, ground_truth([FACE]))
    table = evaluate({"e/a": np.array([[*FACE, 0.9]])}, ground_truth([FACE]))
    assert corners == table and corners.hard == 1.0
    for right, expected in [(9, 1.0), (8.9, 0.0)]:  # exactly one half, and a little less
        half = Detections(np.array([[0, 0, right, 9]], np.float32), score)
        assert evaluate({"e/a": half}, ground_truth([[0, 0, 19, 9]])).hard == expected


def test_average_precision_of_a_known_curve() -> None:
    assert average_precision(np.array([1, 0.5, 0.6]), np.array([0.25, 0.5, 0.75])) == pytest.approx(
        0.25 + 0.5 * 0.6
    )


@pytest.mark.parametrize(
    "rows",
    [np.zeros((2, 4)), np.zeros(5), np.full((1, 5), np.nan), np.array([[0, 0, 1, 1, np.inf]])],
)
def test_malformed_predictions_are_refused(rows: Any) -> None:
    with pytest.raises(DataError, match=r"predictions of e/a: .*; accepted: finite \[n, 5\]"):
        evaluate({"e/a": rows}, ground_truth([FACE]))


def test_unknown_images_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"image e/b \(1 such\) is not in the ground truth; accepted: like e/a"
    ):
        evaluate({"e/b": np.zeros((0, 5))}, ground_truth([FACE]))
    with pytest.raises(DataError, match="is not in the ground truth"):
        ground_truth([FACE]).restrict(["e/c.jpg"])


def test_keys_and_restriction() -> None:
    assert [image_key(name) for name in ("e/a.jpg", "e/a.WEBP", "e/a", "e/a.b.png")] == [
        "e/a",
        "e/a",
        "e/a",
        "e/a.b",
    ]
    one = ground_truth([FACE]).images["e/a"]
    faces = GroundTruth({"e/a": one, "e/b": one, "e/c": one})
    assert list(faces.restrict(["e/c.jpg", "e/a"]).images) == ["e/a", "e/c"]
    with_suffix = evaluate({"e/a.jpg": np.array([[*FACE, 0.9]])}, faces.restrict(["e/a"]))
    assert with_suffix.hard == 1.0 and with_suffix.images == 1
