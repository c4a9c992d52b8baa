"""The decoded cache: what goes in comes out, and a cache of other data is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.errors import DataError, ImageError
from edgeface.images import Image, read_image
from edgeface.images.annotations import read_annotations
from edgeface.training.dataset import LEVELS, LONG_SIDE_PX, Cache, open_cache


def unpack(cache: Cache, image: int, level: int) -> Image:
    start = int(cache.level_offset[image, level])
    height, width = int(cache.level_height[image, level]), int(cache.level_width[image, level])
    packed: Image = cache.pixels[start : start + height * width].numpy().view(np.uint8)
    return packed.reshape(height, width, 4)[..., :3]


@pytest.mark.parametrize("in_memory", [False, True])
def test_cache_holds_the_photos(photos: Path, tmp_path: Path, in_memory: bool) -> None:
    images = read_annotations(photos / "faces.csv")
    cache = open_cache(tmp_path / "cache", photos, images, in_memory)
    assert len(cache) == 5
    assert cache.count.tolist() == [1, 1, 1, 1, 0]
    for i, image in enumerate(images):
        photo = read_image(photos / image.path)
        assert max(photo.shape[:2]) <= LONG_SIDE_PX
        np.testing.assert_array_equal(unpack(cache, i, 0), photo)
        for level in range(1, LEVELS):
            height, width = unpack(cache, i, level - 1).shape[:2]
            half = cv2.resize(
                unpack(cache, i, level - 1), (width // 2, height // 2), interpolation=cv2.INTER_AREA
            )
            np.testing.assert_array_equal(unpack(cache, i, level), half)


def test_large_photo_is_reduced_with_its_boxes(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), np.full((900, 1600, 3), 77, np.uint8))
    (tmp_path / "faces.csv").write_text("image,x1,y1,x2,y2\nlarge.png,800,450,1600,900\n")
    cache = open_cache(tmp_path / "cache", tmp_path, read_annotations(tmp_path / "faces.csv"))
    assert (int(cache.level_width[0, 0]), int(cache.level_height[0, 0])) == (640, 360)
    np.testing.assert_allclose(cache.boxes.numpy(), [[320, 180, 640, 360]])


def test_second_opening_decodes_nothing(photos: Path, tmp_path: Path) -> None:
    images = read_annotations(photos / "faces.csv")
    first = open_cache(tmp_path / "cache", photos, images)
    second = open_cache(tmp_path / "cache", tmp_path / "no-such-folder", images)
    assert first.pixels.equal(second.pixels)


def test_other_data_is_refused(photos: Path, tmp_path: Path) -> None:
    images = read_annotations(photos / "faces.csv")
    open_cache(tmp_path / "cache", photos, images)
    moved = [dataclasses.replace(images[0], boxes=images[0].boxes + 1), *images[1:]]
    with pytest.raises(DataError, match="other images or boxes"):
        open_cache(tmp_path / "cache", photos, moved)


@pytest.mark.parametrize("damage", ["pixels.u32", "index.safetensors", "source.json"])
def test_damaged_cache_is_refused(photos: Path, tmp_path: Path, damage: str) -> None:
    images = read_annotations(photos / "faces.csv")
    open_cache(tmp_path / "cache", photos, images)
    path = tmp_path / "cache" / damage
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="delete"):
        open_cache(tmp_path / "cache", photos, images)


def test_failed_build_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    images = read_annotations(photos / "faces.csv")
    with pytest.raises(ImageError, match="no image"):
        open_cache(
            tmp_path / "cache",
            photos,
            [*images, dataclasses.replace(images[0], path="missing.png")],
        )
    assert list(tmp_path.iterdir()) == []


def test_box_outside_its_photo_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("image,x1,y1,x2,y2\n0.png,600,600,700,700\n")
    with pytest.raises(DataError, match=r"0\.png"):
        open_cache(tmp_path / "cache", photos, read_annotations(tmp_path / "faces.csv"))
