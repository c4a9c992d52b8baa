"""Faces of random crops, one by one as the documentation has them, and which crops change."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from edgeface.images.annotated import AnnotatedImage
from edgeface.training.augment import (
    MORE_DRAWS,
    WARP_DRAWS,
    _crop,
    _crops,
    _generator,
    _warp,
    batch_indices,
    make_batch,
)
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.options import NEAR_SHARES, AugmentOptions

SIZE, BATCH = 96, 64
NONE: dict[str, Any] = dict.fromkeys(NEAR_SHARES, 0.0)
PLAIN = dataclasses.replace(AugmentOptions(), min_face_px=6.0, **NONE)
Face = tuple[list[float], bool, list[list[float]]]
"""box, whether it is ignored, landmarks"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Photos of noise with 40 faces each, from 3 to 150 px; every fifth is invalid."""
    folder, random = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    images = []
    for i, (width, height) in enumerate([(500, 400), (301, 403), (640, 200)]):
        noise = random.integers(60, 200, (height, width, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), noise)
        half = 3 * 50 ** random.uniform(0, 1, (40, 2)) / 2
        centre = random.uniform(half, np.array([width, height]) - half)
        boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
        points = centre[:, None] + random.uniform(-0.6, 0.6, (40, 5, 2)) * half[:, None]
        invalid = np.arange(40) % 5 == 0
        images.append(AnnotatedImage(f"{i}.png", boxes, invalid, points.astype(np.float32)))
    return open_cache(folder / "cache", folder, images)


def seen(cache: Cache, photo: int, scale: float, origin: list[float], flip: bool) -> list[Face]:
    """Visible faces of one crop that is not turned."""
    first, found = int(cache.first[photo]), []
    for k in range(first, first + int(cache.count[photo])):
        box = cache.boxes[k].tolist()
        x1, x2 = ((x - origin[0]) * scale for x in box[::2])
        y1, y2 = ((y - origin[1]) * scale for y in box[1::2])
        points = [[(p[i] - origin[i]) * scale for i in (0, 1)] for p in cache.landmarks[k].tolist()]
        if flip:
            x1, x2 = SIZE - x2, SIZE - x1
            points = [[SIZE - points[i][0], points[i][1]] for i in (1, 0, 2, 4, 3)]
        points = [p if min(p) >= 0 and max(p) < SIZE else [np.nan] * 2 for p in points]
        beyond = not (0 <= (x1 + x2) / 2 < SIZE and 0 <= (y1 + y2) / 2 < SIZE)
        clipped = [min(max(value, 0), SIZE) for value in (x1, y1, x2, y2)]
        width, height = clipped[2] - clipped[0], clipped[3] - clipped[1]
        if min(width, height) > 0:
            ignored = bool(cache.ignore[k]) or beyond or min(width, height) < PLAIN.min_face_px
            found.append((clipped, ignored, points))
    return found


def test_faces_of_crops_are_those_found_one_by_one(cache: Cache) -> None:
    ignored = 0
    for step in range(3):
        batch = make_batch(cache, PLAIN, SIZE, BATCH, step, seed=5)
        index = batch_indices(len(cache), BATCH, step, 5)
        rand = torch.rand(BATCH, 16, generator=_generator(5, 2 * step + 1)).unbind(1)
        scale, origin = _crop(cache, PLAIN, SIZE, index, rand)
        for i in range(BATCH):
            flip = bool(rand[5][i] < 0.5)
            want = seen(cache, int(index[i]), float(scale[i]), origin[i].tolist(), flip)
            boxes, ignore, points = zip(*want, strict=True)
            mine = batch.image == i
            torch.testing.assert_close(batch.boxes[mine], torch.tensor(boxes), atol=1e-2, rtol=0)
            torch.testing.assert_close(
                batch.landmarks[mine], torch.tensor(points), atol=1e-2, rtol=0, equal_nan=True
            )
            assert batch.ignore[mine].tolist() == list(ignore)
            ignored += sum(ignore)
    assert ignored > 500


def covered_share(box: list[float], changed: torch.Tensor, more: float) -> float:
    """Share of a box that lies in the rectangle of changed pixels, enlarged by ``more`` px."""
    rows, columns = torch.nonzero(changed).unbind(1)
    width = min(box[2], int(columns.max()) + 1 + more) - max(box[0], int(columns.min()) - more)
    height = min(box[3], int(rows.max()) + 1 + more) - max(box[1], int(rows.min()) - more)
    return max(0.0, width) * max(0.0, height) / ((box[2] - box[0]) * (box[3] - box[1]))


def test_faces_that_covers_hide_are_ignored(cache: Cache) -> None:
    """A face is ignored if more than .6 of it are covered; a cover was rounded to whole pixels."""
    small, hidden = dataclasses.replace(PLAIN, min_face_px=1.0), 0
    options = small, dataclasses.replace(small, occlusion_share=1.0)
    for step in range(8):
        plain, covered = (make_batch(cache, each, SIZE, BATCH, step, seed=5) for each in options)
        assert covered.boxes.equal(plain.boxes)
        changed = (covered.images != plain.images).any(1)
        for k, box in enumerate(plain.boxes.tolist()):
            before, after = bool(plain.ignore[k]), bool(covered.ignore[k])
            pixels = changed[plain.image[k]]
            least, most = (
                covered_share(box, pixels, more) if pixels.any() else 0.0 for more in (-0.5, 0.5)
            )
            if least > 0.6 or most < 0.6:
                assert after == (before or least > 0.6)
                hidden += after and not before
    assert hidden >= 5


def test_every_change_strikes_samples_of_its_own(cache: Cache) -> None:
    """Of any two changes, each of which strikes half of the samples, some get both, one or none.

    Mirroring is one of them, too."""
    shares = [name for name in NONE if name not in ("anchor_share", "colour_share")]
    plain = make_batch(cache, PLAIN, SIZE, BATCH, 0, seed=0).images
    struck = {"flip": torch.rand(BATCH, 16, generator=_generator(0, 1))[:, 5] < 0.5}
    for name in shares:
        changes: dict[str, Any] = {name: 0.5, "large_scale": 1000.0}
        options = dataclasses.replace(PLAIN, **changes)
        images = make_batch(cache, options, SIZE, BATCH, 0, seed=0).images
        struck[name] = (images != plain).flatten(1).any(1)
        assert 16 < int(struck[name].sum()) < 48, name
    for one, other in itertools.combinations(struck, 2):
        both = torch.stack([struck[one], struck[other]], 1)
        assert len(torch.unique(both, dim=0)) == 4, (one, other)


STILL = {"hue_degrees": 0.0, "saturation": 0.0, "contrast": 0.0, "brightness": 0.0}
COLOURS = {"hue_degrees": 90.0, "saturation": 0.5, "contrast": 0.5, "brightness": 32.0}
CHANGES: dict[str, tuple[int, dict[str, Any]]] = {
    **{name: (2, STILL | {"colour_share": 0.5, name: COLOURS[name]}) for name in COLOURS},
    **{
        name: (count, {name: 0.5})
        for name, count in (
            ("large_share", 4),
            ("roll_share", 2),
            ("stretch_share", 4),
            ("light_share", 5),
            ("occlusion_share", 6),
            ("motion_share", 3),
            ("noise_share", 3),
            ("compression_share", 2),
            ("blur_share", 1),
            ("grey_share", 1),
        )
    },
}
"""options of changes that strike every other sample, and on how many random numbers each depends:
whether it strikes, and what it does"""


def test_every_change_has_draws_of_its_own(cache: Cache) -> None:
    """Each sample differs from the first in one random number, from .2, where all changes happen.

    So the numbers that a change depends on are seen; no other change depends on them.
    """
    count, photo = 16 + MORE_DRAWS + WARP_DRAWS, torch.tensor([2])
    draws = torch.full((count + 1, count), 0.2)
    draws[torch.arange(count) + 1, torch.arange(count)] = 0.9

    def used(**changes: Any) -> set[int]:
        options = dataclasses.replace(PLAIN, large_scale=1000.0, **changes)
        parts = [draws[:, :16], draws[:, :0], draws[:, 16:-WARP_DRAWS], draws[:, -WARP_DRAWS:]]
        images = _crops(cache, options, SIZE, photo.expand(count + 1), parts, False).images
        return set(torch.nonzero((images[1:] != images[0]).flatten(1).any(1))[:, 0].tolist())

    plain = used()
    assert plain == {0, 1, 3, 4, 5}  # the face, the scale, two for the place, and mirroring
    own = {name: used(**changes) - plain for name, (_, changes) in CHANGES.items()}
    assert {name: len(found) for name, found in own.items()} == {
        name: count for name, (count, _) in CHANGES.items()
    }
    for one, other in itertools.combinations(own, 2):
        assert not own[one] & own[other], (one, other)


def test_warps_are_a_shear_then_a_stretch() -> None:
    """At the ends of their draws, and only in the share of the samples that asks for them."""
    options = AugmentOptions(stretch_share=0.4, stretch=1.25, shear=0.1)
    draws = torch.tensor([[0.3, 1, 1, 0.4], [0.3, 0, 1, 0.6], [0.3, 0.5, 0, 0.6], [0.5, 1, 1, 0.4]])
    stretch = [torch.diag(torch.tensor([x, 1 / x])) for x in (1.25, 0.8, 1.0)]
    shear = [[[1, 0.1], [0, 1]], [[1, 0], [0.1, 1]], [[1, 0], [-0.1, 1]]]
    expected = [x @ torch.tensor(k) for x, k in zip(stretch, shear, strict=True)]
    torch.testing.assert_close(_warp(options, draws), torch.stack([*expected, torch.eye(2)]))
    assert not (_warp(AugmentOptions(), torch.rand(50, 4)) - torch.eye(2)).any()


def test_what_is_left_of_pasted_faces_is_as_large_as_learned_faces_must_be(cache: Cache) -> None:
    options = dataclasses.replace(PLAIN, min_face_px=12.0, paste_share=1.0)
    batch = make_batch(cache, options, SIZE, BATCH, 0, seed=5)
    sides = (batch.boxes[:, 2:] - batch.boxes[:, :2])[~batch.ignore]
    assert len(sides) > BATCH and float(sides.min()) > 11.99
