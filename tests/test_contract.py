"""The manifest suffices: a program that reads nothing else finds the same faces as the Detector."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from by_manifest import find

from edgeface.backends import combinations, get_backend
from edgeface.bundle import MANIFEST, README, Bundle, json_schema, write_bundle
from edgeface.detector import Detector
from edgeface.errors import BundleError
from edgeface.images import read_image

pytest.importorskip("torch", reason="torch is not installed")
ROOT = Path(__file__).parents[1]
Make = Callable[..., Bundle]
KINDS = [
    pytest.param(target, precision, False, id=f"{target}-{precision}")
    for target, precision in combinations("fp32", "int8")
] + [
    pytest.param(target, "fp32", True, id=f"{target}-fp32-dynamic")
    for target, precision in combinations("fp32")
    if get_backend(target).dynamic
]
each_kind = pytest.mark.parametrize(("target", "precision", "dynamic"), KINDS)
SCHEMA = json.loads(json_schema.PATH.read_text())


@each_kind
def test_another_implementation_finds_the_same_faces(
    target: str,
    precision: str,
    dynamic: bool,
    exported: Make,
    astronaut: Any,
    hopper_path: Path,
) -> None:
    """One photo is square, one is in portrait format. The tolerances are the rounding of float32;
    faces whose scores differ by no more than that may come in another order."""
    bundle = exported(target, precision, dynamic, landmarks=True)
    lowest = 0.4 if dynamic else 0.3  # a photo that is not shrunk has many cells
    with Detector.open(bundle.path, score_threshold=lowest) as detector:
        for photo in (astronaut, read_image(hopper_path)):
            expected, found = detector.detect(photo), find(bundle.path, photo, lowest)
            assert len(found) == len(expected) > 0
            scores, boxes, points = (np.array(part) for part in zip(*found, strict=True))
            np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
            apart = np.abs(boxes - expected.boxes[:, None]).max(axis=2)
            twin = np.argmin(apart + np.abs(scores - expected.scores[:, None]), axis=1)
            assert sorted(twin) == list(range(len(found)))
            np.testing.assert_allclose(boxes[twin], expected.boxes, atol=0.01)
            assert expected.landmarks is not None
            np.testing.assert_allclose(points[twin], expected.landmarks, atol=0.01)


@pytest.mark.parametrize("name", ["eresfd-16", "damofd-0.5g-kps-bn"])
def test_prior_boxes_and_several_boxes_a_cell(name: str, astronaut: Any, tmp_path: Path) -> None:
    """Compares about the 40 best faces of a network with random weights."""
    from export import ExportRequest, export_model
    from export.source import random_source

    request = ExportRequest("onnx", "fp32", 160, 128)
    bundle = export_model(random_source(name, 0), request, tmp_path).bundle
    with Detector.open(bundle.path, score_threshold=0) as detector:
        lowest = float(detector.detect(astronaut).scores[40:42].mean())
        expected = detector.detect(astronaut, score_threshold=lowest)
    found = find(bundle.path, astronaut, lowest)
    assert len(found) == len(expected) > 20
    scores, boxes, _ = zip(*found, strict=True)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(boxes, expected.boxes, atol=0.01)


@each_kind
def test_manifest_and_readme(target: str, precision: str, dynamic: bool, exported: Make) -> None:
    """The manifest is valid under the shipped schema, and the README states its facts."""
    bundle = exported(target, precision, dynamic, True)
    data = json.loads((bundle.path / MANIFEST).read_text())
    jsonschema.validate(data, SCHEMA)
    text = (bundle.path / README).read_text()
    assert max(map(len, text.splitlines())) <= 100 and "\t" not in text
    words = " ".join(text.split())
    contract = bundle.manifest.contract
    assert contract is not None
    facts = [contract.input.tensor, *(output.tensor for output in contract.outputs)]
    facts += ["top left", "area", "bilinear", "RGB", "0.45", "nose", "5000"]
    facts += [bundle.manifest.weights.licence, *bundle.manifest.files.values()]
    if bundle.manifest.output_quantization:
        facts += [repr(scale) for scale, _ in bundle.manifest.output_quantization.values()]
        facts.append("value = pixel - 128 (scale 1, zero point -128)")
    assert [fact for fact in facts if " ".join(fact.split()) not in words] == []


def test_the_schema_is_of_the_code() -> None:
    """After changing the dataclasses, run python -m edgeface.bundle.json_schema."""
    assert json_schema.PATH.read_text() == json_schema.dumps()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert '"bundle/*.json"' in (ROOT / "pyproject.toml").read_text(), "part of the wheel"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("primary"),
        lambda d: d.update(colour="red"),
        lambda d: d["input"].update(width="640"),
        lambda d: d["contract"].pop("fit"),
        lambda d: d["contract"]["outputs"][0].update(index="0"),
        lambda d: d["contract"]["fit"].update(value=None),
        lambda d: d.update(format_version=3),
    ],
)
def test_schema_and_reader_refuse_alike(change: Any, exported: Make, tmp_path: Path) -> None:
    data = exported("onnx", landmarks=True).manifest.to_json()
    change(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)
    (tmp_path / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BundleError):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["fit"].update(value=114),
        lambda c: c["boxes"].update(order=["x", "y", "width", "height"]),
        lambda c: c["input"].update(zero_point=-128),
        lambda c: c["outputs"][0].update(scale=2),
        lambda c: c["outputs"].pop(),
        lambda c: c["outputs"][0].update(name="cls_16"),
        lambda c: c["input"].update(name="image"),
        lambda c: c["outputs"].reverse(),
    ],
)
def test_a_contract_that_contradicts_the_rest(change: Any, exported: Make, tmp_path: Path) -> None:
    bundle = exported("onnx", landmarks=True)
    data = bundle.manifest.to_json()
    change(data["contract"])
    (tmp_path / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BundleError, match="its contract contradicts its other fields"):
        Bundle.open(tmp_path)


def test_a_bundle_of_a_newer_schema(exported: Make, tmp_path: Path, edgeface: Any) -> None:
    """The error is one line, whatever else a newer manifest contains."""
    bundle = exported("onnx", landmarks=True)
    copy = write_bundle(
        tmp_path / "b", bundle.manifest, {n: bundle.read(n) for n in bundle.manifest.files}
    )
    data = {**bundle.manifest.to_json(), "format_version": 3, "novelty": {"a": 1}}
    (copy.path / MANIFEST).write_text(json.dumps(data))
    code, out, err = edgeface("detect", ROOT / "docs" / "photo.jpg", "--model", copy.path)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "format_version 3 is not one this edgeface reads (1 and 2)" in err
    assert "install a newer edgeface" in err


def test_an_old_bundle_has_none_and_opens(exported: Make, tmp_path: Path) -> None:
    bundle = exported("onnx", landmarks=True)
    old = dataclasses.replace(bundle.manifest, contract=None, format_version=1)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    made = write_bundle(tmp_path / "b", old, files)
    assert "contract" not in made.manifest.to_json()
    assert sorted(path.name for path in made.path.iterdir()) == sorted([MANIFEST, *files])
