"""Priors and matching of the S3FD family, against released networks and slow versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from s3fd import (
    ASFD,
    CPU,
    ERESFD,
    EXTD,
    dense_iou,
    random_faces,
    random_outputs,
    slow_match,
)

from edgeface.decode import HeadLayout, decode
from edgeface.training.assign import (
    boxes_to_offsets,
    flatten,
    make_cells,
    offsets_to_boxes,
    to_boxes,
)
from edgeface.training.matching import compensated, overlap


@pytest.mark.parametrize(
    ("golden", "height", "width"), [("synth", 256, 320), ("synth_odd", 250, 317)]
)
def test_priors_are_those_of_the_released_eresfd(
    shared: Path, golden: str, height: int, width: int
) -> None:
    """Released priors are centre and size as shares of the image, in the order of our cells."""
    theirs = np.load(shared / "goldens" / f"eresfd_16_{golden}_priors.npz")["priors"]
    cells = make_cells(ERESFD, height, width, CPU)
    ours = np.concatenate([cells.point.numpy(), cells.size.numpy()], 1) / np.array(
        [width, height] * 2, np.float32
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_priors_have_the_published_sizes() -> None:
    for layout, ratio in ((EXTD, 1.0), (ERESFD, 1.25), (ASFD, 1.5)):
        cells = make_cells(layout, 640, 640, CPU)
        assert len(cells) == 34_125
        sizes = torch.unique_consecutive(cells.size, dim=0)
        area = torch.tensor([16.0, 32, 64, 128, 256, 512]) ** 2 * (1 if layout is ASFD else ratio)
        torch.testing.assert_close(sizes.prod(1), area)
        torch.testing.assert_close(sizes[:, 1] / sizes[:, 0], torch.full((6,), ratio))


@pytest.mark.parametrize("layout", [HeadLayout(), HeadLayout(anchors=2, offset=0.0), EXTD, ERESFD])
def test_boxes_in_training_are_those_of_the_decoder(layout: HeadLayout) -> None:
    """Boxes equal those of the NumPy decoder of deployed networks; tolerance: float32 at 200 px."""
    outputs = random_outputs(layout, 160, 1)
    logits, coded = flatten(outputs, layout)
    ours = to_boxes(make_cells(layout, 160, 160, CPU), coded, layout)[0]
    arrays = {
        name: o.detach().permute(0, 2, 3, 1).contiguous().numpy()
        for name, o in zip(layout.output_names, outputs, strict=True)
    }
    boxes, scores, _ = decode(arrays, layout, score_threshold=0.0)
    order = logits[0].argsort(descending=True)
    assert len(scores) == len(order)
    np.testing.assert_allclose(ours[order].detach().numpy(), boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("largest", [96, 1200])
def test_offsets_and_boxes_are_inverse(largest: int) -> None:
    """Of faces within the photo, and of faces up to 300 times as large as the smallest prior."""
    cells = make_cells(ERESFD, 96, 96, CPU)
    boxes = random_faces(0, len(cells), largest, low=1.0)
    torch.testing.assert_close(
        offsets_to_boxes(cells, boxes_to_offsets(cells.point, cells.size, boxes)),
        boxes,
        atol=1e-3,
        rtol=0,
    )


def test_a_box_far_too_large_gives_no_infinite_gradient() -> None:
    coded = torch.zeros(1, 4).fill_(500.0).requires_grad_()
    cells = make_cells(HeadLayout(strides=(4,), coding="ssd", prior=(4.0, 4.0)), 4, 4, CPU)
    (gradient,) = torch.autograd.grad((offsets_to_boxes(cells, coded) * 0).sum(), coded)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("compensate", [True, False])
@pytest.mark.parametrize("layout", [EXTD, ERESFD, ASFD, HeadLayout(anchors=2)])
@pytest.mark.parametrize("counts", [(0,), (1,), (2, 0, 9), (70, 3)])
def test_matching_equals_the_slow_one(
    layout: HeadLayout, counts: tuple[int, ...], compensate: bool
) -> None:
    """Batches mix images with no face, few faces and crowds.

    In a crowd, every second face occurs twice.
    """
    size = 160
    cells = make_cells(layout, size, size, CPU)
    matcher = compensated if compensate else overlap
    for seed in range(4):
        faces = [random_faces(seed, count, size) for count in counts]
        faces = [torch.cat([f, f[::2]]) if len(f) > 8 else f for f in faces]
        image = torch.cat([torch.full((len(f),), i) for i, f in enumerate(faces)])
        face, cell = matcher(cells, torch.cat(faces), image, layout)
        first = 0
        for i, boxes in enumerate(faces):
            here = image[face] == i
            ours = {int(c): int(f) - first for f, c in zip(face[here], cell[here], strict=True)}
            assert here.sum() == len(ours)
            assert ours == slow_match(boxes.numpy(), cells.priors.numpy(), compensate)
            first += len(boxes)


def test_a_threshold_that_is_just_reached_counts() -> None:
    """A face of 16 x 8 px covers half of a prior: N is (1 + 1) / 2. In one of 16 x 40 px lie priors
    of two fifths of its area."""
    cells = make_cells(EXTD, 160, 160, CPU)
    half, fifths = torch.tensor([[66.0, 34, 82, 42]]), torch.tensor([[66.0, 34, 82, 74]])
    image = torch.zeros(1, dtype=torch.long)
    found = [compensated(cells, half, image, EXTD)[1], overlap(cells, fifths, image, EXTD)[1]]
    tables = [dense_iou(box.numpy(), cells.priors.numpy())[0] for box in (half, fifths)]
    assert tables[0].max() == 0.5 and len(found[0]) == int((tables[0] >= 0.35).sum()) + 1
    reached = np.flatnonzero(tables[1] >= np.float32(0.4))
    assert (tables[1] == np.float32(0.4)).sum() >= 3 and found[1].tolist() == reached.tolist()


def test_matching_at_full_size() -> None:
    cells = make_cells(ERESFD, 640, 640, CPU)
    faces = random_faces(1, 40, 640)
    face, cell = compensated(cells, faces, torch.zeros(40, dtype=torch.long), ERESFD)
    ours = {int(c): int(f) for f, c in zip(face, cell, strict=True)}
    assert ours == slow_match(faces.numpy(), cells.priors.numpy(), True)
    assert len(set(ours.values())) > 35


def test_compensation_gives_faces_between_two_sizes_more_priors() -> None:
    """A face of 22 px, between priors of 16 and 32 px, gets N = 1 prior more than IoU .35 gives."""
    cells = make_cells(EXTD, 128, 128, CPU)
    box, image = torch.tensor([[41.0, 41.0, 63.0, 63.0]]), torch.zeros(1, dtype=torch.long)
    plain = overlap(cells, box, image, EXTD, threshold=0.35)[1]
    more = compensated(cells, box, image, EXTD)[1]
    table = dense_iou(box.numpy(), cells.priors.numpy())[0]
    assert table.max() >= 0.5 and len(more) == len(plain) + 1
    added = set(more.tolist()) - set(plain.tolist())
    assert table[added.pop()] == max(v for v in table if v < np.float32(0.35))
