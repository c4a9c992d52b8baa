"""Two exports of the same weights give identical bytes, in two processes and from two places."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from edgeface.backends import combinations
from edgeface.bundle import Bundle
from export import ExportRequest, Source, export_model, load_source

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        pytest.param(
            target,
            precision,
            marks=[pytest.mark.slow] if (target, precision) == ("tflite", "fp16") else [],
        )
        for target, precision in combinations("fp32", "fp16")
    ],
)
def test_identical_bytes(target: str, precision: str, pointed: Source, tmp_path: Path) -> None:
    """tflite fp16 is made from the float32 file in milliseconds, so it is compared in the slow
    suite only."""
    weights = tmp_path / "weights.safetensors"
    save_file(pointed.network.state_dict(), weights)
    source, request = load_source("edgeface-n", weights), ExportRequest(target, precision, 160, 128)
    first = export_model(source, request, tmp_path / "here").bundle
    command = [
        sys.executable,
        "-m",
        "export",
        "--target",
        target,
        "--precision",
        precision,
        "--size",
        "160x128",
        "--weights",
        str(weights),
        "--out",
        str(tmp_path / "another place"),
    ]
    environment = os.environ | {
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONHASHSEED": "1234",
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    second = Bundle.open(tmp_path / "another place" / first.path.name)
    assert all(second.read(name) == first.read(name) for name in first.manifest.files)
    assert second.manifest == first.manifest
