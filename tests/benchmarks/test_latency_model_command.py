"""The table of the latency model, for made-up measurements and those in the repository."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.latency_model import KINDS, LEARNED, TABLES, main, table_path
from benchmarks.prediction import HELD_OUT_FROM, evaluate
from edgeface.architecture.layers import macs_of
from edgeface.predict.table import LatencyTable, Record, Setting
from edgeface.search.space import SPACES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latency table of a device with 20 ps per multiply-accumulate and 1 ms per network."""
    records = []
    for space in (SPACES[name] for name in LEARNED):
        for seed in (*range(20), *range(HELD_OUT_FROM, HELD_OUT_FROM + 10)):
            architecture = space.sample(seed)
            ms = 1 + macs_of(architecture, 640, 480) * 2e-8
            records.append(Record(architecture, ms / 10, 0.99 * ms / 10, 1.01 * ms / 10, ms))
    path = tmp_path_factory.mktemp("tables")
    setting = Setting(target="onnx")
    LatencyTable(setting, "made up", "onnxruntime 0", tuple(records), (10.0, 11.0), 300.0).save(
        table_path(path, setting)
    )
    return path


def test_figures(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If latency is linear in MACs, the model and MACs predict it; the parameter count does not."""
    plot = tmp_path / "scatter.png"
    arguments = ["--tables", str(folder), "--kinds", "onnx-fp32"]
    assert main([*arguments, "--plot", str(plot), "--format", "json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["target"], result["precision"], result["learned"], result["held_out"]) == (
        "onnx",
        "fp32",
        60,
        30,
    )
    assert result["within_10"] == 1.0 and result["spearman"] > 0.98
    assert result["flops"] == {"within_10": 1.0, "spearman": 1.0}
    assert result["params"]["within_10"] < 0.7
    assert result["learning_device_minutes"] == pytest.approx(300 * 60 / 90 / 60, abs=0.1)
    assert result["drift"] == pytest.approx(0.1)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(arguments) == 0
    assert "onnx fp32" in capsys.readouterr().out


def test_what_is_held_out_is_not_learned(folder: Path) -> None:
    """Spoiling the latency of every held-out network changes no prediction."""
    table = LatencyTable.load(table_path(folder, Setting(target="onnx")))
    spoilt = tuple(
        (
            dataclasses.replace(r, ratio=5 * r.ratio, low=4.9 * r.ratio, high=5.1 * r.ratio)
            if int(r.architecture.name.rpartition("-")[2]) >= HELD_OUT_FROM
            else r
        )
        for r in table.records
    )
    before, after = evaluate(table), evaluate(dataclasses.replace(table, records=spoilt))
    assert before.predictions == after.predictions
    assert after.model.within_10 == 0.0


def test_a_missing_table_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tables", str(tmp_path), "--kinds", "onnx-fp32"]) == 2
    err = capsys.readouterr().err
    assert "cannot read" in err and "--measure" in err


@pytest.mark.parametrize("kind", KINDS)
def test_the_tables_of_the_checkout(kind: str) -> None:
    """The README's claim on the tables holds.

    It says that nine in ten predictions are within 10 %, far more than for MACs or parameters."""
    target, _, precision = kind.partition("-")
    result = evaluate(
        LatencyTable.load(table_path(TABLES, Setting(target=target, precision=precision)))
    )
    assert result.model.within_10 >= 0.88 and result.model.spearman >= 0.98
    assert result.model.within_10 >= max(result.flops.within_10, result.params.within_10) + 0.3
    assert result.learning_s <= 30 * 60
