"""Pasted parts: pixels come from the donor, and only visible faces are learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeface.images.annotations import read_annotations
from edgeface.training.augment import make_batch
from edgeface.training.batch import Batch
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.options import AugmentOptions, near
from edgeface.training.paste import PASTE_DRAWS, donors, paste

SIZE, BATCH = 128, 12
PASTING = dataclasses.replace(near(AugmentOptions()), paste_share=0.7)


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("paste") / "cache"
    return open_cache(folder, photos, read_annotations(photos / "faces.csv"))


def of_one_colour(boxes: list[list[list[float]]], size: int = 100) -> Batch:
    """Crop i has the value i + 1 everywhere and faces ``boxes[i]``, landmarks at their centres."""
    image = torch.tensor([i for i, own in enumerate(boxes) for _ in own], dtype=torch.long)
    every = torch.tensor([box for own in boxes for box in own], dtype=torch.float32).view(-1, 4)
    points = ((every[:, None, :2] + every[:, None, 2:]) / 2).expand(-1, 5, 2).clone()
    colours = torch.arange(1.0, len(boxes) + 1).view(-1, 1, 1, 1)
    pixels = colours.expand(-1, 3, size, size).clone()
    return Batch(pixels, every, points, torch.zeros(len(every), dtype=torch.bool), image)


def draws(**named: float) -> torch.Tensor:
    names = ("whether", "which", "kind", "first", "second", "right", "down", "x", "y")
    return torch.tensor([[named.get(name, 0.0) for name in names]])


def test_a_face_comes_with_its_surroundings() -> None:
    """A face of 20 px is pasted with .3 of it on each side and .39 below: 32 x 34 px."""
    made = of_one_colour([[], [[40, 40, 60, 60]]])
    got = paste(made, torch.tensor([1]), draws(x=0.0, y=0.0), 4.0)
    assert len(got.images) == 1
    assert (got.images[0, :, :34, :32] == 2).all()
    assert int((got.images[0] == 2).sum()) == 3 * 34 * 32
    assert got.boxes.tolist() == [[6, 6, 26, 26]]
    assert got.landmarks[0, 0].tolist() == [16, 16]
    assert not got.ignore.any()


@pytest.mark.parametrize(
    ("named", "source", "place"),
    [
        (
            {"kind": 0.49, "first": 0.6, "second": 0.5, "x": 0.0, "y": 0.5},
            (22, 12, 68, 73),
            (0, 19),
        ),
        ({"kind": 0.51, "first": 0.5, "right": 1.0, "x": 0.5, "y": 0.0}, (55, 0, 100, 25), (27, 0)),
        (
            {"kind": 0.9, "second": 0.25, "down": 0.4, "x": 0.21, "y": 0.5},
            (0, 26, 25, 61),
            (15, 32),
        ),
    ],
)
def test_each_draw_chooses_what_it_says(
    named: dict[str, float], source: tuple[int, ...], place: tuple[int, int]
) -> None:
    """Around the second of two faces, .9 of its longer side and 1.17 below; else 45 x 25 px, and
    25 x 35 px. The pixels of the donor tell where they come from."""
    made = of_one_colour([[], [[0, 0, 99, 9], [40, 30, 50, 50]]])
    made.images[1, 0], made.images[1, 1] = torch.meshgrid(
        torch.arange(200.0, 300), torch.arange(200.0, 300), indexing="ij"
    )
    got = paste(made, torch.tensor([1]), draws(**named), 1.0)
    (x1, y1, x2, y2), (x, y) = source, place
    rows, columns = torch.nonzero(got.images[0, 0] >= 200).unbind(1)
    assert (int(columns.min()), int(rows.min())) == place
    assert (int(columns.max()), int(rows.max())) == (x + x2 - x1 - 1, y + y2 - y1 - 1)
    assert got.images[0, :2, y, x].tolist() == [200 + y1, 200 + x1]


def test_what_is_covered_is_not_learned() -> None:
    """A part of 25 x 25 px covers one face wholly, one mostly and one by a quarter."""
    faces: list[list[float]] = [[5, 5, 20, 20], [0, 15, 25, 30], [20, 0, 40, 25]]
    made = of_one_colour([faces, []])
    got = paste(made, torch.tensor([1]), draws(kind=0.9), 4.0)
    assert int((got.images[0, 0] == 2).sum()) == 25 * 25
    assert got.boxes.tolist() == faces[1:]
    assert got.ignore.tolist() == [True, False]


def test_what_is_cut_off_is_not_learned() -> None:
    """The pasted part has a whole face and faces cut to a third, three quarters and a half.

    The landmarks of the third one stay inside, those of the last one lie on the edge.
    """
    faces: list[list[float]] = [[2, 2, 12, 12], [20, 0, 35, 20], [0, 10, 20, 30], [15, 0, 35, 20]]
    made = of_one_colour([[], faces])
    place = draws(kind=0.9, x=1.0 - 1e-6, y=0.5)
    got = paste(made, torch.tensor([1]), place, 4.0)
    shift = torch.tensor([74.0, 37.0])  # 75 px are free on each axis, and a draw is below 1
    want = [[2.0, 2, 12, 12], [20, 0, 25, 20], [0, 10, 20, 25], [15, 0, 25, 20]]
    assert torch.equal(got.boxes, torch.tensor(want) + shift.repeat(2))
    assert got.ignore.tolist() == [False, True, False, False]
    assert torch.equal(got.landmarks[2, 0], torch.tensor([10.0, 20.0]) + shift)
    assert got.landmarks[1::2].isnan().all()  # at the centre: x = 27.5, and x = 25


SHARES = ((0.45, True, False), (0.55, True, True), (0.93, True, True), (0.96, False, True))
"""share of a face that is covered or cut off; whether the face stays; whether it is ignored"""


@pytest.mark.parametrize(("share", "there", "ignored"), SHARES)
@pytest.mark.parametrize("pasted", [False, True])
def test_shares_from_which_a_face_is_ignored_and_dropped(
    share: float, there: bool, ignored: bool, pasted: bool
) -> None:
    """The face lies across the right edge of a part of 25 x 25 px."""
    left = 25 - 20 * (1 - share if pasted else share)
    face: list[list[float]] = [[left, 0, left + 20, 10]]
    made = of_one_colour([[], face] if pasted else [face, []])
    got = paste(made, torch.tensor([1]), draws(kind=0.9), 1.0)
    assert got.ignore.tolist() == [ignored] * there


@pytest.mark.parametrize(("least", "ignored"), [(10.9, False), (11.1, True)])
def test_a_pasted_face_of_which_too_little_is_left_is_not_learned(
    least: float, ignored: bool
) -> None:
    """11 px of its 20 px are inside the part."""
    made = of_one_colour([[], [[14, 0, 34, 20]]])
    got = paste(made, torch.tensor([1]), draws(kind=0.9), least)
    assert got.boxes.tolist() == [[14, 0, 25, 20]] and got.ignore.tolist() == [ignored]


def test_ignored_faces_stay_ignored_and_no_part_is_chosen_around_them() -> None:
    """An invalid face at (60, 60) comes with any part that holds it, but none is cut around it."""
    made = of_one_colour([[[2, 70, 12, 80]], [[60, 60, 70, 70]]])
    made = dataclasses.replace(made, ignore=torch.tensor([True, True]))
    got = paste(made, torch.tensor([1]), draws(kind=0.0, right=1.0, down=1.0), 4.0)
    assert int((got.images[0, 0] == 2).sum()) == 25 * 25
    assert got.boxes.tolist() == [[2, 70, 12, 80]] and got.ignore.tolist() == [True]
    large = draws(kind=0.9, first=1.0, second=1.0, right=1.0, down=1.0)  # 65 x 65 px
    made = of_one_colour([[], [[60, 60, 70, 70]]])
    made = dataclasses.replace(made, ignore=torch.tensor([True]))
    got = paste(made, torch.tensor([1]), large, 4.0)
    assert got.boxes.tolist() == [[25, 25, 35, 35]] and got.ignore.tolist() == [True]


@pytest.mark.parametrize(("side", "pasted"), [(4.0, 0), (5.0, 8 * 8), (49.0, 78 * 83), (51.0, 0)])
def test_tiny_parts_and_most_of_a_crop_are_not_pasted(side: float, pasted: int) -> None:
    """A part is 1.6 times as wide as its face and 1.69 times as high; 8 to 80 px are pasted."""
    corner = 50 - side / 2
    made = of_one_colour([[], [[corner, corner, corner + side, corner + side]]])
    got = paste(made, torch.tensor([1]), draws(), 1.0)
    assert int((got.images[0, 0] == 2).sum()) == pasted


def test_two_crops_exchange_what_they_had() -> None:
    made = of_one_colour([[[10, 10, 30, 30]], [[50, 50, 70, 70]]])
    got = paste(made, torch.tensor([1, 0]), draws(x=0.9, y=0.9).repeat(2, 1), 4.0)
    assert set(got.images[0].flatten().tolist()) == {1, 2}
    assert int((got.images[0] == 2).sum()) == int((got.images[1] == 1).sum()) == 3 * 34 * 32
    assert got.image.tolist() == [0, 0, 1, 1]


def test_donors_are_others() -> None:
    rand = torch.rand(64, PASTE_DRAWS, generator=torch.Generator().manual_seed(0))
    chosen = donors(rand, 0.5)
    taken = chosen >= 0
    assert 16 < int(taken.sum()) < 48
    assert (chosen != torch.arange(64)).all()
    assert int(chosen.max()) < 64
    each = torch.zeros(12, PASTE_DRAWS)
    each[:, 1] = torch.arange(12) / 12 + 0.01  # which of the eleven others, counted from the next
    others = [(i + 1 + int((i / 12 + 0.01) * 11)) % 12 for i in range(12)]
    assert donors(each, 1.0).tolist() == others
    assert donors(rand, 0.0).tolist() == [-1] * 64
    assert donors(rand[:1], 1.0).tolist() == [-1]


def test_batches_are_pure_and_pasted(cache: Cache) -> None:
    """A batch made in parts equals the whole; some crops have no pasted part and stay the same."""
    whole = make_batch(cache, PASTING, SIZE, BATCH, 3, 1)
    plain = make_batch(cache, near(AugmentOptions()), SIZE, BATCH, 3, 1)
    changed = (whole.images != plain.images).flatten(1).any(1)
    assert 3 <= int(changed.sum()) < BATCH
    for parts in (2, 3):
        step = BATCH // parts
        pieces = [
            make_batch(cache, PASTING, SIZE, BATCH, 3, 1, slice(a, a + step))
            for a in range(0, BATCH, step)
        ]
        assert torch.equal(torch.cat([p.images for p in pieces]), whole.images)
        for name in ("boxes", "ignore"):
            assert torch.equal(torch.cat([getattr(p, name) for p in pieces]), getattr(whole, name))
        image = torch.cat([p.image + i * step for i, p in enumerate(pieces)])
        assert torch.equal(image, whole.image)
    extent = (whole.boxes[:, 2:] - whole.boxes[:, :2])[~whole.ignore]
    assert (np.asarray(extent) >= PASTING.min_face_px).all()
