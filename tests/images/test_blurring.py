"""Blurred faces: what remains of them, and of the rest of the picture."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import ImageError, OptionError
from edgeface.images import blur, read_image

CELLS, MARGIN = 4, 0.2
"""what the docstring of blur promises: as many mean colours along a side, and this share of the box
around it"""
BOX = np.array([[100, 40, 220, 200]], np.float32)
SIZE = (round(160 * (1 + 2 * MARGIN)), round(120 * (1 + 2 * MARGIN)))
"""height and width in px of the area that is blurred around BOX"""


def region(image: Any) -> Any:
    top, left = round(40 - MARGIN * 160), round(100 - MARGIN * 120)
    return image[top : top + SIZE[0], left : left + SIZE[1]]


def test_all_else_stays(astronaut: Any) -> None:
    before = astronaut.copy()
    blurred = blur(astronaut, BOX)
    assert (astronaut == before).all()
    region(before)[:] = region(blurred)
    assert (before == blurred).all()
    assert (blur(astronaut, BOX[:0]) == astronaut).all()
    assert (blur(astronaut, BOX[:, [0, 1, 0, 3]]) == astronaut).all(), "a box without area"


def test_faces_of_equal_mean_colours_become_the_same_picture(astronaut: Any) -> None:
    """So only these mean colours can be recovered, by whatever method."""
    random = np.random.default_rng(0)
    other = astronaut.copy()
    rows, columns = (np.linspace(0, side, CELLS + 1).astype(int) for side in SIZE)
    for (top, bottom), (left, right) in itertools.product(
        itertools.pairwise(rows), itertools.pairwise(columns)
    ):
        cell = region(other)[top:bottom, left:right]
        pixels = random.permutation(cell.reshape(-1, 3))
        cell[:] = pixels.reshape(cell.shape)
    assert (region(other) != region(astronaut)).mean() > 0.9
    apart = blur(other, BOX).astype(int) - blur(astronaut, BOX)
    assert SIZE[0] % CELLS == SIZE[1] % CELLS == 0 and (apart == 0).all()


def test_faces_that_overlap_are_blurred_one_by_one(astronaut: Any) -> None:
    """Each becomes what it becomes alone; where they overlap, the later one is seen."""
    first, second = BOX, BOX + np.array([60, 50, 60, 50], np.float32)
    expected, alone = blur(astronaut, first), blur(astronaut, second)
    top, left = round(90 - MARGIN * 160), round(160 - MARGIN * 120)
    inside = slice(top, top + SIZE[0]), slice(left, left + SIZE[1])
    expected[inside] = alone[inside]
    assert (blur(astronaut, np.concatenate([first, second])) == expected).all()


@pytest.mark.parametrize("side", [5.0, 7.6, 12.3])
def test_small_faces_become_sixteen_colours_and_pixels_that_are_cut_count(side: float) -> None:
    """With the margin the box begins at 20.3 - .2 sides, rounded down, and ends rounded up."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    low, high = math.floor(20.3 - 0.2 * side), math.ceil(20.3 + 1.2 * side)
    same = noise.copy()
    same[low:high, low:high] = 128
    for image in (noise, same):
        blurred = blur(image, np.array([[20.3, 20.3, 20.3 + side, 20.3 + side]]))
        rows, columns = np.nonzero((blurred != image).any(2))
        if image is noise:
            assert (rows.min(), columns.min()) == (low, low)
            assert (rows.max(), columns.max()) == (high - 1, high - 1)
        else:  # nothing from beyond the box comes into it
            assert not len(rows)


def test_nothing_of_the_face_remains_above_its_cells(astronaut: Any) -> None:
    """Of the spectrum's energy above one period per cell, less than 1 % remains.

    The mean is left out."""

    def above(image: Any) -> float:
        grey = region(image).astype(float).mean(2)
        window = np.outer(*(np.hanning(side) for side in grey.shape))
        energy = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
        periods = [np.abs(np.fft.fftfreq(side, 1 / side)) for side in grey.shape]
        return float(energy[np.hypot(*np.meshgrid(*periods, indexing="ij")) > CELLS].sum())

    assert above(blur(astronaut, BOX)) < 0.01 * above(astronaut)


def test_the_network_that_ships_finds_no_face_in_it(astronaut: Any, hopper_path: Path) -> None:
    hopper = read_image(hopper_path)
    with Detector.open("edgeface-n") as detector:
        for photo in (astronaut, hopper):
            faces = detector.detect(photo)
            assert len(faces) == 1 and len(detector.detect(blur(photo, faces.boxes))) == 0


@pytest.mark.parametrize("box", [(-40, -30, 60, 50), (480, 470, 700, 690), (600, 0, 700, 90)])
def test_faces_at_the_edge_and_beyond(astronaut: Any, box: tuple[float, ...]) -> None:
    blurred = blur(astronaut, np.array([box], np.float32))
    assert blurred.shape == astronaut.shape
    assert (blurred == astronaut).all() == (box[0] >= 600)


def test_grey_images_frames_of_opencv_and_one_box(astronaut: Any) -> None:
    blurred = blur(astronaut, BOX)
    assert (blur(astronaut, BOX[0]) == blurred).all()
    assert (blur(astronaut[:, :, ::-1], BOX)[:, :, ::-1] == blurred).all()
    grey = astronaut[:, :, :1]
    assert (blur(grey, BOX) == blurred[:, :, :1]).all()
    assert (blur(grey[:, :, 0], BOX) == blurred[:, :, 0]).all()


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (BOX * np.nan, "finite numbers"),
        (np.array([[100, 40, np.inf, 200]]), "finite numbers"),
        (BOX[:, [2, 3, 0, 1]], "x1, y1, x2, y2 in px, got x2 below x1"),
        (np.array([[220, 200, 120, 160]]), "x1, y1, x2, y2 in px, got x2 below x1"),
        ([[100, 40, 220, 10**400]], r"boxes must be \[N, 4\]"),
        (np.ones((1, 5)), r"boxes must be \[N, 4\] .* got \[1, 5\]"),
        (Detections(BOX, np.ones(1, np.float32), np.ones((1, 5, 2), np.float32)), "Detections"),
    ],
)
def test_boxes_that_would_leave_a_face_as_it_is_are_refused(
    astronaut: Any, boxes: Any, words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        blur(astronaut, boxes)


def test_what_is_no_image_is_refused(astronaut: Any) -> None:
    images: Any = (None, "photo.jpg", astronaut / 255, astronaut.astype(int), astronaut[None])
    for image in images:
        with pytest.raises(ImageError, match="expected a uint8 RGB array"):
            blur(image, BOX)


Command = Callable[..., tuple[int, str, str]]


def test_saved_photos_hold_no_face_and_no_mark(
    edgeface: Command, hopper_path: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.png"
    code, out, err = edgeface("detect", hopper_path, "--blur", "--save", saved, "--format", "json")
    assert code == 0 and "a face that is not found is not blurred" in err
    (item,) = json.loads(out)
    photo = read_image(hopper_path)
    expected = blur(photo, np.array([face["box"] for face in item["faces"]], np.float32))
    assert (read_image(saved) == expected).all()


def test_a_face_that_is_missed_for_a_moment_stays_blurred_while_it_is_followed(
    edgeface: Command, astronaut: Any, tmp_path: Path
) -> None:
    """In two of the frames, all below the eyes is covered, and no face is found."""
    clip, saved = tmp_path / "clip.avi", tmp_path / "saved.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (512, 512))
    frame = cv2.cvtColor(astronaut, cv2.COLOR_RGB2BGR)
    covered = frame.copy()
    covered[100:180] = 30
    for i in range(9):
        writer.write(covered if i in (4, 5) else frame)
    writer.release()
    # A threshold between the two scores holds for whatever weights ship.
    with Detector.open("edgeface-n", size=320, score_threshold=0.01) as detector:
        scores = [detector.detect(f[:, :, ::-1].copy()).scores.max() for f in (frame, covered)]
    threshold = sum(scores) / 2
    assert scores[0] - scores[1] > 0.1
    arguments = ("--blur", "--track", "--save", saved, "--format", "jsonl", "--size", "320")
    code, out, err = edgeface("detect", clip, *arguments, "--score-threshold", threshold)
    assert code == 0, err
    found = [len(json.loads(line)["faces"]) for line in out.splitlines()]
    assert found == [1, 1, 1, 1, 0, 0, 1, 1, 1]
    capture = cv2.VideoCapture(str(saved))
    for i in range(9):
        good, picture = capture.read()
        # The part around the eyes, all of which lies in one or two cells.
        assert good and cv2.Laplacian(picture[80:130, 180:260], cv2.CV_64F).std() < 6, i
    assert cv2.Laplacian(frame[80:130, 180:260], cv2.CV_64F).std() > 12


def test_contradictions_are_refused(edgeface: Command, hopper_path: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--blur",), "add --save or --show"),
        (("--blur", "--crop", tmp_path / "faces"), "the faces that --blur hides"),
        (("--track",), "these are photos"),
    ):
        code, out, err = edgeface("detect", hopper_path, *arguments)
        assert code == 2 and out == "" and words in err, err
