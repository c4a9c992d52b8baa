"""``python -m benchmarks.against``: times exported files, PyTorch and a published file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import against
from edgeface.bundle import Bundle
from export import ExportRequest, export_model
from export.source import random_source


def test_files_stand_beside_torch(
    exported: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = [exported(target) for target in ("ncnn", "onnx")]
    code = against.main([*(str(b.path) for b in bundles), "--rounds", "3", "--format", "json"])
    result = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in result["rows"]}
    assert code == 0 and result["threads"] == 1
    assert list(rows) == [against.EAGER, "torch, folded", *(b.path.name for b in bundles)]
    assert rows[against.EAGER]["ratio"]["value"] == 1.0
    for row in rows.values():
        assert 0 < row["min"] <= row["median"] <= row["p90"]
        assert row["ratio"]["value"] == pytest.approx(
            row["median"] / rows[against.EAGER]["median"], rel=1e-2
        )


def test_folders_of_one_name_have_a_row_each(
    exported: Callable[..., Bundle], tmp_path: Path
) -> None:
    one = exported("onnx")
    other = Bundle.open(shutil.copytree(one.path, tmp_path / one.path.name))
    assert list(against.subjects([one, other], None, 1))[2:] == [str(one.path), str(other.path)]


def test_a_published_file_runs_in_ncnn(
    exported: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    """The ONNX file of the same network stands in for the published one, so ncnn runs it twice."""
    peer, own = exported("onnx"), exported("ncnn")
    code = against.main(
        [str(own.path), "--peer", str(peer.path / peer.manifest.primary), "--rounds", "3"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert code == 0 and len(lines) == 3
    assert lines[1].startswith(f"{Path(peer.manifest.primary).stem}, ncnn") and lines[2].startswith(
        own.path.name
    )


def test_bundles_of_several_networks_and_bad_input_are_refused(
    exported: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, request = exported("onnx"), ExportRequest("onnx", "fp32", 160, 128)
    other = export_model(random_source("scrfd-0.5g-bn", seed=0), request, tmp_path).bundle
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    for arguments, message in (
        ([str(other.path)], "is not of the network and size of"),
        (["--rounds", "1"], "error: --threads 1 --rounds 1: give"),
        (
            ["--peer", str(tmp_path / "none.onnx")],
            f"error: cannot read {tmp_path / 'none.onnx'}: No such file",
        ),
        (
            ["--peer", str(tmp_path / "broken.onnx")],
            f"error: pnnx does not convert {tmp_path / 'broken.onnx'} for 160x128 px: give",
        ),
    ):
        assert against.main([str(one.path), *arguments]) == 2
        assert message in capsys.readouterr().err
