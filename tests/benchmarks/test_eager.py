"""``python -m benchmarks.eager``: exported files beside PyTorch, on files that were really exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import eager
from edgeface.bundle import Bundle
from export import ExportRequest, export_model
from export.source import random_source


def test_files_stand_beside_torch(exported: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]) -> None:
    bundles = [exported(target) for target in ("ncnn", "onnx")]
    code = eager.main([*(str(b.path) for b in bundles), "--rounds", "3", "--format", "json"])
    result = json.loads(capsys.readouterr().out)
    assert code == 0 and result["model"] == bundles[0].manifest.model and result["threads"] == 1
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [eager.EAGER, "torch, folded", "ncnn fp32", "onnx fp32"]
    assert rows[eager.EAGER]["speedup"] == {"value": 1.0, "low": 1.0, "high": 1.0, "verdict": "tie"}
    for row in rows.values():
        assert 0 < row["min"] <= row["median"] <= row["p90"]
        assert row["speedup"]["value"] == pytest.approx(rows[eager.EAGER]["median"] / row["median"], rel=1e-3)


def test_every_subject_runs_the_same_photo(exported: Callable[..., Bundle]) -> None:
    runs = eager.subjects([exported("onnx")], threads=1)
    folded, onnx = (runs[name]() for name in ("torch, folded", "onnx fp32"))
    assert list(folded) == list(onnx) and all(folded[name].shape == onnx[name].shape for name in onnx)
    assert all(np.isfinite(values).all() for values in onnx.values())


def test_bundles_of_several_networks_and_bad_numbers_are_refused(exported: Callable[..., Bundle], tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    one = exported("onnx")
    request = ExportRequest("onnx", "fp32", 160, 128)
    other = export_model(random_source("scrfd-0.5g-bn", seed=0), request, tmp_path).bundle
    assert eager.main([str(one.path), str(other.path)]) == 2
    assert "is not of the network and size of" in capsys.readouterr().err
    assert eager.main([str(one.path), "--rounds", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: --threads 1 --rounds 1: give")
