"""The loss of this project's own networks, and its assigner, against loops from the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from s3fd import CPU, random_faces

from edgeface.decode import HeadLayout
from edgeface.training.assign import distances_to_boxes, dynamic, make_cells
from edgeface.training.batch import Batch
from edgeface.training.losses import detection_loss

LAYOUTS = [HeadLayout(landmarks=5), HeadLayout(anchors=2, offset=0.0, landmarks=5)]
SIZE = 96
Box = list[float]


def slow_iou(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_dynamic(
    faces: list[Box], logits: list[float], boxes: list[Box], layout: HeadLayout
) -> dict[int, int]:
    """Cell -> face of one image; cells are counted level by level, row by row."""
    places = [
        (stride, row, column)
        for stride in layout.strides
        for row in range(SIZE // stride)
        for column in range(SIZE // stride)
        for _ in range(layout.anchors)
    ]
    lowest: dict[int, tuple[float, int]] = {}
    for f, face in enumerate(faces):
        x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
        costs, overlaps = [], []
        for a, (stride, row, column) in enumerate(places):
            middle = [round(v / stride - layout.offset) for v in (x, y)]
            if max(abs(column - middle[0]), abs(row - middle[1])) <= 1:
                iou = slow_iou(boxes[a], face)
                overlaps.append(iou)
                costs.append((math.log(1 + math.exp(-logits[a])) - 3 * math.log(max(iou, 1e-6)), a))
        k = max(1, math.floor(sum(sorted(overlaps)[-10:])))
        for cost, a in sorted(costs)[:k]:
            if a not in lowest or cost < lowest[a][0]:
                lowest[a] = cost, f
    return {a: f for a, (_, f) in lowest.items()}


def outputs_near(
    layout: HeadLayout, faces: torch.Tensor, seed: int
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Outputs of one image with boxes near ``faces``, and their logits [A] and boxes [A, 4]."""
    g = torch.Generator().manual_seed(seed)
    cells = make_cells(layout, SIZE, SIZE, CPU)
    nearest = torch.cdist(cells.point, (faces[:, :2] + faces[:, 2:]) / 2).argmin(1)
    sides = torch.cat([cells.point - faces[nearest, :2], faces[nearest, 2:] - cells.point], 1)
    coded = sides / cells.stride[:, None] + 0.15 * torch.randn(len(cells), 4, generator=g)
    logits = torch.randn(len(cells), generator=g)
    points = torch.randn(len(cells), 10, generator=g)
    outputs = []
    for stride in layout.strides:
        on_level, side = cells.stride == stride, SIZE // stride
        for values in (logits[:, None], coded, points):
            maps = values[on_level].reshape(1, side, side, -1).permute(0, 3, 1, 2)
            outputs.append(maps.clone().requires_grad_())
    return tuple(outputs), logits, distances_to_boxes(cells, coded)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(6))
def test_dynamic_assignment_equals_a_loop(layout: HeadLayout, seed: int) -> None:
    faces = random_faces(seed, 8, SIZE, low=6.0)
    _, logits, boxes = outputs_near(layout, faces, seed)
    want = slow_dynamic(faces.tolist(), logits.tolist(), boxes.tolist(), layout)
    image = torch.zeros(len(faces), dtype=torch.long)
    cells = make_cells(layout, SIZE, SIZE, CPU)
    face, cell = dynamic(cells, faces, image, logits[None], boxes[None], layout)
    assert dict(zip(cell.tolist(), face.tolist(), strict=True)) == want
    assert len(want) > len(faces)


def smooth(error: float, beta: float) -> float:
    return 0.5 * error**2 / beta if abs(error) < beta else abs(error) - 0.5 * beta


@pytest.mark.parametrize("layout", LAYOUTS)
def test_quality_loss_equals_a_loop(layout: HeadLayout) -> None:
    """Classes on all cells but those under an ignored face, boxes and points on positive cells.

    Positive cells count even under an ignored face. The weights and the class targets have no
    gradient: a bad box must not lower the score that weighs it.
    """
    faces = torch.tensor([[20.0, 18, 52, 60], [60.0, 60, 72, 74], [30.0, 40, 70, 80]])
    points = (faces[:, None, :2] + faces[:, None, 2:]) / 2 + torch.arange(10.0).view(1, 5, 2)
    points[0, 2], points[1] = torch.nan, torch.nan
    batch = Batch(
        torch.zeros(0), faces, points, torch.tensor([False, False, True]), torch.zeros(3).long()
    )
    outputs, logits, boxes = outputs_near(layout, faces[:2], 0)
    cells = make_cells(layout, SIZE, SIZE, CPU)
    matched = slow_dynamic(faces[:2].tolist(), logits.tolist(), boxes.tolist(), layout)
    kps = torch.cat([o[0].permute(1, 2, 0).reshape(-1, 5, 2) for o in outputs[2::3]]).tolist()
    cls, box, landmarks, weight, under = 0.0, 0.0, 0.0, 0.0, 0
    for a, (logit, p) in enumerate(zip(logits.tolist(), boxes.tolist(), strict=True)):
        (x, y), stride = cells.point[a].tolist(), float(cells.stride[a])
        score, half = 1 / (1 + math.exp(-logit)), stride / 2
        ignored = 30 - half < x < 70 + half and 40 - half < y < 80 + half
        under += ignored and a in matched
        if a in matched:
            face = faces[matched[a]].tolist()
            iou = slow_iou(p, face)
            cls -= abs(iou - score) ** 2 * (iou * math.log(score) + (1 - iou) * math.log(1 - score))
            apart = sum((p[k] + p[k + 2] - face[k] - face[k + 2]) ** 2 / 4 for k in (0, 1))
            hull = sum((max(p[k + 2], face[k + 2]) - min(p[k], face[k])) ** 2 for k in (0, 1))
            box += score * (1 - iou + apart / hull)
            weight += score
            for got, want in zip(kps[a], points[matched[a]].tolist(), strict=True):
                errors = (got[k] - (want[k] - (x, y)[k]) / stride for k in (0, 1))
                landmarks += sum(score * smooth(e, 1 / 9) for e in errors if math.isfinite(e))
        elif not ignored:
            cls -= score**2 * math.log(1 - score)
    found = detection_loss(outputs, batch, cells, layout)
    assert under and len(set(matched.values())) == 2 and found.positives == len(matched)
    got = [float(v) for v in (found.cls, found.box, found.landmarks, found.weight)]
    assert got == pytest.approx([cls, box, landmarks, weight], rel=1e-4)
    for loss, kinds in ((found.cls, (0,)), (found.box, (1,)), (found.landmarks, (2,))):
        gradients = torch.autograd.grad(loss, outputs, retain_graph=True, allow_unused=True)
        moved = {i % 3 for i, g in enumerate(gradients) if g is not None and g.abs().sum() > 0}
        assert moved == set(kinds)
