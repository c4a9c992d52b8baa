"""The shipped weights as a user gets them, run by torch and as exports to ONNX and TFLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.images import read_image
from edgeface.runners import Runner, open_runner
from edgeface.runners.torch import TorchRunner

pytest.importorskip("torch", reason="torch is not installed")

RUNTIMES = ("torch", "onnx", "tflite")
ASTRONAUT_FACE = (178, 66, 272, 186)
HOPPER_FACE = (176, 112, 352, 336)
"""x1, y1, x2, y2 in px, set by hand"""


@pytest.fixture(scope="module", params=RUNTIMES)
def detector(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Detector]:
    """edgeface-n as the zoo ships it, in each runtime; exported at 640x480."""
    with Detector(_runner(request.param, tmp_path_factory), score_threshold=0.3) as opened:
        yield opened


def _runner(name: str, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    if name == "torch":
        return TorchRunner.open("edgeface-n")
    from export import ExportRequest, export_model, load_source

    out = tmp_path_factory.mktemp("dist")
    return open_runner(export_model(load_source("edgeface-n"), ExportRequest(name), out).bundle)


@pytest.fixture(scope="module")
def hopper(hopper_path: Path) -> NDArray[np.uint8]:
    return read_image(hopper_path)


def iou(a: NDArray[np.float32], b: tuple[int, ...]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(w, 0) * max(h, 0)
    return float(
        overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)
    )


@pytest.mark.parametrize(
    ("photo", "face"), [("astronaut", ASTRONAUT_FACE), ("hopper", HOPPER_FACE)]
)
def test_exactly_the_face_is_found(
    detector: Detector, request: pytest.FixtureRequest, photo: str, face: tuple[int, ...]
) -> None:
    faces = detector.detect(request.getfixturevalue(photo), score_threshold=0.5)
    assert len(faces) == 1 and faces.scores[0] > 0.5 and iou(faces.boxes[0], face) > 0.5


@pytest.mark.parametrize("photo", ["coffee", "rocket", "coins"])
def test_nothing_is_found_where_no_face_is(detector: Detector, photo: str) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    assert len(detector.detect(getattr(data, photo)(), score_threshold=0.5)) == 0


@pytest.fixture(scope="module")
def scene(astronaut: NDArray[np.uint8], hopper: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Several faces on 640x480 px, which every runtime sees unscaled."""
    canvas = np.zeros((480, 640, 3), np.uint8)
    canvas[:400, :400] = cv2.resize(astronaut, (400, 400), interpolation=cv2.INTER_AREA)
    canvas[200:480, 400:] = cv2.resize(hopper, (240, 280), interpolation=cv2.INTER_AREA)
    canvas[400:, :80] = cv2.resize(
        astronaut[40:220, 140:320], (80, 80), interpolation=cv2.INTER_AREA
    )
    return canvas


@pytest.fixture(scope="module")
def reference(scene: NDArray[np.uint8]) -> Detections:
    with Detector(TorchRunner.open("edgeface-n"), score_threshold=0.3) as torch_detector:
        return torch_detector.detect(scene)


def test_same_boxes_in_every_runtime(
    detector: Detector, scene: NDArray[np.uint8], reference: Detections
) -> None:
    """At score > .3, boxes differ by at most 0.1 px from those of torch."""
    faces = detector.detect(scene)
    assert len(faces) == len(reference) >= 3
    np.testing.assert_allclose(faces.boxes, reference.boxes, atol=0.1)
    np.testing.assert_allclose(faces.scores, reference.scores, atol=1e-3)
