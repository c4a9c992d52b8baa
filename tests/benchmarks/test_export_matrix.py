"""The table of networks: it lists every exported file and the reason of every failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import export_matrix
from benchmarks.export_table import Records
from edgeface.cli.terminal import Terminal

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def test_every_file_is_a_cell_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one network and one target, the second run takes everything from the kept records."""
    monkeypatch.setattr(export_matrix, "listed", lambda: ["edgeface-n"])
    monkeypatch.setattr(export_matrix, "QUANTISED", ())
    monkeypatch.setattr(
        export_matrix, "combinations", lambda *precisions: [("onnx", p) for p in precisions]
    )
    options = export_matrix.Options(data=tmp_path, size="96x64", out=tmp_path)
    kept = tmp_path / "bench" / "matrix.json"
    with Terminal(shown=False) as terminal:
        rows = export_matrix.matrix(options, Records(kept), terminal)
        assert [(r["target"], r["precision"], r["ok"]) for r in rows] == [
            ("onnx", "fp32", True),
            ("onnx", "fp16", True),
        ]
        assert all(0 <= r["parity"] < 1e-4 for r in rows)
        files = {path: path.stat().st_mtime_ns for path in (tmp_path / "matrix").rglob("*.onnx")}
        assert len(files) == 2
        assert export_matrix.matrix(options, Records(kept), terminal) == rows
    assert all(path.stat().st_mtime_ns == written for path, written in files.items())
    text = export_matrix.document("96x64", rows)
    assert f"| edgeface-n | {rows[0]['parity']:.0e} | {rows[1]['parity']:.0e} |  |" in text
    assert "2 files at 96x64" in text and "0 failures" in text


def test_a_failure_is_a_row_and_its_reason(tmp_path: Path) -> None:
    """97 px is no multiple of 32, so this export fails."""
    options = export_matrix.Options(data=tmp_path, size="97x64", out=tmp_path)
    found = export_matrix._made(options, "edgeface-n", "onnx", "fp32", (97, 64))
    assert not found["ok"]
    row = {"model": "edgeface-n", "target": "onnx", "precision": "fp32"} | found
    text = export_matrix.document("97x64", [row])
    assert "| edgeface-n | FAILED |" in text and "1 failures" in text
    assert f"- edgeface-n onnx fp32: {found['error']}" in text
    assert not list(tmp_path.rglob("*.onnx"))
