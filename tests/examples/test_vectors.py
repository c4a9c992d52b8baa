"""The golden vectors are what the library gives today, and the Python decoder agrees with them."""

from __future__ import annotations

import base64
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted((EXAMPLES / "vectors").glob("*.json"))
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in FILES
    for case in json.loads(path.read_text())
]


@pytest.fixture(scope="module")
def decoder_class() -> Any:
    return runpy.run_path(str(EXAMPLES / "python" / "decoder.py"))["Decoder"]


def array(text: str, dtype: str, shape: list[int]) -> Any:
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype).newbyteorder("<")).reshape(shape)


def outputs_of(case: dict[str, Any]) -> list[Any]:
    """The network outputs of a case, in the order and with the shapes of the contract."""
    found = []
    for spec, text in zip(case["contract"]["outputs"], case.get("outputs", ()), strict=False):
        cells = [-(-case["canvas"][i] // spec["stride"]) for i in (1, 0)]
        _, *sides = spec["shape"]
        shape = [1, sides[0], *cells] if spec["layout"] == "NCHW" else [1, *cells, sides[2]]
        found.append(array(text, spec["dtype"], shape))
    return found


def assert_same_faces(found: list[Any], expected: list[Any], atol: float) -> None:
    """Assert that two lists of (score, box, landmarks) are equal."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-4)
        np.testing.assert_allclose(one[1], other[1], atol=atol)
        assert (one[2] is None) == (other[2] is None)
        if other[2] is not None:
            np.testing.assert_allclose(one[2], other[2], atol=atol)


def faces_of(case: dict[str, Any]) -> list[Any]:
    return [(face["score"], face["box"], face["landmarks"]) for face in case["faces"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_made_anew_they_are_the_same(path: Path) -> None:
    """After an intended change, run python -m benchmarks.vectors.

    Network outputs may differ by float32 rounding, and in INT8 by one step; so may the INT8 scales,
    which follow from outputs: processors add up in different orders."""
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    from benchmarks.vectors import vectors

    made = json.loads(json.dumps(vectors()[path.name]))
    stored = json.loads(path.read_text())
    assert len(made) == len(stored)
    for new, old in zip(made, stored, strict=True):
        for a, b in zip(outputs_of(new), outputs_of(old), strict=True):
            most = 1 if a.dtype == np.int8 else 1e-4
            np.testing.assert_allclose(a.astype(float), b.astype(float), atol=most)
        if "faces" in old:
            assert_same_faces(faces_of(new), faces_of(old), 0.1 if "int8" in old["name"] else 0.01)
        plain = [{k: v for k, v in c.items() if k not in ("outputs", "faces")} for c in (new, old)]
        assert_same(*plain)


def assert_same(one: Any, other: Any) -> None:
    """Assert that two JSON values are equal, except for the last digits of float32."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if not isinstance(one, list):
        assert one == (pytest.approx(other, rel=1e-6) if isinstance(other, float) else other)
        return
    for a, b in zip(one, other, strict=True):
        assert_same(a, b)


def test_they_hold_what_they_should() -> None:
    """The cases cover both layouts and types, one size and any, all codings, faces and none."""
    cases: list[Any] = [case.values[0] for case in CASES]
    contracts = [case["contract"] for case in cases if "faces" in case]
    assert {c["input"]["layout"] for c in contracts} == {"NCHW", "NHWC"}
    assert {c["outputs"][0]["dtype"] for c in contracts} == {"float32", "int8"}
    assert {c["fit"]["long_side_px"] is None for c in contracts} == {True, False}
    assert {c["boxes"]["coding"] for c in contracts} == {"distance", "ssd"}
    assert {c["boxes"]["anchors"] for c in contracts} == {1, 2}
    assert {c["landmarks"] is None for c in contracts} == {True, False}
    assert {len(case["faces"]) > 0 for case in cases if "faces" in case} == {True, False}
    assert sum(path.stat().st_size for path in FILES) < 700_000


@pytest.mark.parametrize("case", CASES)
def test_python(case: dict[str, Any], decoder_class: Any, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"contract": case["contract"]}))
    decoder = decoder_class(manifest)
    width, height = case["photo"]
    assert [list(sides) for sides in decoder.fit(width, height)] == [case["fitted"], case["canvas"]]
    if "pixels" in case:
        canvas = decoder.letterbox(array(case["rgb"], "u1", [height, width, 3]))
        expected = array(case["pixels"], "u1", [*case["canvas"][::-1], 3])
        np.testing.assert_array_equal(canvas, expected)
        assert decoder.tensor(canvas).shape == tuple(case["contract"]["input"]["shape"])
    if "faces" in case:
        boxes, scores, points = decoder.decode(outputs_of(case), width, height)
        landmarks = [None] * len(boxes) if points is None else points
        found = list(zip(scores, boxes, landmarks, strict=True))
        assert_same_faces(found, faces_of(case), 0.05)
