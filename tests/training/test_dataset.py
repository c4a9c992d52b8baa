"""The decoded cache: it holds the photos exactly, and a cache of other data is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeface.errors import DataError, ImageError
from edgeface.images import Image, read_image
from edgeface.images.annotations import read_annotations
from edgeface.training import read_photos
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
    for path in photos.glob("*.png"):  # same size and time: the content is not read again
        before = path.stat()
        content = path.read_bytes()
        path.write_bytes(bytes(len(content)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        second = open_cache(tmp_path / "cache", photos, images)
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert first.pixels.equal(second.pixels)


def test_photos_that_changed_or_went_are_noticed(photos: Path, tmp_path: Path) -> None:
    images = read_annotations(photos / "faces.csv")
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    open_cache(tmp_path / "cache", copy, images)
    with pytest.raises(DataError, match="cannot read photo"):
        open_cache(tmp_path / "cache", tmp_path / "no-such-folder", images)
    (copy / "0.png").write_bytes((copy / "1.png").read_bytes())
    with pytest.raises(DataError, match="photos that have changed since: delete it"):
        open_cache(tmp_path / "cache", copy, images)


def test_a_cache_knows_the_data_that_it_was_made_of(photos: Path, tmp_path: Path) -> None:
    """The data digests depend on boxes and photo contents only.

    Times and folders of the photos and the device of the cache do not matter.
    """
    images = read_annotations(photos / "faces.csv")
    first = open_cache(tmp_path / "first", photos, images).data
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy, copy_function=shutil.copyfile)
    again = open_cache(tmp_path / "again", copy, images)
    assert again.data == again.to(torch.device("cpu")).data == first
    moved = [dataclasses.replace(images[0], boxes=images[0].boxes + 1), *images[1:]]
    (copy / "0.png").write_bytes((copy / "1.png").read_bytes())
    for made, changed in ((copy, "contents"), (photos, "sha256")):
        of = images if changed == "contents" else moved
        found = open_cache(tmp_path / changed, made, of).data
        assert {name for name in first if first[name] != found[name]} == {changed}


def test_a_copy_of_the_photos_has_the_same_cache(photos: Path, tmp_path: Path) -> None:
    """Copies with other times but the same bytes are compared once and then remembered."""
    images = read_annotations(photos / "faces.csv")
    copy, seen = tmp_path / "photos", []
    shutil.copytree(photos, copy, copy_function=shutil.copyfile)
    first = open_cache(tmp_path / "cache", photos, images)

    def told(what: str, done: int, total: int, more: str = "", /) -> None:
        seen.append(what)

    assert open_cache(tmp_path / "cache", copy, images, progress=told).pixels.equal(first.pixels)
    assert set(seen) == {"comparing photos"}
    seen.clear()
    assert open_cache(tmp_path / "cache", copy, images, progress=told).pixels.equal(first.pixels)
    assert not seen
    before = (copy / "0.png").stat()
    content = bytearray((copy / "0.png").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "0.png").write_bytes(content)
    os.utime(copy / "0.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(DataError, match="photos that have changed since: delete it"):
        open_cache(tmp_path / "cache", copy, images)


def test_an_early_cache_says_nothing_of_its_photos(photos: Path, tmp_path: Path) -> None:
    images = read_annotations(photos / "faces.csv")
    first = open_cache(tmp_path / "cache", photos, images)
    path = tmp_path / "cache" / "source.json"
    source = json.loads(path.read_text())
    del source["photos"]
    path.write_text(json.dumps(source))
    assert open_cache(tmp_path / "cache", photos, images).pixels.equal(first.pixels)


def test_photos_that_cannot_be_read_are_told_each_time_and_left_out(
    photos: Path, tmp_path: Path
) -> None:
    images = read_annotations(photos / "faces.csv")
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    (copy / "1.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1\.png"):
        open_cache(tmp_path / "cache", copy, images)
    for _ in range(2):
        told: list[ImageError] = []
        cache = open_cache(tmp_path / "cache", copy, images, on_error=told.append)
        assert len(cache) == 4 and cache.count.tolist() == [1, 1, 1, 0]
        assert len(told) == 1 and "1.png: not an image" in str(told[0])
    for path in copy.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 5 photos"):
        open_cache(tmp_path / "other", copy, images, on_error=told.append)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "0.png,.1,.2,.3,.4\n1.png,.1,.2,.3,.9\n",
            "2 photos, 2 faces, 0 that can be learned, 2 of "
            "less than 3 px; are these shares of the image",
        ),
        ("0.png,,,,\n1.png,,,,\n", "2 photos, 0 faces, 0 that can be learned; accepted"),
        (
            "0.png,10,10,12,12\n",
            "1 photo, 1 face, 0 that can be learned, 1 of less than",
        ),
        ("0.png\n2\n1 2 0 0 0 0 0 1 0 0\n5 5 9 9 0 0 0 1 0 0\n", "2 marked invalid or of no size"),
    ],
)
def test_annotations_in_which_nothing_can_be_learned_are_refused(
    photos: Path, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "faces.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        read_photos(photos, tmp_path / "faces.txt", None)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_missing_photos_are_listed_together_with_their_lines(photos: Path, tmp_path: Path) -> None:
    lines = ["0.png,10,10,90,90", *(f"gone{i}.png,10,10,90,90" for i in range(7))]
    (tmp_path / "faces.csv").write_text("image,x1,y1,x2,y2\n" + "\n".join(lines))
    with pytest.raises(DataError) as caught:
        read_photos(photos, tmp_path / "faces.csv", None)
    assert "7 of 8 photos are not in" in str(caught.value)
    assert "gone0.png (line 3), gone1.png (line 4)" in str(caught.value)


def test_the_given_cases_are_refused_by_name(shared: Path, photos: Path) -> None:
    cases = shared / "cases" / "annotations"
    if not cases.is_dir():
        pytest.skip("the shared cases are not there")
    for name, words in {
        "norm.csv": "4 photos, 4 faces, 0 that can be learned",
        "noface.csv": "4 photos, 0 faces",
        "tiny.csv": "2 photos, 2 faces",
        "wider_inv.txt": "0 that can be learned",
        "semicolon_nohead.csv": "semicolons; accepted: commas, with the header image,x1,y1,x2,y2",
        "tab.csv": "tabs; accepted: commas",
    }.items():
        with pytest.raises(DataError) as caught:
            read_photos(photos, cases / name, None)
        assert words in str(caught.value) and name in str(caught.value)


def test_other_data_is_refused(photos: Path, tmp_path: Path) -> None:
    images = read_annotations(photos / "faces.csv")
    open_cache(tmp_path / "cache", photos, images)
    moved = dataclasses.replace(images[0], boxes=images[0].boxes + 1)
    points = np.zeros((len(moved.boxes), 5, 2), np.float32)
    for other in (moved, dataclasses.replace(images[0], landmarks=points)):
        with pytest.raises(
            DataError, match=r"other images, boxes or landmarks: delete it .* begun another --out"
        ):
            open_cache(tmp_path / "cache", photos, [other, *images[1:]])


@pytest.mark.parametrize("damage", ["pixels.u32", "index.safetensors", "source.json"])
def test_damaged_cache_is_refused(photos: Path, tmp_path: Path, damage: str) -> None:
    images = read_annotations(photos / "faces.csv")
    open_cache(tmp_path / "cache", photos, images)
    path = tmp_path / "cache" / damage
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="delete"):
        open_cache(tmp_path / "cache", photos, images)


def test_a_folder_of_something_else_is_no_cache(photos: Path, tmp_path: Path) -> None:
    """The error does not advise to delete the folder; an empty folder becomes the cache."""
    images = read_annotations(photos / "faces.csv")
    with pytest.raises(DataError, match=r"holds other files .*: name another folder"):
        open_cache(photos, photos, images)
    (tmp_path / "cache").mkdir()
    assert len(open_cache(tmp_path / "cache", photos, images)) == len(images)


def test_nothing_is_left_to_learn_from(photos: Path, tmp_path: Path) -> None:
    first, *others = read_annotations(photos / "faces.csv")
    without = [dataclasses.replace(i, boxes=i.boxes[:0], invalid=i.invalid[:0]) for i in others]
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    (copy / first.path).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of .* cannot be read, and no other has a face"):
        open_cache(tmp_path / "cache", copy, [first, *without], on_error=print)
    assert list(tmp_path.iterdir()) == [copy]


def test_failed_build_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    (copy / "coffee.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="not an image"):
        open_cache(tmp_path / "cache", copy, read_annotations(photos / "faces.csv"))
    assert list(tmp_path.iterdir()) == [copy]


def test_box_outside_its_photo_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("image,x1,y1,x2,y2\n0.png,600,600,700,700\n")
    with pytest.raises(DataError, match=r"0\.png"):
        open_cache(tmp_path / "cache", photos, read_annotations(tmp_path / "faces.csv"))
