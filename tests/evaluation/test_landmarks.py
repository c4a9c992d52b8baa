"""Landmark error: against plain loops, on faces worked out by hand, and through the command."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from networks import with_part

from edgeface.decode import box_iou
from edgeface.detections import Detections
from edgeface.errors import DataError
from edgeface.evaluation.landmarks import (
    LandmarkAccuracy,
    counting_faces,
    face_errors,
    labelled_photos,
)
from edgeface.images.annotated import AnnotatedImage

POINTS = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32) / 100
"""landmarks x, y of a face, in shares of the width and height of its box"""


def labels_of(boxes: list[list[float]]) -> AnnotatedImage:
    """Faces with the boxes x1, y1, x2, y2 and with landmarks at ``POINTS``."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    points = corners[:, None, :2] + POINTS * (corners[:, None, 2:] - corners[:, None, :2])
    return AnnotatedImage("event/a.png", corners, np.zeros(len(corners), np.bool_), points)


def with_points(
    labels: AnnotatedImage, face: int, point: int, x: float, y: float
) -> AnnotatedImage:
    points = np.array(labels.landmarks)
    points[face, point] = x, y
    return dataclasses.replace(labels, landmarks=points)


def test_iou_against_loops() -> None:
    random = np.random.default_rng(0)
    a, b = (np.sort(random.uniform(0, 50, (n, 2, 2)), axis=1).reshape(n, 4) for n in (7, 5))
    b[0] = a[3]
    b[1, 2:] = b[1, :2]  # empty
    expected = np.zeros((7, 5))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            width, height = min(p[2], q[2]) - max(p[0], q[0]), min(p[3], q[3]) - max(p[1], q[1])
            shared = width * height if width > 0 and height > 0 else 0.0
            union = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - shared
            expected[i, j] = shared / union
    np.testing.assert_allclose(box_iou(a, b), expected, rtol=1e-12)
    assert expected[3, 0] == 1 and not expected[:, 1].any()
    assert box_iou(np.zeros((0, 4)), b).shape == (0, 5)


@pytest.mark.parametrize("seed", range(5))
def test_errors_against_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 500, (12, 2))
    labels = labels_of(np.hstack((corners, corners + random.uniform(10, 90, (12, 2)))).tolist())
    labels = with_points(labels, 2, 4, math.nan, math.nan)
    counting = counting_faces(labels, 640, 640)
    near = np.repeat(labels.boxes, 3, axis=0) + random.normal(0, 5, (36, 4)).astype(np.float32)
    assert labels.landmarks is not None
    points = np.repeat(np.nan_to_num(labels.landmarks), 3, axis=0) + random.normal(0, 4, (36, 5, 2))
    found = Detections(near, np.linspace(1, 0.3, 36, dtype=np.float32), points.astype(np.float32))
    expected = []
    assert labels.landmarks is not None and found.landmarks is not None
    for face, (box, wanted) in enumerate(zip(labels.boxes, labels.landmarks, strict=True)):
        side = math.sqrt(float(box[2] - box[0]) * float(box[3] - box[1]))
        assert counting[face] == (side >= 20)
        ious = [float(box_iou(other[None], box[None])[0, 0]) for other in found.boxes]
        best = ious.index(max(ious))
        if side < 20 or ious[best] < 0.5:
            continue
        distances = [
            math.dist(p, q)
            for p, q in zip(found.landmarks[best], wanted, strict=True)
            if not np.isnan(q[0])
        ]
        expected.append(sum(distances) / len(distances) / side)
    assert len(expected) > 3
    np.testing.assert_allclose(face_errors(found, labels, counting), expected, rtol=1e-5)


def test_which_faces_count() -> None:
    """At long side 640, all lengths in this photo of 1280x960 px are halved."""
    small, large, flat = (
        [0.0, 0, 39, 40],
        [100.0, 100, 140, 140],
        [200.0, 200, 300, 216],
    )  # sqrt(w h): 39.5, 40, 40
    labels = labels_of([small, large, flat, large, large, large, large])
    labels = with_points(labels, 3, 0, -0.5, 120)  # beyond the edge
    labels = with_points(labels, 4, 0, 1280.5, 120)
    labels = with_points(labels, 5, 0, math.nan, math.nan)
    assert labels.landmarks is not None
    labels.landmarks[6] = math.nan
    assert counting_faces(labels, 1280, 960).tolist() == [
        False,
        True,
        True,
        False,
        False,
        True,
        False,
    ]
    marked = dataclasses.replace(labels, invalid=np.ones(7, np.bool_))
    assert not counting_faces(marked, 1280, 960).any()
    assert not counting_faces(dataclasses.replace(labels, landmarks=None), 1280, 960).any()


@pytest.mark.parametrize(
    ("x", "y", "counts"),
    [(400, 100, True), (400.5, 100, False), (100, 300, True), (100, 300.5, False)],
)
def test_points_may_lie_on_the_edge_of_the_photo(x: float, y: float, counts: bool) -> None:
    labels = with_points(labels_of([[100, 100, 200, 200]]), 0, 0, x, y)
    assert counting_faces(labels, 400, 300).tolist() == [counts]
    turned = dataclasses.replace(labels, landmarks=np.array(labels.landmarks)[:, :, ::-1])
    assert counting_faces(turned, 300, 400).tolist() == [counts]


def test_a_box_that_overlaps_by_exactly_one_half_matches() -> None:
    labels = labels_of([[100, 100, 200, 200]])
    for bottom, matched in ((150, 1), (149, 0)):
        box = np.array([[100, 100, 200, bottom]], np.float32)
        found = Detections(box, np.ones(1, np.float32), labels.landmarks)
        assert len(face_errors(found, labels, np.ones(1, np.bool_))) == matched


def test_the_box_that_overlaps_most_gives_the_points() -> None:
    """The landmarks come from the box with the largest IoU, even if it scores less.

    The better box has an error of 5 px in a face of 100 px, so .05; the other box has 20 px."""
    labels = labels_of([[100, 100, 200, 200]])
    assert labels.landmarks is not None
    boxes = np.array([[110, 110, 210, 210], [100, 100, 200, 201]], np.float32)
    points = np.concatenate(
        [labels.landmarks + np.array(move) for move in ((20, 0), (3, 4))]
    ).astype(np.float32)
    found = Detections(boxes, np.array([0.9, 0.4], np.float32), points)
    counting = counting_faces(labels, 640, 480)
    np.testing.assert_allclose(face_errors(found, labels, counting), [0.05], rtol=1e-5)
    far = Detections(boxes + 60, found.scores, points)
    assert len(face_errors(far, labels, counting)) == 0
    none = Detections(boxes[:0], found.scores[:0], points[:0])
    assert len(face_errors(none, labels, counting)) == 0


def test_figures() -> None:
    done = LandmarkAccuracy.of(np.array([0.02, 0.1, 0.3]), 5)
    assert done.to_json() == {
        "nme": pytest.approx(0.14),
        "nme_failures": pytest.approx(1 / 3),
        "nme_faces": 3,
        "nme_annotated": 5,
    }
    assert str(done) == "landmarks: mean error 0.1400, 0.333 above 0.1; 3 of 5 faces found"
    assert LandmarkAccuracy.of(np.zeros(0), 5) == LandmarkAccuracy(None, None, 0, 5)
    assert str(LandmarkAccuracy(None, None, 0, 5)) == "landmarks: 0 of 5 faces found"


@pytest.mark.parametrize("folder", ["WIDER_train/images", "WIDER_val/images", ""])
def test_photos_are_found(tmp_path: Path, folder: str) -> None:
    text = "# event/a.png\n10 10 30 30 " + " ".join(["20 20 1"] * 5) + " 0.5\n# event/absent.png\n"
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(
        DataError, match=r"none of the 2 images of .*labels\.txt is below .*event/a\.png for one"
    ):
        labelled_photos(tmp_path / "labels.txt", tmp_path)
    photo = tmp_path / folder / "event" / "a.png"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"read later")
    ((image, path),) = labelled_photos(tmp_path / "labels.txt", tmp_path)
    assert path == photo and image.path == "event/a.png"


def test_labels_without_points_are_refused(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("a.png,1,1,9,9\n")
    with pytest.raises(DataError, match="holds no landmarks; accepted: RetinaFace's labels"):
        labelled_photos(tmp_path / "faces.csv", tmp_path)


@pytest.fixture
def data(tmp_path: Path, write_mat: Callable[..., Path], astronaut: np.ndarray) -> Path:
    """A WIDER FACE folder with one portrait; labels.csv has its face with landmarks."""
    root = write_mat(
        tmp_path / "wider",
        {"e/a": ([[180, 60, 90, 120]], {s: [0] for s in ("easy", "medium", "hard")})},
    )
    photo = root / "WIDER_val" / "images" / "e" / "a.png"
    photo.parent.mkdir(parents=True)
    cv2.imwrite(str(photo), astronaut[:, :, ::-1])
    points = ",".join(f"{v:g}" for v in (np.array([180, 60]) + POINTS * (90, 120)).ravel())
    (root / "labels.csv").write_text(f"e/a.png,180,60,270,180,{points}\n")
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of ``edgeface arguments`` in this process."""
    from edgeface.cli import main

    monkeypatch.setattr(sys, "argv", ["edgeface", *arguments])
    try:
        return main()
    except SystemExit as stop:
        return int(stop.code or 0)


def test_the_command(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The detections of a network with landmarks are made up; a loop gives their error."""
    pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.architecture.registry import get_architecture
    from edgeface.models.detector import build_detector
    from edgeface.zoo import save_weights

    architecture = with_part(get_architecture("edgeface-n"), "head", "pointed", landmarks=5)
    save_weights(build_detector(architecture, seed=0), data / "points.safetensors")
    box = np.array([[182, 62, 268, 184]], np.float32)
    found = Detections(
        box, np.array([0.8], np.float32), (box[:, None, :2] + POINTS * (86, 122)).astype(np.float32)
    )
    seen = []

    def detect(self: object, image: object, *options: object, **named: object) -> Detections:
        seen.append(options)
        return found

    monkeypatch.setattr("edgeface.detector.Detector.detect", detect)
    arguments = shlex.split(
        f"eval --data {data} --model {data / 'points.safetensors'} "
        f"--landmarks {data / 'labels.csv'}"
    )
    assert run(monkeypatch, *arguments, "--format", "json") == 0
    report = json.loads(capsys.readouterr().out)
    a, b = np.array([180, 60]) + POINTS * (90, 120), np.array([182, 62]) + POINTS * (86, 122)
    error = sum(math.dist(p, q) for p, q in zip(a, b, strict=True)) / 5 / math.sqrt(90 * 120)
    assert report["nme"] == pytest.approx(error, rel=1e-5) and report["nme_failures"] == 0
    assert (report["nme_faces"], report["nme_annotated"], report["hard"]) == (1, 1, 1.0)
    assert seen[0] == (0.3,), "landmarks are those of boxes that score .3 or more"
    assert run(monkeypatch, *arguments) == 0
    assert (
        f"landmarks: mean error {error:.4f}, 0.000 above 0.1; 1 of 1 faces found"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "boxes finds no landmarks: leave --landmarks out"),
        (("--scale", "multi"), "--landmarks is for --scale 640 or original"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    words: str,
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.architecture.registry import get_architecture
    from edgeface.models.detector import build_detector
    from edgeface.zoo import save_weights

    architecture = with_part(get_architecture("edgeface-n"), "head", "boxes", landmarks=0)
    boxes = data / "boxes.safetensors"
    save_weights(build_detector(architecture, 0), boxes)
    command = ("eval", "--data", data, "--model", boxes, "--landmarks", data / "labels.csv")
    assert run(monkeypatch, *map(str, command), *more) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and words in err and err.count("\n") == 1
