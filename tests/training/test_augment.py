"""Crops: geometry against OpenCV, boxes that follow the pixels, batches set by seed and step."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeface.images.annotated import AnnotatedImage
from edgeface.images.annotations import read_annotations
from edgeface.training.augment import (
    MIRRORED,
    View,
    _crop,
    _generator,
    _warp,
    batch_indices,
    make_batch,
)
from edgeface.training.crops import largest_face
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.degrade import DRAWS, Change, compress, degrade, motion_blur, noise
from edgeface.training.options import AugmentOptions
from edgeface.training.render import (
    CropLook,
    CropSource,
    changes,
    colour,
    gathered,
    light,
    source_of,
    warped,
)

STILL = AugmentOptions(
    large_share=0,
    roll_share=0,
    occlusion_share=0,
    light_share=0,
    noise_share=0,
    compression_share=0,
    motion_share=0,
)
"""without large faces, turns, covers, light, noise, compression and motion blur"""
PLAIN = dataclasses.replace(
    STILL, brightness=0, contrast=0, saturation=0, hue_degrees=0, grey_share=0, blur_share=0
)
SIZE = 128


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("cache") / "cache"
    return open_cache(folder, photos, read_annotations(photos / "faces.csv"))


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Black photos, each with one white rectangle as its face."""
    folder = tmp_path_factory.mktemp("marked")
    images = []
    for i, (x, y, w, h) in enumerate([(40, 60, 90, 120), (300, 20, 40, 50), (100, 200, 200, 150)]):
        photo = np.full((400, 500, 3), 10, np.uint8)
        photo[y : y + h, x : x + w] = 250
        cv2.imwrite(str(folder / f"{i}.png"), photo)
        images.append(
            AnnotatedImage(
                f"{i}.png", np.array([[x, y, x + w, y + h]], np.float32), np.zeros(1, bool)
            )
        )
    return open_cache(folder / "cache", folder, images)


def test_pixels_equal_an_affine_warp(cache: Cache, photos: Path) -> None:
    """Enlarging crops read level 0 of the pyramid and equal OpenCV's warpAffine.

    Tolerance 4 of 255: warpAffine rounds positions to 1/32 px, which changes pixels at a steep edge
    by a few grey levels. A border of one pixel is left out, because the two treat what lies outside
    the photo differently.
    """
    options = dataclasses.replace(
        PLAIN, scale_low=1.0, scale_high=2.0, anchor_share=0.0, face_high=10.0
    )
    for step in range(3):
        batch = make_batch(cache, options, SIZE, 8, step, seed=5)
        index = batch_indices(len(cache), 8, step, 5)
        rand = torch.rand(8, 16, generator=_generator(5, 2 * step + 1)).unbind(1)
        scale, origin = _crop(cache, options, SIZE, index, rand)
        for i in range(8):
            height, width = (
                int(getattr(cache, f"level_{s}")[index[i], 0]) for s in ("height", "width")
            )
            start = int(cache.level_offset[index[i], 0])
            photo = (
                cache.pixels[start : start + height * width]
                .numpy()
                .view(np.uint8)
                .reshape(height, width, 4)
            )
            s, (ox, oy) = float(scale[i]), origin[i].tolist()
            grid = np.array([[1 / s, 0, ox + 0.5 / s - 0.5], [0, 1 / s, oy + 0.5 / s - 0.5]])
            want = cv2.warpAffine(
                photo[..., :3].copy(),
                grid,
                (SIZE, SIZE),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            )
            if rand[5][i] < 0.5:
                want = want[:, ::-1]
            got = batch.images[i].permute(1, 2, 0).numpy()
            x = (np.arange(SIZE) + 0.5) / s
            x, y = x + ox, x + oy
            if rand[5][i] < 0.5:
                x = x[::-1]
            inner = ((y > 1) & (y < height - 1))[:, None] & ((x > 1) & (x < width - 1))[None]
            assert inner.any()
            assert np.abs(got - want)[inner].max() <= 4


def test_boxes_follow_their_pixels(marked: Cache) -> None:
    """The bright rectangle of every crop lies where the box says, within 2 px of resampling."""
    seen = 0
    for step in range(12):
        batch = make_batch(marked, PLAIN, SIZE, 6, step, seed=1)
        for box, image in zip(batch.boxes[~batch.ignore], batch.image[~batch.ignore], strict=True):
            bright = batch.images[image].amax(0).numpy() > 130
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(box.numpy(), found, atol=2)
            seen += 1
    assert seen >= 60


def test_chosen_face_stays_in_the_crop(marked: Cache) -> None:
    batch = make_batch(marked, PLAIN, SIZE, 64, 0, seed=2)
    learned = batch.boxes[~batch.ignore]
    assert len(learned) == 64
    assert (learned[:, :2] >= 0).all() and (learned[:, 2:] <= SIZE).all()


def test_batch_depends_on_seed_and_step_alone(cache: Cache) -> None:
    def batch(step: int, seed: int) -> torch.Tensor:
        return make_batch(cache, AugmentOptions(), SIZE, 8, step, seed).images

    first = batch(3, 7)
    torch.rand(100)
    batch(9, 7)
    assert batch(3, 7).equal(first)
    assert not batch(4, 7).equal(first)
    assert not batch(3, 8).equal(first)


def test_parts_make_the_whole(cache: Cache) -> None:
    whole = make_batch(cache, AugmentOptions(), SIZE, 12, 2, 0)
    parts = [
        make_batch(cache, AugmentOptions(), SIZE, 12, 2, 0, slice(a, a + 4)) for a in (0, 4, 8)
    ]
    assert torch.cat([p.images for p in parts]).equal(whole.images)
    assert torch.cat([p.boxes for p in parts]).equal(whole.boxes)
    assert torch.cat([p.image + 4 * i for i, p in enumerate(parts)]).equal(whole.image)


def drawn(cache: Cache, options: AugmentOptions, crops: int) -> tuple[CropSource, CropLook]:
    """Source and look of random crops: .4 to 2 crop px per photo px, some beyond the photo.

    They are turned by up to 40 degrees; half of them are mirrored, half stretched and sheared.
    """
    draw = torch.rand(28, crops, generator=torch.Generator().manual_seed(3)).unbind(0)
    scale, turn = 0.4 + 1.6 * draw[0], 0.7 * (2 * draw[1] - 1)
    origin = torch.stack(draw[2:4], 1) * 200 - 60
    warp = _warp(AugmentOptions(stretch_share=0.5), torch.stack(draw[24:], 1))
    view = View(SIZE, scale, origin, turn, draw[4] < 0.5, warp)
    index = torch.arange(crops) % len(cache)
    look = CropLook(
        *colour(options, changes(1.0, draw[5:10], draw[10:14])), light(options, SIZE, draw[14:19])
    )
    return source_of(cache, index, scale, view.to_photo(), draw[19] < 0.3), look


def test_opencv_and_torch_make_the_same_crops(cache: Cache) -> None:
    """Pixels differ by no more than OpenCV's rounding explains, the mean of a crop by below .5.

    OpenCV rounds positions to 1/32 px, which changes the steepest edge (255 levels within a px) by
    8 levels, and the sampled and the coloured pixel to whole numbers. Contrast and light multiply
    these errors by up to 1.5 each.
    """
    options = AugmentOptions(light_share=0.5)
    source, look = drawn(cache, options, 32)
    by_opencv = warped(cache.pixels, source, look, SIZE)
    by_torch = gathered(cache.pixels, source, look, SIZE, compiled=False)
    far = (by_opencv - by_torch).abs()
    black = (by_opencv == 0).all(3), (by_torch == 0).all(3)
    assert 0.02 < black[1].float().mean() < 0.9
    assert (black[0] != black[1]).float().mean() < 0.02
    both = black[0] == black[1]
    assert far[both].max() <= 8 * 1.5 * 1.5 + 2
    assert far[both].mean() < 0.5
    assert (by_opencv - by_torch).mean((1, 2, 3)).abs().max() < 0.5


def test_compiled_sampling_is_the_same(cache: Cache) -> None:
    """Compiling reorders float32 sums of values up to 255: far less than a grey level."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler")
    source, look = drawn(cache, AugmentOptions(), 8)
    plain = gathered(cache.pixels, source, look, SIZE, compiled=False)
    compiled = gathered(cache.pixels, source, look, SIZE, compiled=True)
    torch.testing.assert_close(compiled, plain, atol=1e-3, rtol=0)


def test_every_epoch_sees_every_image_once() -> None:
    seen = torch.cat([batch_indices(50, 8, step, seed=3) for step in range(25)])
    for epoch in range(4):
        assert seen[epoch * 50 : (epoch + 1) * 50].sort().values.equal(torch.arange(50))
    assert not seen[:50].equal(seen[50:100])


def test_outside_the_image_is_black_whatever_the_colour_change(marked: Cache) -> None:
    options = dataclasses.replace(
        STILL, scale_low=0.2, scale_high=0.21, anchor_share=0, brightness=200
    )
    batch = make_batch(marked, options, SIZE, 16, 0, seed=0)
    black = (batch.images == 0).all(1).float().mean((1, 2))
    assert (black > 0.2).all()


def test_colour_matrix_keeps_grey_grey_and_scales_contrast() -> None:
    """Only contrast and brightness change grey pixels; saturation, hue and grey do not."""
    half = torch.full((4,), 0.5)
    options = AugmentOptions(grey_share=0)
    matrix, offset = colour(
        options, (torch.rand(4), torch.rand(4), half, torch.full((4,), 1.0), half)
    )
    grey = torch.full((4, 1, 3), 100.0)
    torch.testing.assert_close(
        grey @ matrix + offset, torch.full((4, 1, 3), 150.0), atol=0.05, rtol=0
    )


def test_tiny_and_cut_faces_are_ignored_not_learned(marked: Cache) -> None:
    options = dataclasses.replace(PLAIN, min_face_px=1000.0)
    batch = make_batch(marked, options, SIZE, 8, 0, seed=0)
    assert len(batch.boxes) and batch.ignore.all()


def test_landmarks_follow_their_pixels_through_turn_and_flip(tmp_path: Path) -> None:
    """Each landmark lies on the dot of its grey; a mirrored crop swaps left and right landmarks.

    Five dots of different grey, 3 px to each side, lie on a dark photo.
    """
    points = np.array([[180, 150], [240, 150], [210, 190], [185, 220], [235, 220]], np.float32)
    greys = (90, 130, 170, 210, 250)
    photo = np.full((400, 420, 3), 10, np.uint8)
    for (x, y), grey in zip(points.astype(int).tolist(), greys, strict=True):
        photo[y - 3 : y + 3, x - 3 : x + 3] = grey
    cv2.imwrite(str(tmp_path / "dots.png"), photo)
    face = AnnotatedImage(
        "dots.png", np.array([[150, 110, 270, 250]], np.float32), np.zeros(1, bool), points[None]
    )
    cache = open_cache(tmp_path / "cache", tmp_path, [face])
    options = dataclasses.replace(
        PLAIN, roll_share=1.0, scale_low=1.0, scale_high=1.4, anchor_share=0
    )
    batch = make_batch(cache, options, 320, 24, 0, seed=4)
    mirrored = [greys[k] for k in MIRRORED]
    seen = {greys: 0, tuple(mirrored): 0}
    for points_px, image in zip(batch.landmarks.tolist(), batch.images, strict=True):
        shown = [
            float(image[0, int(y), int(x)]) if 0 <= x < 320 else None for x, y in points_px
        ]  # None: the landmark is NaN or outside the crop
        fits = [
            order
            for order in seen
            if all(
                value is None or abs(value - grey) < 3
                for value, grey in zip(shown, order, strict=True)
            )
        ]
        assert fits
        seen[fits[0]] += 1
    assert min(seen.values()) >= 6
    sides = batch.landmarks[:, 0] - batch.landmarks[:, 1]
    assert (sides[:, 0] < 0)[
        ~sides.isnan().any(1)
    ].float().mean() > 0.9  # the left eye stays left of the image


@pytest.mark.parametrize("warp", [[[1.0, 0.0], [0.0, 1.0]], [[1.2, 0.18], [0.0, 1 / 1.2]]])
def test_turned_boxes_hold_the_ellipse_of_the_face(warp: list[list[float]]) -> None:
    view = View(
        100,
        torch.ones(1),
        torch.zeros(1, 2),
        torch.tensor([0.7]),
        torch.tensor([False]),
        torch.tensor([warp]),
    )
    angle = torch.linspace(0, 2 * torch.pi, 3600)
    ellipse = torch.stack([40 + 10 * angle.cos(), 60 + 25 * angle.sin()], 1)
    found = view.points(ellipse[None], torch.tensor([0]))[0]
    box = view.boxes(torch.tensor([[30.0, 35, 50, 85]]), torch.tensor([0]))[0]
    torch.testing.assert_close(box, torch.cat([found.amin(0), found.amax(0)]), atol=1e-3, rtol=0)


def test_large_faces_fill_the_crop_and_more(marked: Cache) -> None:
    options = dataclasses.replace(PLAIN, large_share=1.0, large_low=1.2, large_high=1.4)
    batch = make_batch(marked, options, SIZE, 32, 0, seed=0)
    filled = (batch.boxes[:, 2:] - batch.boxes[:, :2]).prod(1) / SIZE**2
    assert (
        len(filled) == 32
        and not batch.ignore.any()
        and (filled > 0.45).all()
        and (filled == 1).any()
    )


def test_an_invalid_face_is_never_the_largest(marked: Cache) -> None:
    """An image with only invalid faces used to get one of them.

    Of two faces whose areas differ by less than 1 px^2, the smaller one could be chosen.
    """
    sides = torch.tensor([[10, 10.05], [10, 10.0]])
    boxes = torch.cat([marked.boxes[:2], torch.cat([0 * sides, sides], 1)])
    close = dataclasses.replace(
        marked,
        boxes=boxes,
        ignore=torch.tensor([True, False, False, False]),
        first=torch.tensor([0, 1, 2]),
        count=torch.tensor([1, 1, 2]),
    )
    found = largest_face(close, torch.tensor([2, 0, 1]))
    assert found.tolist() == [boxes[2].tolist(), [0, 0, 0, 0], boxes[1].tolist()]
    flat = torch.tensor([[0.0, 0, 15, 15], [0, 0, 30, 5]])  # the wider one has the smaller area
    wide = dataclasses.replace(close, boxes=torch.cat([boxes[:2], flat]))
    assert largest_face(wide, torch.tensor([2])).tolist() == [[0, 0, 15, 15]]
    large = dataclasses.replace(PLAIN, large_share=1.0, large_low=1.2, large_high=1.4)
    invalid = dataclasses.replace(marked, ignore=torch.ones(3, dtype=torch.bool))
    plain, same = (make_batch(invalid, o, SIZE, 8, 0, seed=0) for o in (PLAIN, large))
    torch.testing.assert_close(same.images, plain.images, atol=0, rtol=0)


def test_covered_faces(marked: Cache) -> None:
    """A cover lies on its face, changes nothing else, and hides a smaller face below it."""
    images = torch.full((1, SIZE, SIZE, 3), 77.0)
    boxes = torch.tensor([[20.0, 20, 100, 120], [22, 22, 30, 32]])
    draws = torch.zeros(1, DRAWS)
    draws[0, 2] = 0.5  # the cover takes 42 % of the face, here its left part
    hidden = degrade(
        images,
        boxes,
        torch.tensor([0, 0]),
        torch.tensor([False, True]),
        dataclasses.replace(PLAIN, occlusion_share=0.5),
        draws,
    )
    covered = (images != 77).any(3)[0]
    assert hidden.tolist() == [False, True]
    assert covered[60, 40] and not covered[60, 70] and 0.2 < float(covered.float().mean()) < 0.4


@pytest.mark.parametrize("left", [0.0, 44.0, 88.0])
@pytest.mark.parametrize("top", [0.0, 44.0, 88.0])
@pytest.mark.parametrize("side", [0.0, 0.3, 0.6, 0.9])
def test_a_cover_lies_on_the_face_at_the_edges_of_the_crop_too(
    left: float, top: float, side: float
) -> None:
    """A cover takes 42 % of the face and a tenth beyond its edges, clipped to the crop."""
    images = torch.full((1, SIZE, SIZE, 3), 77.0)
    box = torch.tensor([[left, top, left + 40, top + 40]])
    draws = torch.zeros(1, DRAWS)
    draws[0, 2:4] = torch.tensor([0.5, side])
    options = dataclasses.replace(PLAIN, occlusion_share=0.5)
    degrade(images, box, torch.tensor([0]), torch.tensor([False]), options, draws)
    rows, columns = torch.nonzero((images != 77).any(3)[0]).unbind(1)
    span = {0: (-4, 17), 1: (-4, 44), 2: (23, 44), 3: (-4, 44)}[int(side * 4)]
    tall = {0: (-4, 44), 1: (-4, 17), 2: (-4, 44), 3: (23, 44)}[int(side * 4)]
    for found, start, (low, high) in ((columns, left, span), (rows, top, tall)):
        assert int(found.min()) == max(0, start + low)
        assert int(found.max()) + 1 == min(SIZE, start + high)


@pytest.mark.parametrize("change", [motion_blur, noise, compress])
def test_what_a_camera_does_keeps_the_picture(astronaut: np.ndarray, change: Change) -> None:
    """Photos change by less than their contrast, keep their brightness and stay in 0 to 255."""
    photo = torch.from_numpy(astronaut[:256, :256].astype(np.float32))
    found = change(photo, 0.9, 0.3)
    error = found - photo
    assert 1 < error.std() < 0.6 * photo.std() and abs(error.mean()) < 3
    assert found.min() >= 0 and found.max() <= 255 and found.shape == photo.shape
    assert change(photo, 0.9, 0.3).equal(found)
