"""Priors, matching, losses, crops and recipes of the S3FD family, each against what its text says,
written out slowly; and whole trainings of EXTD, EResFD and ASFD."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from released import released
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from edgeface.architecture import Architecture, get_architecture
from edgeface.decode import HeadLayout, decode, head_layout
from edgeface.errors import OptionError
from edgeface.images.annotations import AnnotatedImage, read_annotations
from edgeface.models.s3fd import VARIANCES
from edgeface.training.assign import (
    boxes_to_offsets,
    flatten,
    make_cells,
    offsets_to_boxes,
    to_boxes,
)
from edgeface.training.augment import Batch, _generator, batch_indices, make_batch
from edgeface.training.crops import PARTS, TRIAL_DRAWS, TRIALS, s3fd_crop
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.loop import Trainer
from edgeface.training.losses import detection_loss, hard_negatives, margin_loss, shot_losses
from edgeface.training.matching import compensated, overlap
from edgeface.training.optimizer import make_optimizers
from edgeface.training.options import RECIPES, AugmentOptions, TrainOptions, get_recipe
from edgeface.types import Doubles, Floats

CPU = torch.device("cpu")
FAMILY = ("extd-fpn-32-prelu", "eresfd-16", "asfd-d0")
EXTD, ERESFD, ASFD = (head_layout(get_architecture(name)) for name in FAMILY)
S3FD_CROPS = RECIPES["extd"].augment


def random_faces(seed: int, count: int, size: int, low: float = 3.0) -> torch.Tensor:
    """Boxes from ``low`` px to the whole image, cut by its border."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=g) * size
    side = (
        low
        * (size / low) ** torch.rand(count, 1, generator=g)
        * (0.7 + 0.6 * torch.rand(count, 2, generator=g))
    )
    return torch.cat([centre - side / 2, centre + side / 2], 1).clamp(0, size)


def random_outputs(
    layout: HeadLayout, size: int, batch: int, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return tuple(
        (
            0.5 * torch.randn(batch, channels, -(-size // s), -(-size // s), generator=g)
        ).requires_grad_()
        for s in layout.strides
        for channels in (layout.anchors, 4 * layout.anchors)
    )


def make_faces(boxes: torch.Tensor, image: list[int], ignore: list[bool] | None = None) -> Batch:
    return Batch(
        torch.zeros(0),
        boxes,
        torch.full((len(boxes), 5, 2), torch.nan),
        torch.tensor(ignore or [False] * len(boxes), dtype=torch.bool),
        torch.tensor(image, dtype=torch.long),
    )


# Priors


@pytest.mark.parametrize(
    ("golden", "height", "width"), [("synth", 256, 320), ("synth_odd", 250, 317)]
)
def test_priors_are_those_of_the_released_eresfd(
    shared: Path, golden: str, height: int, width: int
) -> None:
    """Their priors are centre and size as shares of the image, in the order of our cells."""
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
    """The NumPy decoder of deployed networks on the same outputs; tolerance: float32 at 200 px."""
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


def test_offsets_and_boxes_are_inverse() -> None:
    cells = make_cells(ERESFD, 96, 96, CPU)
    boxes = random_faces(0, len(cells), 96, low=4.0)
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


# Matching


def dense_iou(faces: Doubles, priors: Doubles) -> Floats:
    """[F, A], in float32 and in the order of operations that makes equal overlaps equal."""
    table = np.zeros((len(faces), len(priors)), np.float32)
    for f, (x1, y1, x2, y2) in enumerate(faces):
        w = np.maximum(np.minimum(x2, priors[:, 2]) - np.maximum(x1, priors[:, 0]), np.float32(0))
        h = np.maximum(np.minimum(y2, priors[:, 3]) - np.maximum(y1, priors[:, 1]), np.float32(0))
        both = (x2 - x1) * (y2 - y1) + (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
        table[f] = w * h / np.maximum(both - w * h, np.float32(1e-6))
    return table


def slow_match(faces: Doubles, priors: Doubles, compensate: bool) -> dict[int, int]:
    """Prior -> face of one image, as the released code does it step by step."""
    if not len(faces):
        return {}
    table = dense_iou(faces, priors)
    truth = [int(np.argmax(table[:, a])) for a in range(len(priors))]
    value = [float(table[truth[a], a]) for a in range(len(priors))]
    best = [float(row.max()) for row in table]
    for f, row in enumerate(table):
        value[int(np.argmax(row))], truth[int(np.argmax(row))] = 2.0, f
    threshold = np.float32(0.35 if compensate else 0.4)
    positive = {a: truth[a] for a in range(len(priors)) if value[a] >= threshold}
    if compensate:
        n = (
            sum(b >= np.float32(0.35) for b in best) + sum(b >= np.float32(0.5) for b in best)
        ) // 2
        between = [a for a in range(len(priors)) if np.float32(0.1) < value[a] < threshold]
        for a in sorted(between, key=lambda a: -value[a])[:n]:
            positive[a] = truth[a]
    return positive


@pytest.mark.parametrize("compensate", [True, False])
@pytest.mark.parametrize("layout", [EXTD, ERESFD, ASFD, HeadLayout(anchors=2)])
@pytest.mark.parametrize("counts", [(0,), (1,), (2, 0, 9), (70, 3)])
def test_matching_equals_the_slow_one(
    layout: HeadLayout, counts: tuple[int, ...], compensate: bool
) -> None:
    """Images without faces, with one and with crowds, in one batch; every second face of a crowd
    twice."""
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


def test_matching_at_full_size() -> None:
    cells = make_cells(ERESFD, 640, 640, CPU)
    faces = random_faces(1, 40, 640)
    face, cell = compensated(cells, faces, torch.zeros(40, dtype=torch.long), ERESFD)
    ours = {int(c): int(f) for f, c in zip(face, cell, strict=True)}
    assert ours == slow_match(faces.numpy(), cells.priors.numpy(), True)
    assert len(set(ours.values())) > 35


def test_compensation_gives_faces_between_two_sizes_more_priors() -> None:
    """A face of 22 px lies between priors of 16 and 32 px: it has few of .35, and N = 1 more."""
    cells = make_cells(EXTD, 128, 128, CPU)
    box, image = torch.tensor([[41.0, 41.0, 63.0, 63.0]]), torch.zeros(1, dtype=torch.long)
    plain = overlap(cells, box, image, EXTD, threshold=0.35)[1]
    more = compensated(cells, box, image, EXTD)[1]
    table = dense_iou(box.numpy(), cells.priors.numpy())[0]
    assert table.max() >= 0.5 and len(more) == len(plain) + 1
    added = set(more.tolist()) - set(plain.tolist())
    assert table[added.pop()] == max(v for v in table if v < np.float32(0.35))


# Losses


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
    positive[1], keep[2] = False, positive[2]  # no face; nothing but faces
    positive[3, :20] = True  # more wanted than there are
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
    """Loss sums and positives as the released code forms them: softmax of two outputs, targets
    coded by hand."""
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
    """Its sums, from the positives of the matcher: 1 - DIoU of decoded boxes, and the margin in the
    class term."""
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
    """The highest logits lie under an ignored face and give no gradient; without the face they are
    the hard ones."""
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
    """Hard negatives are counted by an image's positives, so there are none; the gradients are
    zero, not undefined."""
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
    """The loss of released weights on our crops: least with their own priors, moved or reshaped
    ones cost more."""
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


# Crops


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Black photos with white rectangles, which are the faces; one has none, one an invalid one and
    a large one."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    folder = tmp_path_factory.mktemp("marked")
    images = []
    rectangles: list[list[tuple[int, int, int, int]]] = [
        [(40, 60, 30, 40)],
        [(300, 20, 40, 50), (20, 300, 12, 15)],
        [],
        [(400, 300, 20, 20), (60, 40, 300, 320)],
    ]
    for i, faces in enumerate(rectangles):
        photo = np.full((400, 500, 3), 10, np.uint8)
        for x, y, w, h in faces:
            photo[y : y + h, x : x + w] = 250
        cv2.imwrite(str(folder / f"{i}.png"), photo)
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in faces], np.float32).reshape(-1, 4)
        images.append(
            AnnotatedImage(
                f"{i}.png", boxes, np.array([i == 3 and k == 0 for k in range(len(faces))], bool)
            )
        )
    return open_cache(folder / "cache", folder, images)


def slow_crop(
    cache: Cache, i: int, size: int, share: float, draw: list[float], trials: list[float]
) -> tuple[float, float, float]:
    """Scale and origin of one sample, from the same draws, by the text of the released code."""
    first, count = int(cache.first[i]), int(cache.count[i])
    faces = cache.boxes[first : first + count].tolist()
    width, height = int(cache.level_width[i, 0]), int(cache.level_height[i, 0])
    if draw[2] < share and count:
        x1, y1, x2, y2 = faces[int(draw[0] * count)]
        side = math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1))
        anchors = [16, 32, 64, 128, 256, 512]
        nearest = min(range(6), key=lambda a: abs(anchors[a] - side))
        choices = anchors[: min(nearest + 1, 5) + 1]
        scale = choices[int(trials[0] * len(choices))] / side * 2 ** (2 * draw[1] - 1)
        scale = min(scale, 12_000 / math.sqrt(width * height), size / max(x2 - x1, y2 - y1))
        crop = size / scale
        origin = []
        for low, high, extent, place in ((x1, x2, width, draw[3]), (y1, y2, height, draw[4])):
            a, b = (extent - crop, 0.0) if max(width, height) <= crop else (high - crop, low)
            origin.append(a + (b - a) * place)
        return scale, origin[0], origin[1]
    parts = []
    for part in range(PARTS):
        for trial in range(TRIALS):
            u = trials[2 + 3 * (part * TRIALS + trial) :][:3]
            length = min(width, height) * (1.0 if part == 0 else 0.3 + 0.7 * u[0])
            x, y = u[1] * (width - length), u[2] * (height - length)
            if any(
                x <= x1 and y <= y1 and x2 <= x + length and y2 <= y + length
                for k, (x1, y1, x2, y2) in enumerate(faces)
                if not cache.ignore[first + k]
            ):
                parts.append((size / length, x, y))
                break
    return parts[int(trials[1] * len(parts))] if parts else (size / max(width, height), 0.0, 0.0)


@pytest.mark.parametrize("size", [128, 640])
def test_crops_equal_the_slow_ones(marked: Cache, size: int) -> None:
    whole = 0
    for step in range(6):
        g = _generator(9, 2 * step + 1)
        rand, trials = torch.rand(8, 16, generator=g), torch.rand(8, TRIAL_DRAWS, generator=g)
        index = batch_indices(len(marked), 8, step, 9)
        scale, origin = s3fd_crop(marked, 0.5, size, index, rand.unbind(1), trials)
        want = [
            slow_crop(marked, int(i), size, 0.5, r, t)
            for i, r, t in zip(index, rand.tolist(), trials.tolist(), strict=True)
        ]
        torch.testing.assert_close(
            torch.cat([scale[:, None], origin], 1), torch.tensor(want), rtol=1e-4, atol=2e-2
        )
        whole += int(torch.isclose(scale, torch.tensor(size / 500)).sum())
    assert whole >= 6  # the photo without faces, and parts that could not hold the large one


def test_data_anchor_sampling_reaches_every_prior_up_to_the_next(marked: Cache) -> None:
    """A face of 35 px has 32 px for its own prior: it is brought to 16, 32 or 64 px, times .5 to 2,
    and lies inside."""
    index = torch.zeros(3000, dtype=torch.long)
    g = torch.Generator().manual_seed(0)
    rand = list(torch.rand(5, 3000, generator=g))
    rand[1] = torch.full((3000,), 0.5)  # times 1
    scale, origin = s3fd_crop(
        marked, 1.0, 640, index, tuple(rand), torch.rand(3000, TRIAL_DRAWS, generator=g)
    )
    target = (scale * math.sqrt(31 * 41)).round()
    assert set(target.tolist()) == {16, 32, 64}
    assert torch.bincount(target.long())[[16, 32, 64]].min() > 900
    corner = (torch.tensor([40.0, 60.0, 70.0, 100.0]) - origin.repeat(1, 2)) * scale[:, None]
    assert corner.min() >= -0.01 and corner.max() <= 640.01
    assert (
        origin[target == 16] <= 0
    ).all()  # 500 x 400 px become smaller than the crop: all of them are in it


def test_crops_follow_their_boxes(marked: Cache) -> None:
    """The bright rectangle of every crop lies where the box says, within 2 px of resampling."""
    options = dataclasses.replace(S3FD_CROPS, colour_share=0.0)
    seen = 0
    for step in range(10):
        batch = make_batch(marked, options, 160, 8, step, seed=1)
        for image in range(8):
            boxes = batch.boxes[batch.image == image]
            if (
                len(boxes) != 1
                or bool(batch.ignore[batch.image == image][0])
                or batch.images[image].max() < 200
            ):
                continue
            bright = batch.images[image].amax(0).numpy() > 130
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            np.testing.assert_allclose(
                boxes[0].numpy(), [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=2
            )
            seen += 1
    assert seen >= 20


def test_s3fd_batches_depend_on_seed_and_step_alone(marked: Cache) -> None:
    whole = make_batch(marked, S3FD_CROPS, 96, 12, 2, 0)
    make_batch(marked, S3FD_CROPS, 96, 12, 5, 0)
    parts = [make_batch(marked, S3FD_CROPS, 96, 12, 2, 0, slice(a, a + 4)) for a in (0, 4, 8)]
    assert torch.cat([p.images for p in parts]).equal(whole.images)
    assert torch.cat([p.boxes for p in parts]).equal(whole.boxes)
    assert not make_batch(marked, S3FD_CROPS, 96, 12, 3, 0).images.equal(whole.images)
    assert not make_batch(marked, S3FD_CROPS, 96, 12, 2, 1).images.equal(whole.images)


def test_colour_changes_happen_in_their_share_of_samples(marked: Cache) -> None:
    options = dataclasses.replace(
        AugmentOptions(), grey_share=0.0, saturation=0.0, hue_degrees=0.0, contrast=0.0
    )
    plain = make_batch(marked, dataclasses.replace(options, colour_share=0.0), 64, 64, 0, 0).images
    half = make_batch(marked, dataclasses.replace(options, colour_share=0.5), 64, 64, 0, 0).images
    full = make_batch(marked, dataclasses.replace(options, colour_share=1.0), 64, 64, 0, 0).images
    same = (half == plain).flatten(1).all(1)
    assert 15 < int(same.sum()) < 49
    assert half[~same].equal(full[~same])


# Options and recipes


def test_learning_rate_drops_and_warms_up_as_published() -> None:
    extd, asfd = RECIPES["extd"], RECIPES["asfd"]
    assert extd.steps == 480_000
    assert [extd.lr_at(s) for s in (0, 239_999, 240_000, 359_999, 360_000)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5]
    )
    assert [asfd.lr_at(s) for s in (0, 250, 500, asfd.steps // 2 - 1)] == pytest.approx(
        [1e-6, (1e-6 + 0.015) / 2, 0.015, 0.015]
    )
    assert [asfd.lr_at(int(asfd.steps * epoch / 50) + 1) for epoch in (25, 40)] == pytest.approx(
        [1.5e-3, 1.5e-4]
    )
    eresfd = RECIPES["eresfd"]
    assert [eresfd.lr_at(1000 * k) for k in (150, 151, 181, 201)] == pytest.approx(
        [1e-3, 1e-4, 1e-5, 1e-6]
    )


def test_sgd_has_momentum_and_decays_everything() -> None:
    """v = .9 v + g + .01 p and p = p - .1 v, for weights, biases and slopes alike."""
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.PReLU())
    (optimizer,) = make_optimizers(model, "sgd", lr=0.1, weight_decay=0.01)
    want = {p: (p.detach().clone(), torch.zeros_like(p)) for p in model.parameters()}
    for step in range(3):
        for p, (value, velocity) in want.items():
            p.grad = torch.full_like(p, step + 1.0)
            velocity.mul_(0.9).add_(p.grad + 0.01 * value)
            value.sub_(0.1 * velocity)
        optimizer.step()
        for p, (value, _) in want.items():
            torch.testing.assert_close(p.detach(), value)


@pytest.mark.parametrize("drops", ["0.5,0.2", "0,0.5", "1", "half", "0.5,"])
def test_drops_are_checked(drops: str) -> None:
    with pytest.raises(OptionError, match="--drops"):
        TrainOptions(drops=drops)


def test_every_network_has_the_recipe_of_its_family() -> None:
    for name, recipe in (
        ("extd-ssd-48-relu", "extd"),
        ("eresfd-16", "eresfd"),
        ("asfd-d3", "asfd"),
        ("edgeface-n", "edgeface"),
        ("scrfd-1g-bn", "edgeface"),
    ):
        assert get_recipe(None, get_architecture(name)) is RECIPES[recipe]
    with pytest.raises(OptionError, match="edgeface, extd, eresfd, asfd"):
        get_recipe("yolo", get_architecture("edgeface-n"))


def test_options_that_say_nothing_are_the_networks_own() -> None:
    for options, layout, assigner, loss in (
        (TrainOptions(), HeadLayout(), "dynamic", "quality"),
        (TrainOptions(), EXTD, "compensated", "multibox"),
        (TrainOptions(loss="drmc"), HeadLayout(), "dynamic", "drmc"),
        (RECIPES["extd"], HeadLayout(), "dynamic", "quality"),
        (RECIPES["asfd"], ASFD, "overlap", "drmc"),
    ):
        own = options.completed(layout)
        assert (own.assigner, own.loss) == (assigner, loss)
    with pytest.raises(OptionError, match="prior boxes"):
        TrainOptions(loss="multibox").completed(HeadLayout())


def test_the_command_line_begins_with_the_recipe_and_overrides_it(
    photos: Path, tmp_path: Path
) -> None:
    from edgeface.cli.app import app

    def train(out: str, *extra: str) -> dict[str, object]:
        folders = {
            "data": photos,
            "annotations": photos / "faces.csv",
            "out": tmp_path / out,
            "cache": photos.parent / f"{photos.name}-cache",
        }
        sizes = {"samples": 4, "batch": 4, "size": 64, "late-size": 64}
        flags = [
            text
            for name, value in {**folders, **sizes}.items()
            for text in (f"--{name}", str(value))
        ]
        result = CliRunner().invoke(app, ["train", *flags, "--no-compile", *extra])
        if result.exit_code:
            raise result.exception or AssertionError(result.output)
        found: dict[str, object] = json.loads((tmp_path / out / "config.json").read_text())[
            "options"
        ]
        return found

    own = train("own", "--model", "eresfd-16", "--lr", "0.002")
    assert own["lr"] == 0.002 and own["samples"] == 4
    assert (own["optimizer"], own["drops"], own["loss"]) == (
        "sgd",
        RECIPES["eresfd"].drops,
        "multibox",
    )
    other = train("other", "--model", "eresfd-16", "--recipe", "edgeface", "--loss", "drmc")
    assert (other["optimizer"], other["lr"], other["loss"]) == ("muon", TrainOptions().lr, "drmc")
    with pytest.raises(OptionError, match="prior boxes"):
        train("refused", "--loss", "multibox")


# Whole trainings


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return open_cache(
        tmp_path_factory.mktemp("cache") / "cache", photos, read_annotations(photos / "faces.csv")
    )


def small(architecture: Architecture, steps: int, size: int, batch: int) -> TrainOptions:
    """The family's own recipe, on ``steps`` small batches."""
    return dataclasses.replace(
        get_recipe(None, architecture),
        samples=steps * batch,
        batch=batch,
        size=size,
        late_size=size,
        compile=False,
        checkpoint_every=3,
        snapshot_every=1000,
    )


class DyingTrainer(Trainer):
    """Ends in the middle of a step, as if its process had been killed."""

    def crops(self, step: int) -> Batch:
        if step == 4:
            raise KeyboardInterrupt
        return super().crops(step)


@pytest.mark.parametrize("name", FAMILY)
def test_killed_and_resumed_equals_uninterrupted(name: str, cache: Cache, tmp_path: Path) -> None:
    """Also from a checkpoint that lacks the options and the fields that earlier versions did not
    have."""
    architecture = get_architecture(name)
    options = small(architecture, steps=6, size=64, batch=4)
    (tmp_path / "whole").mkdir()
    assert Trainer(architecture, options, cache, tmp_path / "whole").fit()
    killed = tmp_path / "killed"
    killed.mkdir()
    with pytest.raises(KeyboardInterrupt):
        DyingTrainer(architecture, options, cache, killed).fit()
    again = Trainer(architecture, options, cache, killed)
    again.resume()
    assert again.step == 3
    assert again.fit()
    for file in ("checkpoint.safetensors", "weights.safetensors"):
        ours, theirs = load_file(killed / file), load_file(tmp_path / "whole" / file)
        assert ours.keys() == theirs.keys()
        assert [k for k in ours if not ours[k].equal(theirs[k])] == []


def test_checkpoints_of_earlier_versions_go_on(cache: Cache, tmp_path: Path) -> None:
    """One without the fields that options, crops and networks had not yet; but not with other
    options."""
    architecture, options = (
        get_architecture("edgeface-n"),
        TrainOptions(
            samples=12, batch=4, size=64, late_size=64, warmup=2, compile=False, checkpoint_every=3
        ),
    )
    run = tmp_path / "run"
    run.mkdir()
    assert Trainer(architecture, options, cache, run).fit()
    path = run / "checkpoint.safetensors"
    with safe_open(str(path), framework="pt") as file:
        meta = json.loads(file.metadata()["meta"])
    for name in ("loss", "drops", "warmup_lr", "margin", "margin_scale"):
        del meta["config"]["options"][name]
    for name in ("crop", "colour_share"):
        del meta["config"]["options"]["augment"][name]
    for name in ("prior", "kernel", "maxout"):
        meta["config"]["architecture"]["head"].pop(name, None)
    save_file(load_file(path), path, metadata={"meta": json.dumps(meta)})
    trainer = Trainer(architecture, dataclasses.replace(options, samples=16), cache, run)
    trainer.resume()
    assert trainer.step == 3
    for changed in ({"loss": "drmc"}, {"augment": S3FD_CROPS}, {"assigner": "atss"}):
        other = Trainer(architecture, dataclasses.replace(options, **changed), cache, run)
        with pytest.raises(OptionError, match=next(iter(changed))):
            other.resume()
    other = Trainer(get_architecture("eresfd-16"), options, cache, run)
    with pytest.raises(OptionError, match="other architecture"):
        other.resume()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_each_network_learns_with_its_own_recipe(name: str, cache: Cache, tmp_path: Path) -> None:
    """200 steps on five photos, first and last 25 of them compared: both losses of the network's
    own outputs fall.

    The schedule is shorter than the recipe's, whose warm-up alone may take more steps.
    """
    architecture = get_architecture(name)
    options = dataclasses.replace(
        small(architecture, steps=200, size=128, batch=8), warmup=20, drops="", decay_share=0.2
    )
    assert Trainer(architecture, options, cache, tmp_path).fit()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for term, share in (("cls_loss", 0.7), ("box_loss", 0.97)):
        assert float(rows[-1][term]) < share * float(rows[0][term])
