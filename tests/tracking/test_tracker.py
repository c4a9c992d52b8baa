"""Lasting numbers of faces, on known motion and on a real photo that is moved around."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from edgeface.decode import box_iou
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import OptionError
from edgeface.tracking import Tracker
from edgeface.tracking.kalman import Motion

POSITION_SHARE, VELOCITY_SHARE = 0.05, 0.00625
"""sigma_p and sigma_v of BoT-SORT (arXiv 2206.14651, equations 5 and 6)"""


def faces_at(*boxes: Any) -> Detections:
    """Detections of faces with the score .9."""
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)
    )


def square(x: float, y: float, side: float = 40) -> tuple[float, float, float, float]:
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def test_the_filters_are_opencvs_kalman_filter() -> None:
    """Our four filters of two states equal one filter of eight states, as in BoT-SORT."""
    whole = cv2.KalmanFilter(8, 4, 0, cv2.CV_64F)
    whole.transitionMatrix = np.eye(8) + np.eye(8, k=4)
    whole.measurementMatrix = np.eye(4, 8)
    box = np.array(square(100, 80) + np.array((0, 0, 10, 30)))
    measured = np.array((box[:2] + box[2:]) / 2).tolist() + (box[2:] - box[:2]).tolist()
    sides = np.array(measured)[[2, 3, 2, 3]]
    whole.statePost = np.concatenate((measured, np.zeros(4)))[:, None]
    first = np.concatenate((2 * POSITION_SHARE * sides, 10 * VELOCITY_SHARE * sides))
    whole.errorCovPost = np.diag(first**2)
    motion = Motion.begin(box[None])
    random = np.random.default_rng(0)
    for step in range(30):
        sides = whole.statePost.ravel()[[2, 3, 2, 3]]
        noise = np.concatenate((POSITION_SHARE * sides, VELOCITY_SHARE * sides))
        whole.processNoiseCov = np.diag(noise**2)
        whole.predict()
        motion.predict()
        if step % 3:  # in every third frame no face is seen
            sides = whole.statePre.ravel()[[2, 3, 2, 3]]
            whole.measurementNoiseCov = np.diag((POSITION_SHARE * sides) ** 2)
            seen = box + 3 * step + random.normal(0, 1, 4)
            whole.correct(np.concatenate(((seen[:2] + seen[2:]) / 2, seen[2:] - seen[:2]))[:, None])
            motion.correct(np.array([0]), seen[None])
        else:
            whole.statePost, whole.errorCovPost = whole.statePre, whole.errorCovPre
        state = motion.mean[0].T.reshape(8)
        np.testing.assert_allclose(state, whole.statePost.ravel(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            motion.covariance[0, :, 0, 1],
            np.diagonal(whole.errorCovPost[:4, 4:]),
            rtol=1e-9,
            atol=1e-9,
        )


def test_faces_that_cross_keep_their_numbers() -> None:
    """The faces overlap for several frames, in which the nearest box is the wrong one."""
    tracker = Tracker()
    random = np.random.default_rng(1)
    for step in range(80):
        right, left = square(20 + 4 * step, 100), square(340 - 4 * step, 102)
        noise = random.normal(0, 0.7, (2, 4))
        numbers = tracker.update(faces_at(right + noise[0], left + noise[1]))
        assert numbers.tolist() == [1, 2], step


def test_who_is_hidden_in_passing_comes_out_with_the_same_number() -> None:
    """The face behind is not detected while they overlap by IoU > .2, as NMS would drop it."""
    tracker = Tracker()
    gaps = 0
    for step in range(80):
        front, behind = square(20 + 4 * step, 100), square(340 - 4 * step, 110)
        overlap = box_iou(np.array([front]), np.array([behind]))[0, 0]
        shown = (front,) if overlap > 0.2 else (front, behind)
        gaps += len(shown) == 1
        assert tracker.update(faces_at(*shown)).tolist() == [1, 2][: len(shown)], step
    assert gaps > 3


@pytest.mark.parametrize("missed", [1, 10, 30])
def test_a_gap_ends_with_the_same_number_and_a_longer_one_does_not(missed: int) -> None:
    for most, expected in ((missed, 1), (missed - 1, 2)):
        tracker = Tracker(max_gap=most)
        for step in range(20):
            assert tracker.update(faces_at(square(50 + 3 * step, 60 + step))).tolist() == [1]
        for step in range(20, 20 + missed):
            assert tracker.update(faces_at()).tolist() == []
            hidden = tracker.hidden()
            if step - 20 < most:  # the hidden face keeps moving
                assert box_iou(hidden, np.array([square(50 + 3 * step, 60 + step)])).item() > 0.7
        step = 20 + missed
        assert tracker.update(faces_at(square(50 + 3 * step, 60 + step))).tolist() == [expected]


def test_a_hidden_face_keeps_the_size_that_it_had_and_moves_on() -> None:
    tracker = Tracker()
    for step in range(20):  # it comes nearer
        tracker.update(faces_at(square(50 + 3 * step, 60, 40 + 2 * step)))
    hidden = []
    for _ in range(10):
        tracker.update(faces_at())
        hidden.append(tracker.hidden()[0])
    sides = np.array(hidden)[:, 2:] - np.array(hidden)[:, :2]
    assert 78 < sides[0].min() <= sides[0].max() < 82
    np.testing.assert_allclose(sides, sides[:1].repeat(10, 0))
    assert np.diff(np.array(hidden)[:, 0]).min() > 2.5


def test_the_least_iou_itself_is_enough() -> None:
    tracker = Tracker(min_iou=1)
    for _ in range(3):
        assert tracker.update(faces_at(square(60, 60))).tolist() == [1]


def test_a_box_without_size_counts_as_one_pixel() -> None:
    """Its filter is not certain: with a covariance of 0, every gain would be 0 / 0."""
    motion = Motion.begin(np.array([[10.0, 10, 10, 10]]))
    for _ in range(3):
        motion.predict()
        motion.correct(np.array([0]), np.array([[12.0, 10, 12, 10]]))
    x1, y1, x2, y2 = motion.boxes()[0].tolist()
    assert 11.5 < (x1 + x2) / 2 < 12.5 and (y1 + y2) / 2 == 10
    assert (x2 - x1, y2 - y1) == (1, 1)


def test_numbers_belong_to_faces_in_whatever_order_they_come() -> None:
    tracker = Tracker()
    places = np.array([square(60 * i, 50 * i) for i in range(1, 8)])
    first = tracker.update(faces_at(*places))
    assert first.tolist() == list(range(1, 8))
    for step in range(10):
        order = np.random.default_rng(step).permutation(7)
        assert (tracker.update(faces_at(*(places + step)[order])) == first[order]).all()
    assert tracker.update(faces_at(square(900, 900))).tolist() == [8]


def test_nothing_of_those_who_left_is_kept() -> None:
    tracker = Tracker(max_gap=2)
    for step in range(200):
        tracker.update(faces_at(square(50 + 100 * step, 50)))
        assert len(tracker.hidden()) <= 3
    assert tracker.update(faces_at()).tolist() == []
    assert len(tracker._numbers) == len(tracker._gaps) == len(tracker._motion.mean) <= 4
    for _ in range(4):
        tracker.update(faces_at())
    assert not len(tracker._numbers)
    assert tracker.update(faces_at(square(50, 50))).tolist() == [201], "no number is used twice"


def test_two_faces_of_a_photo_that_is_moved_around(astronaut: Any) -> None:
    """Two portraits, found by edgeface-n, pass each other; one is covered for 5 of 24 frames."""
    portrait = cv2.resize(astronaut[:300, 60:380], (240, 225))
    tracker = Tracker()
    last: dict[int, float] = {}
    with Detector.open("edgeface-n", size=320) as detector:
        for step in range(24):
            scene = np.full((480, 640, 3), 90, np.uint8)
            tops = {1: (16 * step, 10), 2: (390 - 16 * step, 245)}
            for number, (x, y) in tops.items():
                if not (number == 2 and 8 <= step < 13):
                    scene[y : y + 225, x : x + 240] = portrait
            faces = detector.detect(scene)
            numbers = tracker.update(faces).tolist()
            upper = {n: box[1] < 230 for n, box in zip(numbers, faces.boxes, strict=True)}
            assert upper == {1: True} | ({} if 8 <= step < 13 else {2: False}), step
            last |= {n: float(box[0]) for n, box in zip(numbers, faces.boxes, strict=True)}
    assert last[1] > last[2]


def test_options_are_refused_in_one_line() -> None:
    refused: dict[str, Any] = {"min_iou": (0.0, "x", None), "max_gap": (-1, 1.5, "x", math.nan)}
    for name, values in refused.items():
        for value in values:
            with pytest.raises(OptionError, match=f"{name} {value!r} is not"):
                Tracker(**{name: value})


@pytest.mark.parametrize("faces", [None, [], np.zeros((1, 4))])
def test_what_is_no_detections_is_refused_in_one_line(faces: Any) -> None:
    with pytest.raises(OptionError, match=f"are Detections, .*, not {type(faces).__name__}"):
        Tracker().update(faces)
