"""What ``import edgeface`` gives a program."""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeface
from edgeface import deprecations
from edgeface.detections import Detections, Face
from edgeface.detector import Detector
from edgeface.errors import DataError, EdgefaceError, MissingExtraError, OptionError
from edgeface.latency.devices.shell import PythonError


def test_every_public_name_is_documented() -> None:
    assert edgeface.__doc__ is not None
    for name in set(edgeface.__all__) - {"__version__"}:
        assert f"`{name}`" in edgeface.__doc__ and getattr(edgeface, name).__doc__


@pytest.mark.parametrize("landmarks", [True, False])
def test_detections_are_faces(landmarks: bool) -> None:
    points = np.arange(20, dtype=np.float32).reshape(2, 5, 2) if landmarks else None
    found = Detections(
        np.arange(8, dtype=np.float32).reshape(2, 4), np.array([0.9, 0.5], np.float32), points
    )
    faces = list(found)
    assert len(faces) == len(found) and all(isinstance(face, Face) for face in faces)
    for i, (box, score, marks) in enumerate(faces):
        assert (
            (box == found.boxes[i]).all() and score == found.scores[i] and isinstance(score, float)
        )
        assert marks is None if points is None else (marks == points[i]).all()
    assert list(Detections.empty()) == []


def test_an_old_name_warns_and_works() -> None:
    from edgeface.decode import HeadLayout

    for name in deprecations.NAMES:
        assert name not in edgeface.__all__
    with pytest.warns(
        DeprecationWarning, match=r"edgeface\.HeadLayout is now edgeface\.decode\.HeadLayout"
    ):
        # To a type checker, the old name is an error like a mistyped name.
        assert edgeface.HeadLayout is HeadLayout  # type: ignore[attr-defined]


def test_every_error_reaches_another_process() -> None:
    """A process pool waits for ever for an error that it cannot unpickle."""
    errors: list[EdgefaceError] = [
        kind("what is wrong")
        for kind in EdgefaceError.__subclasses__()
        if "__init__" not in vars(kind)
    ]
    errors += [MissingExtraError("torch", "zoo", "this"), PythonError("ssh://a", "no", "apt")]
    for error in errors:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own
            assert type(again) is type(error) and str(again) == str(error)
            assert vars(again) == vars(error)


def test_an_open_detector_is_not_sent_to_another_process() -> None:
    with Detector.open("edgeface-n") as detector:
        for give in (pickle.dumps, copy.deepcopy):
            with pytest.raises(OptionError, match=r"cannot be copied or sent .* open a Detector"):
                give(detector)
        assert len(detector.detect(np.zeros((64, 64, 3), np.uint8))) == 0


def test_weights_that_are_no_path_are_refused() -> None:
    weights: Any = 3
    with pytest.raises(OptionError, match="weights must be a path or its text, got int"):
        Detector.open("edgeface-n", weights=weights)


@pytest.mark.parametrize("size", [(0, 480), (640, -5), (640.0, 480)])
def test_sizes_that_no_image_has_are_refused(size: tuple[Any, Any]) -> None:
    width: Any = np.int64(1280)
    with Detector.open("edgeface-n") as detector:
        assert detector.network_size(width, 960) == (640, 480)
        with pytest.raises(OptionError, match="is not a whole number from 1 on"):
            detector.network_size(*size)


def test_export_and_quantize(tmp_path: Path, portraits: Path) -> None:
    bundle = edgeface.export("edgeface-n", "onnx", size="64x64", out=tmp_path)
    assert bundle.path == tmp_path / "edgeface-n-onnx-fp32-64x64"
    with pytest.raises(OptionError, match="quantising needs photos to take ranges from"):
        edgeface.quantize(bundle)
    made = edgeface.quantize(bundle, calibration=portraits, leave_out=["hopper.jpg"]).manifest
    used = hashlib.sha256((portraits / "astronaut.png").read_bytes()).hexdigest()
    assert made.precision == "int8" and made.calibration is not None
    assert made.calibration["sha256"] == [used]
    one = edgeface.quantize(bundle, calibration=portraits, leave_out="hopper.jpg").manifest
    assert one.calibration is not None and one.calibration["sha256"] == [used]
    with pytest.raises(OptionError, match=r"leave_out: no photo in .* is called hoper\.jpg: give"):
        edgeface.quantize(bundle, calibration=portraits, leave_out=["hoper.jpg", "astronaut.png"])
    alone = edgeface.quantize(bundle, calibration=portraits, leave_out=Path("./hopper.jpg"))
    assert alone.manifest.calibration == one.calibration
    with pytest.raises(DataError, match=r"all photos in .* are kept .*, or left out: give"):
        edgeface.quantize(bundle, calibration=portraits, leave_out=["hopper.jpg", "astronaut.png"])
    with pytest.raises(OptionError, match="annotations are of photos below --data"):
        edgeface.quantize(bundle, calibration=portraits, annotations=tmp_path / "none.csv")
    with pytest.raises(OptionError, match="unknown target 'coreml'"):
        edgeface.export("edgeface-n", "coreml")


def test_a_name_as_a_path_has_the_weights_of_the_name(tmp_path: Path) -> None:
    bundle = edgeface.export(Path("edgeface-n"), "onnx", size="64x64", out=tmp_path)
    assert not bundle.manifest.weights.random
    nothing: Any = None
    for wrong in ({"model": nothing}, {"out": nothing}, {"weights": 3}):
        with pytest.raises(OptionError, match=f"{next(iter(wrong))} must be a path or its text"):
            edgeface.export(**{"model": "edgeface-n", "target": "onnx", "out": tmp_path, **wrong})


def test_a_device_is_told_where_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeface.backends.CHECKOUT", tmp_path)
    with pytest.raises(
        OptionError, match="this runs from a checkout of the project: clone it and run: make export"
    ):
        edgeface.export("edgeface-n", "onnx")
