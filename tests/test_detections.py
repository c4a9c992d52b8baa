"""Detections: round trips and drawing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from edgeface.detections import Detections
from edgeface.images.drawing import draw


def some(landmarks: bool = False) -> Detections:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 100, (3, 2))
    boxes = np.concatenate((corner, corner + 50), 1).astype(np.float32)
    points = random.uniform(0, 100, (3, 5, 2)).astype(np.float32) if landmarks else None
    return Detections(boxes, np.array([0.9, 0.7, 1 / 3], np.float32), points)


@pytest.mark.parametrize("landmarks", [False, True])
def test_json_gives_the_same_bits_back(landmarks: bool) -> None:
    detections = some(landmarks)
    text = json.dumps(detections.to_json())
    assert Detections.from_json(json.loads(text)) == detections
    assert '"score": 0.9' in text and "0.89999" not in text


def test_empty() -> None:
    empty = Detections.empty()
    assert len(empty) == 0 and empty.to_json() == [] and Detections.from_json([]) == empty


def test_equality() -> None:
    assert some() == some() and some() != some(landmarks=True) and some() != Detections.empty()
    assert some() != dataclasses.replace(some(), scores=np.zeros(3, np.float32))
    assert some() != 1


def test_shapes_are_checked() -> None:
    with pytest.raises(AssertionError):
        Detections(np.zeros((2, 4), np.float32), np.zeros(3, np.float32))


def test_draw_leaves_the_image_alone_and_marks_the_box() -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    faces = Detections(np.array([[100, 200, 300, 400]], np.float32), np.array([0.875], np.float32))
    drawn = draw(image, faces)
    assert not image.any() and drawn.shape == image.shape
    for x, y in ((100, 300), (300, 300), (200, 400), (250, 200)):
        assert drawn[y, x].tolist() == [0, 255, 0]
    assert not drawn[300, 200].any()
    assert drawn[180:200].any(), "the score stands above the box"
    assert not draw(image, faces, scores=False)[180:195].any()


def test_lines_grow_with_the_image() -> None:
    widths = []
    for side in (300, 3000):
        box = np.array([[side / 4, side / 4, side / 2, side / 2]], np.float32)
        drawn = draw(np.zeros((side, side, 3), np.uint8), Detections(box, np.ones(1, np.float32)), scores=False)
        widths.append(int(drawn[side * 3 // 8, : side * 3 // 8, 1].astype(bool).sum()))
    assert widths[0] == 1 and 8 <= widths[1] <= 12


@pytest.mark.parametrize("shape", [(1, 1), (20, 20000), (5, 7)])
def test_draw_on_any_image(shape: tuple[int, int]) -> None:
    faces = Detections(np.array([[0, 0, shape[1], shape[0]]], np.float32), np.ones(1, np.float32),
                       np.zeros((1, 5, 2), np.float32))
    image: Any = np.zeros((*shape, 3), np.uint8)[:, ::-1]
    assert draw(image, faces).shape == (*shape, 3)
