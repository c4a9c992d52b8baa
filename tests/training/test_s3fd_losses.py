"""Losses of the S3FD family, each against a slow version written from its paper or code."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from released import released
from s3fd import (
    ASFD,
    CPU,
    ERESFD,
    EXTD,
    S3FD_CROPS,
    dense_iou,
    make_faces,
    random_faces,
    random_outputs,
    slow_match,
)

from edgeface.architecture import get_architecture
from edgeface.decode import HeadLayout, head_layout
from edgeface.images.annotations import read_annotations
from edgeface.models.s3fd import VARIANCES
from edgeface.training.assign import (
    flatten,
    make_cells,
    to_boxes,
)
from edgeface.training.augment import make_batch
from edgeface.training.batch import Batch
from edgeface.training.dataset import open_cache
from edgeface.training.losses import detection_loss, hard_negatives, margin_loss, shot_losses
from edgeface.training.matching import overlap
from edgeface.training.options import RECIPES


@pytest.mark.parametrize("face", [True, False])
def test_margin_loss_is_cross_entropy_with_a_margin_on_the_target(face: bool) -> None:
    pair = torch.randn(50, 2, dtype=torch.float64)  # background, face
    for margin, scale in ((0.0, 1.0), (0.2, 1.0), (0.3, 16.0)):
        shifted = scale * pair
        shifted[:, int(face)] -= scale * margin
        want = torch.nn.functional.cross_entropy(
            shifted, torch.full((50,), int(face)), reduction="none"
        )
        torch.testing.assert_close(margin_loss(pair[:, 1] - pair[:, 0], face, margin, scale), want)


def test_hard_negatives_equal_a_loop() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 60, generator=g)
    positive, keep = torch.rand(4, 60, generator=g) < 0.1, torch.rand(4, 60, generator=g) < 0.7
    positive[1], keep[2] = False, positive[2]  # no positives; nothing but positives
    positive[3, :20] = True  # more negatives wanted than exist
    keep |= positive
    want = set()
    for i in range(4):
        free = [a for a in range(60) if keep[i, a] and not positive[i, a]]
        free.sort(key=lambda a: -float(logits[i, a]))
        want |= {(i, a) for a in free[: 3 * int(positive[i].sum())]}
    image, cell = hard_negatives(logits, positive, keep)
    assert len(image) == len(want)
    assert set(zip(image.tolist(), cell.tolist(), strict=True)) == want


def slow_multibox(
    outputs: tuple[torch.Tensor, ...], batch: Batch, layout: HeadLayout, size: int
) -> tuple[float, float, int]:
    """Loss sums and number of positives as in the released code.

    That code has a softmax of two outputs. Targets are coded by hand.
    """
    cells = make_cells(layout, size, size, CPU)
    logits, coded = (t.detach().double() for t in flatten(outputs, layout))
    cls, box, positives = 0.0, 0.0, 0
    for i in range(len(logits)):
        faces = batch.boxes[(batch.image == i) & ~batch.ignore].numpy()
        matched = slow_match(faces, cells.priors.numpy(), True)
        free = []
        for a in range(len(cells)):
            x, y = cells.point[a].tolist()
            margin = float(cells.stride[a]) / 2
            ignored = any(
                x1 - margin < x < x2 + margin and y1 - margin < y < y2 + margin
                for x1, y1, x2, y2 in batch.boxes[(batch.image == i) & batch.ignore].tolist()
            )
            if a not in matched and not ignored:
                free.append(float(logits[i, a]))
        for value in sorted(free, reverse=True)[: 3 * len(matched)]:
            cls += math.log(1 + math.exp(value))
        for a, f in matched.items():
            cls += math.log(1 + math.exp(-float(logits[i, a])))
            x1, y1, x2, y2 = map(float, faces[f])
            w, h = cells.size[a].tolist()
            cx, cy = cells.point[a].tolist()
            wanted = (
                ((x1 + x2) / 2 - cx) / w,
                ((y1 + y2) / 2 - cy) / h,
                math.log((x2 - x1) / w),
                math.log((y2 - y1) / h),
            )
            for k in range(4):
                d = abs(float(coded[i, a, k]) - wanted[k]) / VARIANCES[k]
                box += 0.5 * d * d if d < 1 else d - 0.5
        positives += len(matched)
    return cls, box, positives


@pytest.mark.parametrize("layout", [EXTD, ERESFD])
def test_multibox_loss_equals_the_slow_one(layout: HeadLayout) -> None:
    boxes = torch.cat(
        [
            random_faces(3, 5, 96, low=8.0),
            torch.tensor([[10.0, 10.0, 60.0, 70.0]]),
            random_faces(4, 2, 96, low=8.0),
        ]
    )
    batch = make_faces(
        boxes, [0, 0, 0, 0, 0, 1, 1, 1], [False, False, True, False, False, True, False, False]
    )
    outputs = random_outputs(layout, 96, 3)
    loss = detection_loss(outputs, batch, make_cells(layout, 96, 96, CPU), layout)
    cls, box, positives = slow_multibox(outputs, batch, layout, 96)
    assert positives == loss.positives == loss.weight
    assert float(loss.cls) == pytest.approx(cls, rel=1e-5)
    assert float(loss.box) == pytest.approx(box, rel=1e-5)


@pytest.mark.parametrize("layout", [EXTD, HeadLayout(), HeadLayout(anchors=2, offset=0.0)])
def test_drmc_serves_every_box_coding(layout: HeadLayout) -> None:
    """DRMC sums 1 - DIoU of decoded boxes over positives, and a class term with margin.

    The matcher gives the positives; the class term also sums hard negatives.
    """
    cells, boxes = make_cells(layout, 96, 96, CPU), random_faces(5, 3, 96, low=16.0)
    batch, outputs = make_faces(boxes, [0, 0, 1]), random_outputs(layout, 96, 2)
    logits, coded = flatten(outputs, layout)
    predicted = to_boxes(cells, coded, layout)
    loss = detection_loss(outputs, batch, cells, layout, "overlap", "drmc", margin=0.2)
    face, cell = overlap(cells, boxes, batch.image, layout)
    cls, box = 0.0, 0.0
    for f, a in zip(face.tolist(), cell.tolist(), strict=True):
        i, p, g = int(batch.image[f]), predicted[batch.image[f], a].tolist(), boxes[f].tolist()
        iou = float(dense_iou(np.array([g], np.float32), np.array([p], np.float32))[0, 0])
        hull = [max(p[k + 2], g[k + 2]) - min(p[k], g[k]) for k in (0, 1)]
        apart = [(p[k] + p[k + 2] - g[k] - g[k + 2]) / 2 for k in (0, 1)]
        box += 1 - iou + sum(v * v for v in apart) / sum(v * v for v in hull)
        cls += math.log(1 + math.exp(-(float(logits[i, a]) - 0.2)))
    for i in (0, 1):
        taken = set(cell[batch.image[face] == i].tolist())
        free = sorted(
            (float(logits[i, a]) for a in range(len(cells)) if a not in taken), reverse=True
        )
        cls += sum(math.log(1 + math.exp(v + 0.2)) for v in free[: 3 * len(taken)])
    assert float(loss.cls) == pytest.approx(cls, rel=1e-5)
    assert float(loss.box) == pytest.approx(box, rel=1e-4)
    gradients = torch.autograd.grad(loss.cls + loss.box, outputs)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(g.abs().sum() > 0 for g in gradients[1::2])


@pytest.mark.parametrize("loss", ["multibox", "drmc", "quality"])
def test_ignored_faces_are_neither_positive_nor_negative(loss: str) -> None:
    """The highest logits lie under an ignored face and give no gradient.

    Without that face they are the hard negatives.
    """
    grads = []
    face = torch.tensor([[70.0, 70.0, 90.0, 90.0]])
    for boxes, ignore in (
        (torch.cat([face, torch.tensor([[8.0, 8.0, 40.0, 40.0]])]), [False, True]),
        (face, [False]),
    ):
        outputs = random_outputs(EXTD, 96, 1)
        with torch.no_grad():
            outputs[0][0, 0, 2:10, 2:10] += 10
        batch = make_faces(boxes, [0] * len(boxes), ignore)
        found = detection_loss(outputs, batch, make_cells(EXTD, 96, 96, CPU), EXTD, loss=loss)
        grads.append(torch.autograd.grad(found.cls, outputs[0])[0][0, 0, 2:10, 2:10])
    assert (grads[0] == 0).all() and (grads[1] > 0).any()


@pytest.mark.parametrize("loss", ["multibox", "drmc"])
def test_photos_without_faces_give_no_loss(loss: str) -> None:
    """An image without positives has no hard negatives; the gradients are zero, not undefined."""
    outputs = random_outputs(EXTD, 64, 2)
    found = detection_loss(
        outputs, make_faces(torch.zeros(0, 4), []), make_cells(EXTD, 64, 64, CPU), EXTD, loss=loss
    )
    assert found.cls == found.box == found.positives == 0
    assert all((g == 0).all() for g in torch.autograd.grad(found.cls + found.box, outputs))


def test_a_first_shot_has_priors_of_half_size_and_positives_of_its_own() -> None:
    cells = make_cells(ASFD, 128, 128, CPU)
    batch = make_faces(random_faces(6, 6, 128, low=6.0), [0, 0, 0, 1, 1, 1])
    second, first = random_outputs(ASFD, 128, 2, seed=1), random_outputs(ASFD, 128, 2, seed=2)
    options = RECIPES["asfd"]
    half = dataclasses.replace(ASFD, prior=tuple(side / 2 for side in ASFD.prior))
    want = [
        detection_loss(second, batch, cells, ASFD, "overlap", "drmc"),
        detection_loss(first, batch, make_cells(half, 128, 128, CPU), half, "overlap", "drmc"),
    ]
    found = shot_losses((*second, *first), batch, cells, ASFD, options)
    assert [float(s.cls) for s in found] == [float(s.cls) for s in want]
    assert [float(s.box) for s in found] == [float(s.box) for s in want]
    assert want[0].positives != want[1].positives
    assert len(shot_losses(second, batch, cells, ASFD, options)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extd-fpn-32-prelu", "eresfd-16"])
def test_released_networks_know_these_priors_and_this_matching(
    name: str, shared: Path, tmp_path: Path
) -> None:
    """Released weights have their least box loss on our crops with their own priors.

    Moved or reshaped priors raise it by more than a tenth.
    """
    photos = read_annotations(shared / "wider/wider_face_split/wider_face_train_bbx_gt.txt")[::240]
    found = open_cache(tmp_path / "cache", shared / "wider/WIDER_train/images", photos)
    network, own = released(name, shared, tmp_path).eval(), head_layout(get_architecture(name))
    batches = [make_batch(found, S3FD_CROPS, 640, 4, step, 0) for step in range(2)]
    with torch.no_grad():
        outputs = [network(batch.images) for batch in batches]

    def box_loss(layout: HeadLayout) -> float:
        cells = make_cells(layout, 640, 640, CPU)
        losses = [
            detection_loss(o, batch, cells, layout)
            for o, batch in zip(outputs, batches, strict=True)
        ]
        return float(sum(loss.box for loss in losses) / sum(loss.positives for loss in losses))

    least = box_loss(own)
    assert least < 2.5
    width, height = own.prior
    for changed in (
        {"prior": (width, height + 1)},
        {"prior": (width, height - 1)},
        {"offset": 0.0},
        {"offset": 1.0},
    ):
        assert box_loss(dataclasses.replace(own, **changed)) > 1.1 * least
