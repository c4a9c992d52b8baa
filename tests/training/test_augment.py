"""Crops: geometry against OpenCV, boxes that follow their pixels, batches that depend on (seed, step) alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeface.images.annotations import AnnotatedImage, read_annotations
from edgeface.training.augment import _colour, _crop, _generator, batch_indices, make_batch
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.options import AugmentOptions

PLAIN = AugmentOptions(brightness=0, contrast=0, saturation=0, hue_degrees=0, grey_share=0, blur_share=0)
SIZE = 128


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("cache") / "cache"
    return open_cache(folder, photos, read_annotations(photos / "faces.csv"))


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Black photos with one white rectangle each, which is the face."""
    folder = tmp_path_factory.mktemp("marked")
    images = []
    for i, (x, y, w, h) in enumerate([(40, 60, 90, 120), (300, 20, 40, 50), (100, 200, 200, 150)]):
        photo = np.full((400, 500, 3), 10, np.uint8)
        photo[y : y + h, x : x + w] = 250
        cv2.imwrite(str(folder / f"{i}.png"), photo)
        images.append(AnnotatedImage(f"{i}.png", np.array([[x, y, x + w, y + h]], np.float32), np.zeros(1, bool)))
    return open_cache(folder / "cache", folder, images)


def test_pixels_equal_an_affine_warp(cache: Cache, photos: Path) -> None:
    """Enlarging crops, which read level 0, against OpenCV's warpAffine.

    Tolerance 4 of 255: warpAffine rounds positions to 1/32 px, which moves a steep edge of the photo by a few grey
    levels. The one-pixel border is left out, where the two treat the outside differently.
    """
    options = dataclasses.replace(PLAIN, scale_low=1.0, scale_high=2.0, anchor_share=0.0, face_high=10.0)
    for step in range(3):
        batch = make_batch(cache, options, SIZE, 8, step, seed=5)
        index = batch_indices(len(cache), 8, step, 5)
        rand = torch.rand(8, 16, generator=_generator(5, 2 * step + 1)).unbind(1)
        scale, origin = _crop(cache, options, SIZE, index, rand)
        for i in range(8):
            height, width = (int(getattr(cache, f"level_{s}")[index[i], 0]) for s in ("height", "width"))
            start = int(cache.level_offset[index[i], 0])
            photo = cache.pixels[start : start + height * width].numpy().view(np.uint8).reshape(height, width, 4)
            s, (ox, oy) = float(scale[i]), origin[i].tolist()
            grid = np.array([[1 / s, 0, ox + 0.5 / s - 0.5], [0, 1 / s, oy + 0.5 / s - 0.5]])
            want = cv2.warpAffine(photo[..., :3].copy(), grid, (SIZE, SIZE),
                                  flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
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
    parts = [make_batch(cache, AugmentOptions(), SIZE, 12, 2, 0, slice(a, a + 4)) for a in (0, 4, 8)]
    assert torch.cat([p.images for p in parts]).equal(whole.images)
    assert torch.cat([p.boxes for p in parts]).equal(whole.boxes)
    assert torch.cat([p.image + 4 * i for i, p in enumerate(parts)]).equal(whole.image)


def test_compiled_sampling_is_the_same(cache: Cache) -> None:
    """Compiling reorders float32 sums of values up to 255: a few units in the last place, far below a grey level."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler")
    plain = make_batch(cache, AugmentOptions(), SIZE, 8, 1, 0).images
    compiled = make_batch(cache, AugmentOptions(), SIZE, 8, 1, 0, compiled=True).images
    torch.testing.assert_close(compiled, plain, atol=1e-3, rtol=0)


def test_every_epoch_sees_every_image_once() -> None:
    seen = torch.cat([batch_indices(50, 8, step, seed=3) for step in range(25)])
    for epoch in range(4):
        assert seen[epoch * 50 : (epoch + 1) * 50].sort().values.equal(torch.arange(50))
    assert not seen[:50].equal(seen[50:100])


def test_outside_the_image_is_black_whatever_the_colour_change(marked: Cache) -> None:
    options = dataclasses.replace(AugmentOptions(), scale_low=0.2, scale_high=0.21, anchor_share=0, brightness=200)
    batch = make_batch(marked, options, SIZE, 16, 0, seed=0)
    black = (batch.images == 0).all(1).float().mean((1, 2))
    assert (black > 0.2).all()


def test_colour_matrix_keeps_grey_grey_and_scales_contrast() -> None:
    """Saturation, hue and grey leave grey pixels as they are: only contrast and brightness change them."""
    half = torch.full((4,), 0.5)
    options = AugmentOptions(grey_share=0)
    matrix, offset = _colour(options, (torch.rand(4), torch.rand(4), half, torch.full((4,), 1.0), half))
    grey = torch.full((4, 1, 3), 100.0)
    torch.testing.assert_close(grey @ matrix + offset, torch.full((4, 1, 3), 150.0), atol=0.05, rtol=0)


def test_tiny_and_cut_faces_are_ignored_not_learned(marked: Cache) -> None:
    options = dataclasses.replace(PLAIN, min_face_px=1000.0)
    batch = make_batch(marked, options, SIZE, 8, 0, seed=0)
    assert len(batch.boxes) and batch.ignore.all()
