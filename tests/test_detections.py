"""Detections: round trips and drawing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import cv2
import numpy as np
import pytest

from edgeface.detections import Detections
from edgeface.errors import DataError, ImageError
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
    assert set(detections.to_json()[0]) == {"box", "score", *(["landmarks"] if landmarks else [])}
    if landmarks:
        points = detections.to_json()[2]["landmarks"]
        assert detections.landmarks is not None
        assert np.array_equal(np.array(points, np.float32), detections.landmarks[2])


@pytest.mark.parametrize("landmarks", [False, True])
def test_a_face_by_its_place(landmarks: bool) -> None:
    faces = some(landmarks)
    assert [face.score for face in faces] == [faces[i].score for i in range(3)]
    assert faces[-1].score == pytest.approx(1 / 3)
    assert np.array_equal(faces[1].box, faces.boxes[1])
    if faces.landmarks is None:
        assert faces[0].landmarks is None
    else:
        points = faces[2].landmarks
        assert points is not None and np.array_equal(points, faces.landmarks[2])
    with pytest.raises(IndexError):
        faces[3]


@pytest.mark.parametrize("landmarks", [False, True])
def test_some_of_the_faces_are_detections(landmarks: bool) -> None:
    faces = some(landmarks)
    assert faces[:] == faces and len(faces[3:]) == 0
    assert [face.score for face in faces[1:]] == [faces[1].score, faces[2].score]
    assert faces[:1] == faces[faces.scores > 0.8] == faces[np.array([0])]
    assert faces[:1].to_json() == faces.to_json()[:1]
    assert (faces[::2].landmarks is not None) == landmarks


FACE: dict[str, Any] = {"box": [1, 2, 3, 4], "score": 0.5}
POINTS = {**FACE, "landmarks": [[0, 0]] * 5}


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        (None, "got NoneType"),
        ("[]", "got str"),
        ("", "got str"),
        ({"faces": [FACE]}, "got dict"),
        ({}, "got dict"),
        ([FACE, "a face"], "string indices"),
        ([{"box": [1, 2, 3, 4]}], "a face has no 'score'"),
        ([{**FACE, "box": [1, 2]}], r"got shape \[1, 2\] instead of \[1, 4\]"),
        ([{**FACE, "box": [1, 2]}] * 2, r"got shape \[2, 2\] instead of \[2, 4\]"),
        ([{**FACE, "score": "high"}], "could not convert string to float: 'high'"),
        ([{**FACE, "score": float("nan")}], "not all numbers are finite"),
        ([{**FACE, "box": [1, 2, 3, 1e300]}], "not all numbers are finite"),
        ([{**FACE, "box": [1, 2, 3, 10**400]}], "int too large"),
        ([FACE, POINTS], "some faces have landmarks, others none"),
        ([POINTS, FACE], "some faces have landmarks, others none"),
        ([{**FACE, "landmarks": [[0] * 5] * 2}], r"instead of \[1, 5, 2\]"),
    ],
)
def test_what_holds_no_faces_is_refused_in_one_line(faces: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"as Detections.to_json gives them: .*{words}"):
        Detections.from_json(faces)


def test_empty() -> None:
    empty = Detections.empty()
    assert len(empty) == 0 and empty.to_json() == [] and Detections.from_json([]) == empty
    with_landmarks = dataclasses.replace(empty, landmarks=np.zeros((0, 5, 2), np.float32))
    assert Detections.from_json(with_landmarks.to_json()) == with_landmarks


def test_equality() -> None:
    assert some() == some() and some() != some(landmarks=True) and some() != Detections.empty()
    assert some() != dataclasses.replace(some(), scores=np.zeros(3, np.float32))
    assert some() != 1


BOXES, SCORES = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ((BOXES, SCORES[:1]), r"boxes \[2, 4\], scores \[1\], landmarks None"),
        ((BOXES[0], SCORES), r"boxes \[4\], scores \[2\]"),
        ((BOXES, SCORES[:, None]), r"scores \[2, 1\]"),
        ((BOXES, 0.5), "scores float"),
        ((BOXES.tolist(), SCORES.tolist()), "boxes list, scores list"),
        ((BOXES, SCORES, np.zeros((2, 10), np.float32)), r"landmarks \[2, 10\]"),
    ],
)
def test_shapes_are_checked(given: Any, got: str) -> None:
    with pytest.raises(DataError, match=rf"^Detections take arrays: boxes \[N, 4\].* got .*{got}"):
        Detections(*given)


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


def test_the_score_of_a_face_at_the_upper_edge_stands_inside_the_image() -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    faces = Detections(np.array([[100, 0, 300, 400]], np.float32), np.array([0.875], np.float32))
    tag = (draw(image, faces) != draw(image, faces, scores=False)).any(2)
    rows, columns = np.flatnonzero(tag.any(1)), np.flatnonzero(tag.any(0))
    assert rows[0] < 5 and 10 < rows[-1] < 40 and columns[0] >= 100 and len(columns) > 25


def test_no_line_leads_to_a_landmark_that_is_unknown() -> None:
    """Neither to the corner of the image, where a place of zeros would be."""
    points = np.array([[[330, 340], [370, 340], [np.nan, 360], [335, 380], [365, 380]]], np.float32)
    faces = Detections(np.array([[300, 300, 400, 400]], np.float32), np.ones(1, np.float32), points)
    picture = draw(np.zeros((600, 600, 3), np.uint8), faces, scores=False)
    assert not picture[:295].any() and not picture[:, :295].any()
    assert picture[340, 330].tolist() == picture[340, 370].tolist() == [0, 255, 255]
    assert picture[380, 350].any(), "the line between the corners of the mouth"
    assert not picture[340, 350].any(), "eyes are joined with the nose, not with each other"


CYAN, YELLOW, MAGENTA = [0, 255, 255], [255, 255, 0], [255, 0, 255]


def drawn_face(side: int, x: int = 100, y: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Picture of 600x600 px with one face of ``side`` px at x, y, and its landmarks in whole px."""
    shares = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    points = shares * side + (x, y)
    box = np.array([[x, y, x + side, y + side]], np.float32)
    faces = Detections(box, np.ones(1, np.float32), points[None].astype(np.float32))
    return draw(np.zeros((600, 600, 3), np.uint8), faces, scores=False), np.rint(points).astype(int)


@pytest.mark.parametrize("side", [10, 20, 40, 100, 400])
def test_landmarks_have_their_colours_and_small_faces_keep_them_apart(side: int) -> None:
    picture, points = drawn_face(side)
    colours = (CYAN, CYAN, YELLOW, MAGENTA, MAGENTA)
    for (x, y), colour in zip(points, colours, strict=True):
        assert picture[y, x].tolist() == colour
    for colour, count in ((CYAN, 2), (YELLOW, 1), (MAGENTA, 2)):
        dots = (picture == colour).all(2).astype(np.uint8)
        assert cv2.connectedComponents(dots)[0] - 1 == count, "dots of one kind touch"


def test_lines_join_the_landmarks_of_one_face() -> None:
    picture, points = drawn_face(200)
    for start, end in ((0, 2), (1, 2), (3, 4)):
        x, y = (points[start] + points[end]) // 2
        assert picture[y - 1 : y + 2, x - 1 : x + 2, 1].max() > 100
    x, y = (points[0] + points[3]) // 2
    assert not picture[y - 2 : y + 3, x - 2 : x + 3].any(), "an eye and the mouth are not joined"


def test_landmarks_far_outside_are_drawn_as_far_as_they_are_seen() -> None:
    points = np.array([[[-1e30, 5], [1e30, 5], [8, 1e9], [4, 9], [9, 9]]], np.float32)
    faces = Detections(np.array([[0, 0, 16, 16]], np.float32), np.ones(1, np.float32), points)
    picture = draw(np.zeros((16, 16, 3), np.uint8), faces, scores=False)
    assert picture[9, 4].tolist() == picture[9, 9].tolist() == MAGENTA


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_nowhere_does_not_keep_the_rest_from_being_drawn(value: float) -> None:
    boxes = np.array([[2, 2, value, 40], [50, 50, 90, 90]], np.float32)
    points = np.full((2, 5, 2), 70, np.float32)
    points[1, 0], points[1, 3] = (value, 60), (60, 80)
    picture = draw(
        np.zeros((100, 100, 3), np.uint8), Detections(boxes, np.ones(2, np.float32), points)
    )
    assert picture[90, 70].tolist() == [0, 255, 0] and picture[80, 60].tolist() == MAGENTA
    # The visible part of a box that reaches beyond the image is drawn; a box with NaN is not drawn.
    assert bool(picture[20, 2].any()) == (not np.isnan(value))


def test_draw_takes_what_a_detector_takes() -> None:
    assert draw(np.zeros((9, 9), np.uint8), Detections.empty()).shape == (9, 9, 3)
    for bad in (np.zeros((9, 9, 3)), "photo.jpg"):
        with pytest.raises(ImageError, match="expected a uint8 RGB array"):
            draw(bad, Detections.empty())  # type: ignore[arg-type]


def test_lines_grow_with_the_image() -> None:
    widths = []
    for side in (300, 3000):
        box = np.array([[side / 4, side / 4, side / 2, side / 2]], np.float32)
        drawn = draw(
            np.zeros((side, side, 3), np.uint8),
            Detections(box, np.ones(1, np.float32)),
            scores=False,
        )
        widths.append(int(drawn[side * 3 // 8, : side * 3 // 8, 1].astype(bool).sum()))
    assert widths[0] == 1 and 8 <= widths[1] <= 12


@pytest.mark.parametrize("shape", [(1, 1), (20, 20000), (5, 7)])
def test_draw_on_any_image(shape: tuple[int, int]) -> None:
    faces = Detections(
        np.array([[0, 0, shape[1], shape[0]]], np.float32),
        np.ones(1, np.float32),
        np.zeros((1, 5, 2), np.float32),
    )
    image: Any = np.zeros((*shape, 3), np.uint8)[:, ::-1]
    assert draw(image, faces).shape == (*shape, 3)
