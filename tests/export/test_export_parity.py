"""Every exported file computes what torch computes; a file that differs is never written."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import ONE_OF_EACH

from edgeface.backends import BACKENDS, combinations
from edgeface.bundle import Bundle
from edgeface.errors import ExportError
from edgeface.models.detector import FaceNet, deployable
from edgeface.runners import open_runner
from export import Converted, ExportRequest, Source, export_model
from export.parity import TOLERANCE, TOLERANCE_FP16, Parity, check_parity, sample_photo, torch_heads
from export.source import random_source

Exported = Callable[..., Bundle]
TOLERANCES = {"fp32": TOLERANCE, "fp16": TOLERANCE_FP16}


@pytest.mark.parametrize(("target", "precision"), combinations("fp32", "fp16"))
def test_manifest_holds_the_figures(target: str, precision: str, exported: Exported) -> None:
    bundle = exported(target, precision)
    parity = json.loads((bundle.path / "manifest.json").read_text())["parity"]
    heads = set(bundle.manifest.head_layout.output_names)
    assert parity["tolerance"] == TOLERANCES[precision]
    for case in ("noise", "photo", "max_abs"):
        assert set(parity[case]) == heads
        assert all(0 <= value <= parity["tolerance"] for value in parity[case].values())
    assert all(parity["max_abs"][h] == max(parity["noise"][h], parity["photo"][h]) for h in heads)
    assert max(parity["max_abs"].values()) > 0, (
        "equal to the last bit: was torch compared with torch?"
    )


@pytest.mark.parametrize(
    ("target", "precision", "landmarks"),
    [
        *((target, precision, False) for target, precision in combinations("fp32", "fp16")),
        *((target, precision, True) for target, precision in combinations("fp32")),
    ],
)
def test_runner_equals_torch_on_other_inputs(
    target: str,
    precision: str,
    landmarks: bool,
    exported: Exported,
    lively: Source,
    pointed: Source,
) -> None:
    network = (pointed if landmarks else lively).network
    random = np.random.default_rng(7)
    batch = random.integers(0, 256, (1, 128, 160, 3), dtype=np.uint8)
    black, white = np.zeros_like(batch), np.full_like(batch, 255)
    with open_runner(exported(target, precision, landmarks=landmarks)) as runner:
        for image in (batch, black, white):
            expected = torch_heads(network, image)
            found = runner.run(image)
            assert list(found) == list(expected)
            assert ("kps_32" in found) == landmarks
            for head, value in found.items():
                np.testing.assert_allclose(
                    value, expected[head], rtol=0, atol=TOLERANCES[precision], err_msg=head
                )


@pytest.mark.parametrize(
    "name", ["edgeface-n", "damofd-0.5g", "scrfd-2.5g-bn", "damofd-0.5g-kps", "scrfd-0.5g-kps"]
)
def test_random_weights_exercise_the_network(name: str) -> None:
    """Parity on outputs that are constant would prove little."""
    network = random_source(name, 0).network
    photo = np.ascontiguousarray(sample_photo()[None, :128, :160])
    assert all(value.std() > 0.05 for value in torch_heads(network, photo).values())


def test_a_file_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter is given other weights than the check."""
    from export.onnx import export_onnx

    def broken(network: FaceNet, request: ExportRequest) -> Converted:
        return export_onnx(deployable(random_source("edgeface-n", 1).network), request)

    _replace_exporter(monkeypatch, broken)
    with pytest.raises(
        ExportError, match=r"onnx fp32 of edgeface-n differs from torch: cls_8 .* > 0\.0001"
    ):
        export_model(
            random_source("edgeface-n", 0), ExportRequest("onnx", "fp32", 64, 64), tmp_path
        )
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, request = random_source("edgeface-n", 0), ExportRequest("onnx", "fp32", 64, 64)
    before = export_model(source, request, tmp_path).bundle

    def broken(network: FaceNet, request: ExportRequest) -> Converted:
        raise RuntimeError("no kernel\nfor this")

    _replace_exporter(monkeypatch, broken)
    with pytest.raises(
        ExportError, match=r"^converting edgeface-n to onnx failed: no kernel for this \(run again"
    ):
        export_model(source, request, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [before.path.name]
    assert Bundle.open(before.path).manifest == before.manifest


def test_rounded_weights_are_held_to_the_float32_bound() -> None:
    good = {"noise": {"cls_8": 1e-5}}
    assert not Parity(TOLERANCE_FP16, {"noise": {"cls_8": 0.04}}, good).failures
    assert Parity(TOLERANCE_FP16, {"noise": {"cls_8": 0.06}}, good).failures == [
        "cls_8 0.06 > 0.05"
    ]
    assert Parity(TOLERANCE_FP16, good, {"noise": {"cls_8": 1e-3}}).failures == [
        "cls_8 0.001 > 0.0001"
    ]


def test_nan_is_a_difference() -> None:
    cases = {"noise": {"cls_8": 0.0, "box_8": float("nan")}, "photo": {"cls_8": 0.0, "box_8": 0.0}}
    assert Parity(TOLERANCE, cases).failures == ["box_8 nan > 0.0001"]


def test_check_of_another_network_fails(exported: Exported) -> None:
    with pytest.raises(ExportError, match="differs from torch"):
        check_parity(exported("onnx", "fp32"), random_source("edgeface-n", 1).network)


def test_photo_is_a_photo() -> None:
    photo = sample_photo()
    assert photo.dtype == np.uint8
    assert photo.shape[2] == 3
    assert photo.std() > 30


def test_the_package_of_the_photo_is_not_imported() -> None:
    """With little memory, the computations of its imports would never end."""
    code = (
        "import sys; from export.parity import sample_photo; sample_photo()\n"
        "print([name for name in ('skimage', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), combinations("fp32", "fp16"))
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_full_matrix(name: str, target: str, precision: str, tmp_path: Path) -> None:
    exported = export_model(
        random_source(name, 0), ExportRequest(target, precision, 160, 128), tmp_path
    )
    assert not exported.parity.failures
    assert "TRANSPOSE" not in exported.operators


def _replace_exporter(monkeypatch: pytest.MonkeyPatch, exporter: Callable[..., Any]) -> None:
    row = BACKENDS["onnx"]
    monkeypatch.setattr("export.onnx.export_onnx", exporter)
    monkeypatch.setitem(
        BACKENDS, "onnx", dataclasses.replace(row, exporter="export.onnx:export_onnx")
    )
