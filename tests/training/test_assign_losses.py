"""Assigners and losses against plain loops written from the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeface.decode import HeadLayout
from edgeface.training.assign import (
    atss,
    distances_to_boxes,
    dynamic,
    flatten,
    ignored_cells,
    make_cells,
    pair_iou,
)
from edgeface.training.batch import Batch
from edgeface.training.losses import detection_loss, diou_loss, quality_focal_loss

LAYOUTS = [HeadLayout(), HeadLayout(anchors=2, offset=0.0)]
CPU = torch.device("cpu")


def iou(a: list[float], b: list[float]) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union


def random_faces(seed: int, count: int, size: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=g) * size
    side = 4 * (size / 5) ** torch.rand(count, 2, generator=g)
    return torch.cat([centre - side / 2, centre + side / 2], 1).clamp(0, size)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cells_are_laid_out_as_outputs_are_flattened(layout: HeadLayout) -> None:
    """A network output that holds each cell's own position must flatten to the cells' points."""
    outputs = []
    for s in layout.strides:
        y, x = torch.meshgrid(torch.arange(64 // s), torch.arange(96 // s), indexing="ij")
        point = (torch.stack([x, y]) + layout.offset) * s
        outputs.append(point[0].expand(1, layout.anchors, -1, -1))
        outputs.append(point.repeat(1, 2, 1, 1).repeat(1, layout.anchors, 1, 1))
    logits, distances = flatten(tuple(outputs), layout)
    cells = make_cells(layout, 64, 96, CPU)
    assert logits[0].equal(cells.point[:, 0])
    assert distances[0, :, :2].equal(cells.point)


@pytest.mark.parametrize(
    ("layout", "sides"),
    [
        (HeadLayout(), {8: [32], 16: [64], 32: [128]}),
        (HeadLayout(anchors=2), {8: [16, 32], 16: [32, 64], 32: [64, 128]}),
    ],
)
def test_anchors_of_atss(layout: HeadLayout, sides: dict[int, list[int]]) -> None:
    """SCRFD's two anchors are 16 and 32 px at stride 8; one anchor is four strides wide."""
    cells = make_cells(layout, 64, 64, CPU)
    for stride, want in sides.items():
        found = cells.size[cells.stride == stride]
        assert found[: len(want)].tolist() == [[side, side] for side in want]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(5))
def test_atss_equals_a_loop(layout: HeadLayout, seed: int) -> None:
    cells = make_cells(layout, 96, 96, CPU)
    boxes = random_faces(seed, 6, 96)
    best: dict[int, tuple[float, int]] = {}
    for f, box in enumerate(boxes.tolist()):
        cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates: list[int] = []
        for level in range(3):
            on_level = [a for a in range(len(cells)) if int(cells.level[a]) == level]
            distance = torch.cdist(torch.tensor([[cx, cy]]), cells.point[on_level])[0]
            candidates += [
                on_level[i]
                for i in distance.topk(min(9, len(on_level)), largest=False).indices.tolist()
            ]
        ious = []
        for a in candidates:
            (x, y), half = cells.point[a].tolist(), float(cells.size[a, 0]) / 2
            ious.append(iou([x - half, y - half, x + half, y + half], box))
        mean = sum(ious) / len(ious)
        limit = mean + math.sqrt(sum((v - mean) ** 2 for v in ious) / (len(ious) - 1))
        for a, value in zip(candidates, ious, strict=True):
            x, y = cells.point[a].tolist()
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y)
            inside /= math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
            if value >= limit - 1e-7 and inside > 0.001 and value > best.get(a, (-1.0, 0))[0]:
                best[a] = (value, f)
    face, cell = atss(cells, boxes, torch.zeros(6, dtype=torch.long))
    assert {int(c): int(f) for f, c in zip(face, cell, strict=True)} == {
        a: f for a, (_, f) in best.items()
    }


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), layout=st.sampled_from(LAYOUTS), count=st.integers(1, 12))
def test_dynamic_assignment_holds_its_promises(seed: int, layout: HeadLayout, count: int) -> None:
    """Every chosen cell serves one face and lies near its centre.

    A face that is alone in its image always gets a cell, however small it is.
    """
    g = torch.Generator().manual_seed(seed)
    cells = make_cells(layout, 96, 96, CPU)
    boxes = random_faces(seed, count, 95)
    image = torch.randint(0, 2, (count,), generator=g).sort().values
    logits = torch.randn(2, len(cells), generator=g)
    predicted = distances_to_boxes(cells, torch.rand(2, len(cells), 4, generator=g) * 3)
    face, cell = dynamic(cells, boxes, image, logits, predicted, layout)
    keys = (image[face] * len(cells) + cell).tolist()
    assert len(keys) == len(set(keys))
    centre = (boxes[face, :2] + boxes[face, 2:]) / 2
    assert ((cells.point[cell] - centre).abs() <= 1.5 * cells.stride[cell, None] + 1e-3).all()
    for i in (0, 1):
        if (image == i).sum() == 1:
            assert (image[face] == i).any()


def test_dynamic_assignment_prefers_cheap_cells() -> None:
    """A face with perfect boxes only at stride 8 takes nine cells there: their IoUs sum to 9."""
    layout = HeadLayout()
    cells = make_cells(layout, 96, 96, CPU)
    box = torch.tensor([[30.0, 30.0, 50.0, 54.0]])
    predicted = torch.zeros(1, len(cells), 4)
    predicted[0, cells.stride == 8] = box[0]
    _, cell = dynamic(
        cells, box, torch.zeros(1, dtype=torch.long), torch.zeros(1, len(cells)), predicted, layout
    )
    assert len(cell) == 9 and (cells.stride[cell] == 8).all()


def test_ignored_cells_cover_the_box_and_half_a_cell_around() -> None:
    cells = make_cells(HeadLayout(), 64, 64, CPU)
    ignored = ignored_cells(cells, torch.tensor([[16.0, 16.0, 32.0, 24.0]]), torch.tensor([1]), 2)
    assert not ignored[0].any()
    for a in range(len(cells)):
        (x, y), m = cells.point[a].tolist(), float(cells.stride[a]) / 2
        assert bool(ignored[1, a]) == (16 - m < x < 32 + m and 16 - m < y < 24 + m)


def test_quality_focal_loss_is_its_formula() -> None:
    logits, target = torch.randn(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    p = 1 / (1 + torch.exp(-logits))
    want = (target - p).abs() ** 2 * -(target * p.log() + (1 - target) * (1 - p).log())
    torch.testing.assert_close(quality_focal_loss(logits, target), want)


@pytest.mark.parametrize(
    ("box", "loss"),
    [
        ((0, 0, 10, 10), 0.0),  # the target itself
        ((10, 0, 20, 10), 1 + 100 / 500),  # beside it: IoU 0, centres 10 apart, hull 20 x 10
        ((0, 0, 10, 5), 1 - 0.5 + 6.25 / 200),  # its upper half: centres 2.5 apart, hull 10 x 10
    ],
)
def test_diou_loss_by_hand(box: tuple[float, ...], loss: float) -> None:
    got = diou_loss(
        torch.tensor([box], dtype=torch.float32), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    )
    assert got.item() == pytest.approx(loss, abs=1e-6)


def make_outputs(layout: HeadLayout, size: int, batch: int, seed: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(
            batch, layout.anchors * (1 if kind == "cls" else 4), size // s, size // s, generator=g
        ).requires_grad_()
        for s in layout.strides
        for kind in ("cls", "box")
    )


@pytest.mark.parametrize("assigner", ["dynamic", "atss"])
def test_loss_of_a_batch_without_faces(assigner: str) -> None:
    layout = HeadLayout()
    batch = Batch(
        torch.zeros(2, 3, 64, 64),
        torch.zeros(0, 4),
        torch.zeros(0, 5, 2),
        torch.zeros(0, dtype=torch.bool),
        torch.zeros(0, dtype=torch.long),
    )
    outputs = make_outputs(layout, 64, 2, 0)
    loss = detection_loss(outputs, batch, make_cells(layout, 64, 64, CPU), layout, assigner)
    assert loss.positives == 0 and loss.box == 0 and loss.cls > 0
    (loss.cls + loss.box).backward()  # type: ignore[no-untyped-call]
    assert outputs[0].grad is not None and outputs[0].grad.abs().sum() > 0


def test_ignored_faces_take_no_part() -> None:
    """Cells under an ignored face give no gradient; without the face, the same cells do."""
    layout = HeadLayout()
    cells = make_cells(layout, 64, 64, CPU)
    grads = []
    for boxes in (torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.zeros(0, 4)):
        outputs = make_outputs(layout, 64, 1, 0)
        batch = Batch(
            torch.zeros(1, 3, 64, 64),
            boxes,
            torch.full((len(boxes), 5, 2), torch.nan),
            torch.ones(len(boxes), dtype=torch.bool),
            torch.zeros(len(boxes), dtype=torch.long),
        )
        loss = detection_loss(outputs, batch, cells, layout).cls
        loss.backward()  # type: ignore[no-untyped-call]
        assert outputs[0].grad is not None
        grads.append(outputs[0].grad[0, 0])
    assert (grads[0][1:5, 1:5] == 0).all() and (grads[1][1:5, 1:5] != 0).all()
    assert grads[0][6:, 6:].equal(grads[1][6:, 6:])


def test_pair_iou_against_the_loop() -> None:
    a, b = random_faces(1, 20, 100), random_faces(2, 20, 100)
    want = [iou(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    torch.testing.assert_close(pair_iou(a, b), torch.tensor(want), atol=1e-5, rtol=0)
