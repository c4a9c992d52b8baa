"""The decoder compared with a loop over cells, and given damaged outputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.architecture import ARCHITECTURES, get_architecture
from edgeface.decode import HeadLayout, check_outputs, decode, decode_all, head_layout
from edgeface.errors import ModelError

Heads = dict[str, NDArray[np.float32]]
LAYOUTS = [
    HeadLayout(),
    HeadLayout(anchors=2, offset=0.0),
    HeadLayout(strides=(16, 64), anchors=3),
    HeadLayout(landmarks=5),
    HeadLayout(strides=(4, 16, 128), coding="ssd", prior=(4.0, 5.0)),
    HeadLayout(anchors=2, offset=0.0, landmarks=5),
]


def random_outputs(layout: HeadLayout, width: int, height: int, seed: int = 0) -> Heads:
    random = np.random.default_rng(seed)
    outputs = {}
    for stride in layout.strides:
        cells = (1, -(-height // stride), -(-width // stride))
        outputs[f"cls_{stride}"] = random.normal(-1, 2, (*cells, layout.anchors)).astype(np.float32)
        outputs[f"box_{stride}"] = random.uniform(0, 4, (*cells, 4 * layout.anchors)).astype(
            np.float32
        )
        if layout.landmarks:
            points = random.normal(0, 2, (*cells, 10 * layout.anchors))
            outputs[f"kps_{stride}"] = points.astype(np.float32)
    return outputs


Face = tuple[float, list[float], list[list[float]]]
"""score, box, landmarks"""


def slow_decode(outputs: Heads, layout: HeadLayout, threshold: float) -> list[Face]:
    """The decoder defined by the docstring of edgeface.decode, cell by cell in double precision."""
    found = []
    for stride in layout.strides:
        cls, box = outputs[f"cls_{stride}"], outputs[f"box_{stride}"]
        for row, column, anchor in np.ndindex(*cls.shape[1:]):
            score = 1 / (1 + math.exp(-float(cls[0, row, column, anchor])))
            if score >= threshold:
                coded = box[0, row, column, 4 * anchor : 4 * anchor + 4].tolist()
                x, y = column + layout.offset, row + layout.offset
                left, top, right, bottom = coded
                if layout.coding == "ssd":  # Liu et al., ECCV 2016: shift, logarithm of the growth
                    (wide, high), (right_by, down_by, *growth) = layout.prior, coded
                    half = wide * math.exp(growth[0]) / 2, high * math.exp(growth[1]) / 2
                    left, right = half[0] - right_by * wide, half[0] + right_by * wide
                    top, bottom = half[1] - down_by * high, half[1] + down_by * high
                points = []
                for i in range(layout.landmarks):
                    values = outputs[f"kps_{stride}"][0, row, column]
                    dx, dy = (float(values[10 * anchor + 2 * i + axis]) for axis in (0, 1))
                    points.append([(x + dx) * stride, (y + dy) * stride])
                found.append(
                    (
                        score,
                        [
                            (x - left) * stride,
                            (y - top) * stride,
                            (x + right) * stride,
                            (y + bottom) * stride,
                        ],
                        points,
                    )
                )
    return sorted(found, key=lambda item: -item[0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threshold", [0.02, 0.5, 0.9])
def test_decode_equals_the_loop(layout: HeadLayout, threshold: float) -> None:
    outputs = random_outputs(layout, 192, 128)
    boxes, scores, points = decode(outputs, layout, threshold)
    expected = slow_decode(outputs, layout, threshold)
    assert boxes.dtype == scores.dtype == np.float32 and len(boxes) == len(expected) > 0
    np.testing.assert_allclose(scores, [score for score, _, _ in expected], rtol=1e-6)
    np.testing.assert_allclose(boxes, [box for _, box, _ in expected], rtol=1e-6, atol=1e-4)
    assert (points is None) == (layout.landmarks == 0)
    if points is not None:
        assert points.dtype == np.float32 and points.shape == (len(boxes), 5, 2)
        np.testing.assert_allclose(points, [face for _, _, face in expected], atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_anchor_in_the_order_of_positions(layout: HeadLayout) -> None:
    outputs = random_outputs(layout, 192, 128)
    every, sorted_ = decode_all(outputs, layout), decode(outputs, layout, 0)
    order = np.argsort(-every.scores, kind="stable")
    for values, expected in zip(every, sorted_, strict=True):
        assert (values is None) == (expected is None)
        assert values is None or expected is None or np.array_equal(values[order], expected)


def test_one_face_by_hand() -> None:
    layout = HeadLayout()
    outputs = {
        name: np.full((1, 64 // s, 96 // s, c), -20, np.float32)
        for s in layout.strides
        for name, c in ((f"cls_{s}", 1), (f"box_{s}", 4))
    }
    outputs["cls_16"][0, 1, 2, 0] = 0.0
    outputs["box_16"][0, 1, 2] = (1, 0.5, 2, 0.25)
    boxes, scores, _ = decode(outputs, layout, 0.5)
    assert boxes.tolist() == [[24.0, 16.0, 72.0, 28.0]] and scores.tolist() == [0.5]


def test_order_is_score_then_position() -> None:
    layout = HeadLayout()
    outputs = random_outputs(layout, 96, 64)
    for name in outputs:
        if name.startswith("cls"):
            outputs[name][:] = np.round(outputs[name])
    boxes, scores, _ = decode(outputs, layout, 0)
    cells = np.concatenate([outputs[f"cls_{s}"].ravel() for s in layout.strides])
    order = np.argsort(-cells, kind="stable")
    assert np.all(np.diff(scores) <= 0)
    whole = np.concatenate([_all_boxes(outputs, s) for s in layout.strides])
    np.testing.assert_allclose(boxes, whole[order], atol=1e-4)
    few, few_scores, _ = decode(outputs, layout, 0, top_k=7)
    assert np.array_equal(few, boxes[:7]) and np.array_equal(few_scores, scores[:7])


def _all_boxes(outputs: Heads, stride: int) -> NDArray[np.float64]:
    box = outputs[f"box_{stride}"][0].astype(float)
    rows, columns = np.mgrid[: box.shape[0], : box.shape[1]] + 0.5
    return (
        np.stack(
            (columns - box[..., 0], rows - box[..., 1], columns + box[..., 2], rows + box[..., 3]),
            -1,
        ).reshape(-1, 4)
        * stride
    )


def test_thresholds_at_the_ends() -> None:
    outputs = random_outputs(HeadLayout(), 96, 64)
    assert len(decode(outputs, HeadLayout(), 0)[0]) == sum(
        outputs[f"cls_{s}"].size for s in (8, 16, 32)
    )
    boxes, scores, _ = decode(outputs, HeadLayout(), 1)
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    none = decode(random_outputs(LAYOUTS[-1], 96, 64), LAYOUTS[-1], 1).landmarks
    assert none is not None and none.shape == (0, 5, 2)
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ModelError, match="score threshold"):
            decode(outputs, HeadLayout(), bad)


def test_huge_logits_do_not_overflow() -> None:
    outputs = random_outputs(HeadLayout(), 96, 64)
    outputs["cls_8"][:] = 3e38
    outputs["cls_16"][:] = -3e38
    with np.errstate(all="raise", under="ignore"):
        scores = decode(outputs, HeadLayout(), 0)[1]
    assert scores[0] == 1 and scores[-1] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "place"), [("cls_16", 5), ("box_8", 5), ("kps_8", 15)])
def test_values_that_are_not_finite_are_an_error(name: str, place: int, value: float) -> None:
    layout = HeadLayout(landmarks=5)
    outputs = random_outputs(layout, 96, 64)
    outputs[name].reshape(-1)[place] = value
    outputs["cls_8"].reshape(-1)[1] = 5  # the bad box or kps value is that of candidate 1
    with pytest.raises(ModelError, match=f"{name[:3]}.* values that are not finite"):
        decode(outputs, layout, 0.5)


def test_a_box_that_nobody_reads_may_be_anything() -> None:
    layout = HeadLayout(landmarks=5)
    outputs = random_outputs(layout, 96, 64)
    outputs["cls_8"][0, 0, 0] = -9
    outputs["box_8"][0, 0, 0] = outputs["kps_8"][0, 0, 0] = math.nan
    decode(outputs, layout, 0.5)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("cls_8", None, "no output 'cls_8'"),
        ("cls_8", np.zeros((1, 8, 12, 2), np.float32), r"expected float32 \[1, rows, columns, 1\]"),
        ("box_8", np.zeros((1, 4, 8, 12), np.float32), r"expected float32 \[1, rows, columns, 4\]"),
        ("box_8", np.zeros((2, 8, 12, 4), np.float32), "expected float32"),
        ("box_8", np.zeros((1, 8, 12, 4), np.float64), "got float64"),
        ("box_8", np.zeros((1, 8, 13, 4), np.float32), "differ in rows and columns"),
        ("kps_8", None, "no output 'kps_8'"),
        ("kps_8", np.zeros((1, 8, 12, 4), np.float32), r"float32 \[1, rows, columns, 10\]"),
        ("kps_8", np.zeros((1, 7, 12, 10), np.float32), "cls_8 and kps_8 differ in rows"),
    ],
)
def test_outputs_that_do_not_fit(
    name: str, array: NDArray[np.float32] | None, message: str
) -> None:
    outputs = random_outputs(HeadLayout(landmarks=5), 96, 64)
    if array is None:
        del outputs[name]
    else:
        outputs[name] = array
    with pytest.raises(ModelError, match=message):
        check_outputs(outputs, HeadLayout(landmarks=5))


def test_levels_that_do_not_cover_the_same() -> None:
    outputs = random_outputs(HeadLayout(), 96, 64)
    outputs |= {k: v for k, v in random_outputs(HeadLayout(), 96, 96).items() if k.endswith("_32")}
    with pytest.raises(ModelError, match="stride 32 cover 96x96 px, others 96x64"):
        decode(outputs, HeadLayout())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_head_layout_of_every_network(name: str) -> None:
    layout = head_layout(get_architecture(name))
    published = name.startswith(("damofd", "scrfd"))
    assert (layout.anchors, layout.offset) == ((2, 0.0) if published else (1, 0.5))
    landmarks = "-kps" in name or name in ("edgeface-n", "edgeface-s")
    kinds = ("cls", "box", "kps") if landmarks else ("cls", "box")
    assert layout.output_names == tuple(f"{kind}_{s}" for s in layout.strides for kind in kinds)
    if published or name.startswith("edgeface"):
        assert layout.strides == (8, 16, 32) and layout.coding == "distance"
    else:
        assert layout.strides == (4, 8, 16, 32, 64, 128) and layout.coding == "ssd"
    if name.startswith("extd"):
        assert layout.prior == (4.0, 4.0)


def test_head_layout_round_trip() -> None:
    for layout in LAYOUTS:
        assert HeadLayout.from_json(layout.to_json()) == layout
        assert ("landmarks" in layout.to_json()) == (layout.landmarks > 0)
    with pytest.raises(ModelError, match="unknown box coding"):
        HeadLayout.from_json({"coding": "polar"})
    wrong: list[dict[str, Any]] = [
        {"strides": []},
        {"strides": [16, 8]},
        {"anchors": 0},
        {"offset": 2.0},
        {"activation": "softmax"},
        {"landmarks": 4},
    ]
    for bad in wrong:
        with pytest.raises(ModelError, match="head_layout"):
            HeadLayout.from_json(bad)
