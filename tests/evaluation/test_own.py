"""AP on photos of one's own: what it must be where detections are known, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Command, failed

from edgeface.detections import Detections
from edgeface.errors import DataError
from edgeface.evaluation.own import ground_truth_of, own_photos
from edgeface.evaluation.wider import evaluate
from edgeface.images import read_image
from edgeface.images.annotations import read_annotations

FACES = "image,x1,y1,x2,y2\nin/astronaut.png,176,60,272,180\nhopper.png,181,49,383,337\n"
"""the two photos' faces, drawn by hand"""


@pytest.fixture
def photos(tmp_path: Path, astronaut: np.ndarray, hopper_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    cv2.imwrite(str(folder / "in" / "astronaut.png"), astronaut[..., ::-1])
    cv2.imwrite(
        str(folder / "hopper.png"), cv2.cvtColor(read_image(hopper_path), cv2.COLOR_RGB2BGR)
    )
    return folder


def written(folder: Path, text: str) -> Path:
    path = folder / "faces.csv"
    path.write_text(text)
    return path


def test_ap_of_known_detections(tmp_path: Path) -> None:
    """One of two faces found: precision 1 up to recall 1/2, so half of the area."""
    images = read_annotations(written(tmp_path, FACES))
    truth = ground_truth_of(images, "faces.csv")
    right = {i.path: Detections(i.boxes, np.full(1, 0.9, np.float32)) for i in images}
    found = evaluate(right, truth)
    assert (found.easy, found.medium, found.hard) == (None, None, 1.0) and found.faces["hard"] == 2
    assert evaluate({"hopper.png": right["hopper.png"]}, truth).hard == pytest.approx(0.5, abs=1e-3)


def test_the_command(photos: Path, tmp_path: Path, edgeface: Command) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    arguments = ("eval", "--data", photos, "--annotations")
    code, out, _ = edgeface(*arguments, written(tmp_path, FACES), "--format", "json")
    report = json.loads(out)
    assert code == 0 and report["images"] == 2 and report["easy"] is None
    assert report["hard"] > 0.99 and report["evaluator"].startswith("own annotations")
    missing = written(tmp_path, FACES + "lost.jpg,1,1,9,9\n")
    failed(edgeface(*arguments, missing), "1 of 3 photos", "lost.jpg")
    failed(edgeface(*arguments, written(tmp_path, "hopper.png,,,,\n")), "no face to find")


def test_two_photos_of_one_name(photos: Path, tmp_path: Path) -> None:
    (photos / "hopper.jpg").write_bytes((photos / "hopper.png").read_bytes())
    with pytest.raises(DataError, match="differ in their suffix alone"):
        own_photos(written(tmp_path, FACES + "hopper.jpg,1,1,9,9\n"), photos)
