"""Work that only the ncnn exporter does: calling pnnx, and writing names, sizes and float16 weights
itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface.bundle import Bundle
from edgeface.errors import ExportError, MissingExtraError
from edgeface.formats.ncnn import WEIGHTED, NcnnModel, parse_model

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("pnnx", reason="pnnx is not installed")

from edgeface.models.detector import deployable
from export.ncnn import export_ncnn, pnnx_program
from export.pipeline import export_model
from export.request import ExportRequest
from export.source import Source, random_source


def read(bundle: Bundle) -> NcnnModel:
    return parse_model(bundle.read(), bundle.read("edgeface-n.bin"))


def test_names(exported: Callable[..., Bundle]) -> None:
    bundle = exported("ncnn")
    model = read(bundle)
    assert model.inputs == ("input",) and model.layers[0].name == "input"
    assert sorted(model.outputs) == sorted(bundle.manifest.head_layout.output_names)
    assert sorted(bundle.manifest.files) == ["edgeface-n.bin", "edgeface-n.param"]


def test_activations_are_fused(exported: Callable[..., Bundle]) -> None:
    """The only ReLU layers left follow an addition."""
    model = read(exported("ncnn"))
    writers = {name: layer for layer in model.layers for name in layer.tops}
    assert all(
        writers[layer.bottoms[0]].type == "BinaryOp"
        for layer in model.layers
        if layer.type == "ReLU"
    )
    assert "BatchNorm" not in {layer.type for layer in model.layers}


def test_a_fixed_file_states_its_size(exported: Callable[..., Bundle]) -> None:
    assert dict(read(exported("ncnn")).layers[0].params) == {0: 160, 1: 128, 2: 3}
    assert dict(read(exported("ncnn", "fp32", True)).layers[0].params) == {}


def test_float16_rounds_to_nearest(exported: Callable[..., Bundle]) -> None:
    """Only weights become float16. pnnx itself would truncate them, with up to twice the error."""
    full, half = read(exported("ncnn")), read(exported("ncnn", "fp16"))
    for one, other in zip(full.layers, half.layers, strict=True):
        if one.type in WEIGHTED:
            assert other.weights["weight"].dtype == np.float16
            assert np.array_equal(other.weights["weight"], one.weights["weight"].astype(np.float16))
            assert other.weights["bias"].dtype == np.float32
            assert np.array_equal(other.weights["bias"], one.weights["bias"])


def test_group_norm_at_any_size(tmp_path: Path) -> None:
    """Group norm stays one layer, and the file takes sizes it was not traced at: the parity check
    runs at one of them."""
    done = export_model(
        random_source("damofd-0.5g", 0),
        ExportRequest("ncnn", "fp32", 96, 64, dynamic=True),
        tmp_path,
    )
    assert done.operators["GroupNorm"] == 12 and "Reshape" not in done.operators
    assert "noise_other_size" in done.parity.cases


def test_nothing_is_left_behind(
    lively: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pnnx writes to the current folder unless every output has a path. Temporary folders are
    removed."""
    (tmp_path / "here").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    export_ncnn(deployable(lively.network), ExportRequest("ncnn", "fp32", 96, 64))
    assert [*(tmp_path / "here").iterdir(), *(tmp_path / "tmp").iterdir()] == []


def test_program_is_the_executable_itself() -> None:
    program = pnnx_program()
    assert program.is_file() and os.access(program, os.X_OK)
    assert not program.read_bytes().startswith(b"#!")


def test_without_pnnx(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("export.ncnn.metadata.files", missing)
    with pytest.raises(MissingExtraError, match=r"'pnnx': run: pip install 'edgeface\[export\]'"):
        pnnx_program()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", r"pnnx failed on edgeface-n \(exit code 3\): run again with --verbose"),
        ("exit 0", "pnnx failed on edgeface-n: .*No such file"),
        (
            "printf 7767517 > ncnnparam; : > ncnnbin",
            "pnnx wrote what this edgeface cannot read: .*starts with 7767517",
        ),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for pnnx is a shell script")
def test_pnnx_that_fails(
    script: str, message: str, lively: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pnnx"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("export.ncnn.pnnx_program", lambda: program)
    with pytest.raises(ExportError, match=message) as caught:
        export_ncnn(deployable(lively.network), ExportRequest("ncnn", "fp32", 96, 64))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_no_room_for_what_pnnx_reads(tmp_path: Path) -> None:
    """The command fails with one line, and the process is not killed."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        "from edgeface.cli import main; raise SystemExit(main())"
    )
    out = tmp_path / "out"
    command = ["export", "--target", "ncnn", "--size", "64x64", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert not out.exists()
