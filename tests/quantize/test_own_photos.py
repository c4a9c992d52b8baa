"""INT8 with own photos: accuracy is measured on the annotated ones, ranges come from the others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.bundle import Bundle
from edgeface.errors import DataError, OptionError
from edgeface.evaluation import evaluate_model
from quantize.measure import ValidationSet
from quantize.pipeline import QuantizeRequest, quantize_model
from quantize.verb import quantize

FACE = (178, 68, 270, 188)
"""x1, y1, x2, y2 in px of the astronaut's photo, read off by eye"""
KEPT, ALL = 4, 12


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, astronaut: NDArray[np.uint8]) -> Path:
    """A flat folder of 12 photos of the astronaut, and kept.csv, which annotates the first four."""
    folder = tmp_path_factory.mktemp("own")
    rows = ["image,x1,y1,x2,y2"]
    for i in range(ALL):
        scale = 0.3 + 0.02 * i
        small = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if i < KEPT:
            rows.append(f"{i}.png," + ",".join(f"{value * scale:.1f}" for value in FACE))
    (folder / "kept.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_accuracy_is_of_the_annotated_and_ranges_of_the_others(
    float_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    budget: Any = np.float32(100)  # a NumPy scalar, as from a computation
    request = QuantizeRequest("onnx", bundle=float_bundle.path, images=6, max_drop=budget)
    notes: list[str] = []
    made = quantize_model(
        request, tmp_path, data=photos, annotations=photos / "kept.csv", note=notes.append
    ).bundle.manifest
    assert not any("points, more than the budget" in note for note in notes)
    assert made.accuracy is not None and made.calibration is not None
    assert made.accuracy["images"] == KEPT and made.accuracy["float"]["easy"] is None
    alone = evaluate_model(float_bundle.path, photos, annotations=photos / "kept.csv").report
    assert made.accuracy["float"]["hard"] == pytest.approx(alone.hard, abs=1e-6)
    assert made.accuracy["protocol"] == str(alone.protocol) and "own" in str(alone.protocol)
    digests = {
        hashlib.sha256((photos / f"{i}.png").read_bytes()).hexdigest(): i for i in range(ALL)
    }
    assert {digests[digest] >= KEPT for digest in made.calibration["sha256"]} == {True}


def test_no_photo_is_left_to_take_ranges_from(
    float_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for i in range(KEPT):
        (own / f"{i}.png").write_bytes((photos / f"{i}.png").read_bytes())
    request = QuantizeRequest("onnx", bundle=float_bundle.path, images=2)
    with pytest.raises(DataError, match=r"all photos in .*own are kept .* with --calibration"):
        quantize_model(request, tmp_path / "out", data=own, annotations=photos / "kept.csv")
    with pytest.raises(DataError, match="are among the photos that accuracy is measured on"):
        quantize_model(
            request,
            tmp_path / "out",
            data=photos,
            annotations=photos / "kept.csv",
            calibration=own,
        )


@pytest.mark.parametrize(("faces", "max_drop", "noted"), [(4, 24.9, True), (4, 25, False)])
def test_a_budget_of_less_than_a_face_is_told(
    photos: Path, faces: int, max_drop: float, noted: bool
) -> None:
    validation = ValidationSet.load(photos, photos / "kept.csv")
    told = validation.too_few_for(max_drop)
    assert (told is not None) == noted
    assert not told or f"AP is that of {faces} faces, one of which is 25.0 points" in told


def test_annotations_need_photos(photos: Path) -> None:
    with pytest.raises(OptionError, match=r"of photos below --data.*: give --data"):
        quantize("onnx", annotations=photos / "kept.csv")
    with pytest.raises(OptionError, match="leave --no-accuracy out"):
        quantize("onnx", data=photos, annotations=photos / "kept.csv", no_accuracy=True)
