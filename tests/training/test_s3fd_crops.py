"""Data-anchor-sampling crops and colour changes of the S3FD family, against slow versions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from s3fd import (
    S3FD_CROPS,
)

from edgeface.images.annotated import AnnotatedImage
from edgeface.training.augment import _generator, batch_indices, make_batch
from edgeface.training.crops import PARTS, TRIAL_DRAWS, TRIALS, s3fd_crop
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.options import AugmentOptions


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Black photos with white rectangles as faces.

    The third photo has none; the fourth has an invalid and a large one.
    """
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
    """Scale and origin of one sample from the same draws, as the released code computes them."""
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
@pytest.mark.parametrize("lower_edge", [False, True])
def test_crops_equal_the_slow_ones(marked: Cache, size: int, lower_edge: bool) -> None:
    """A face at the edge of its photo lies in parts that reach the edge."""
    whole, boxes = 0, marked.boxes.clone()
    if lower_edge:
        boxes[0, 1::2] += 400 - boxes[0, 3]
    marked = dataclasses.replace(marked, boxes=boxes)
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
    assert whole >= 6  # the photo without faces, and photos where no drawn part held one


def test_data_anchor_sampling_reaches_every_prior_up_to_the_next(marked: Cache) -> None:
    """A face of 35 px, whose nearest prior is 32 px, is scaled to 16, 32 or 64 px.

    The random factor of .5 to 2 is fixed at 1. The whole face lies inside the crop.
    """
    index = torch.zeros(3000, dtype=torch.long)
    g = torch.Generator().manual_seed(0)
    rand = list(torch.rand(5, 3000, generator=g))
    rand[1] = torch.full((3000,), 0.5)  # factor 1
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
    ).all()  # 500 x 400 px become smaller than the crop, which then holds the whole photo


def test_a_tiny_face_does_not_enlarge_its_photo_beyond_the_limit(marked: Cache) -> None:
    """Twice the prior of 32 px for a face of 1 px asks for 32 times the 500 x 400 px."""
    boxes = marked.boxes.clone()
    boxes[0] = torch.tensor([40.0, 60, 41, 61])
    tiny, last = dataclasses.replace(marked, boxes=boxes), 1 - 1e-6
    rand = tuple(torch.tensor([value]) for value in (0.0, last, 0.0, 0.5, 0.5))
    trials = torch.full((1, TRIAL_DRAWS), last)
    scale, _ = s3fd_crop(tiny, 1.0, 640, torch.zeros(1).long(), rand, trials)
    assert float(scale) == pytest.approx(12_000 / math.sqrt(500 * 400))


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
