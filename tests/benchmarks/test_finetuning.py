"""The simulated cameras of benchmarks.research.finetuning keep faces in their boxes.

Half of the photos are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.research.finetuning import CAMERAS, write_photos
from edgeface.evaluation.wider import ImageFaces
from edgeface.images import Image, read_image
from edgeface.images.annotations import read_annotations
from edgeface.images.marked import write_image

BOXES = np.array([[60.0, 50, 40, 60], [560, 20, 30, 44], [300, 190, 48, 60], [20, 400, 24, 30]])


@pytest.mark.parametrize("camera", [name for name in CAMERAS if name != "night"])
@pytest.mark.parametrize("height", [448, 640])
def test_boxes_go_with_the_photo(camera: str, height: int) -> None:
    """A bright ellipse drawn in each box lies in the new box, to within the blur of resampling."""
    for box in BOXES:
        x, y, w, h = box
        rows, columns = np.mgrid[0.5:height, 0.5:640]
        inside = ((columns - x) / w * 2 - 1) ** 2 + ((rows - y) / h * 2 - 1) ** 2 < 1
        photo = np.repeat(np.uint8(255) * inside[..., None], 3, axis=2)
        changed, boxes = CAMERAS[camera](photo, box[None], np.random.default_rng(0))
        assert changed.shape == photo.shape and changed.dtype == np.uint8
        bright = changed[..., 0] > 127
        if camera == "negative":
            bright = ~bright
        high, wide = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
        seen = [wide[0], high[0], wide[-1] + 1, high[-1] + 1]
        x, y, w, h = boxes[0]
        assert [x, y, x + w, y + h] == pytest.approx(seen, abs=1.5)


def test_a_night_is_dark_grey_and_the_same_each_time(astronaut: Image) -> None:
    first, second = (
        CAMERAS["night"](astronaut, BOXES, np.random.default_rng(3))[0] for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert (first[..., :1] == first).all() and first.mean() < astronaut.mean() / 2


def test_every_second_photo_is_kept_aside(astronaut: Image, tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", astronaut)
    counts = {"hard": np.array([True, False])}
    boxes = np.array([[170.0, 60, 105, 138], [300, 300, 20, 20]])
    faces = {
        tmp_path / f"{'../' + tmp_path.name + '/' if n else ''}photo.png": ImageFaces(boxes, counts)
        for n in range(2)
    }
    write_photos("upside down", faces, tmp_path, 0)
    scale = 640 / 512
    for n, name in enumerate(("learned.txt", "kept.txt")):
        (image,) = read_annotations(tmp_path / name)
        assert image.path == f"000{n}.png"
        assert read_image(tmp_path / image.path).shape == (640, 640, 3)
        assert image.invalid.tolist() == [False, True]
        x, y, w, h = boxes[0] * scale
        assert image.boxes[0] == pytest.approx(
            [640 - x - w, 640 - y - h, 640 - x, 640 - y], abs=0.02
        )
