"""The table of exports: it has the latency of the files that exist."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.export_table import (
    Options,
    Records,
    add_latency,
    document,
    own_table,
    plot,
    summary,
)
from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.errors import DataError, OptionError

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
FILES = ("edgeface-n-onnx-fp32-640x480-dynamic", "edgeface-n-tflite-fp32-640x480")


@pytest.fixture(scope="module")
def options() -> Options:
    return Options(data=Path("wider"), out=zoo.BUNDLES, rounds=2)


@pytest.fixture(scope="module")
def records(options: Options) -> dict[str, dict[str, Any]]:
    """Records of two shipped files, really timed; their AP is made up and not tested here."""
    found: dict[str, dict[str, Any]] = {}
    for name in FILES:
        bundle = Bundle.open(zoo.BUNDLES / name)
        found[name] = {
            "target": bundle.manifest.target,
            "precision": bundle.manifest.precision,
            "bytes": bundle.size_bytes,
            "weights": bundle.manifest.weights.sha256,
            "parity": 1e-6,
            "snr_db": None,
            "reverted": [],
            "images": 1,
            "protocol": "long side 640, score >= 0.02",
            **dict.fromkeys(("easy", "medium", "hard"), 0.5),
        }
    add_latency(options, found)
    return found


def test_what_was_timed_is_in_the_tables(records: dict[str, dict[str, Any]]) -> None:
    rows = own_table(records).splitlines()[2:]
    printed = summary(records)
    for row, (name, record) in zip(rows, records.items(), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        median = record["latency"]["median"]
        assert 0.1 < median < 10_000
        assert cells[-2:] == [f"{median:.2f}", "1.00"]
        assert name in printed and f"{median:.2f}" in printed


def test_page_and_plot(
    options: Options, records: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    conditions = {"cpu": "a CPU", "cores": 2, "load_1min": 0.1}
    text = document(options, records, conditions)
    assert own_table(records) in text and records[FILES[0]]["weights"] in text
    plot(tmp_path / "exports.png", records, "title")
    assert (tmp_path / "exports.png").stat().st_size > 1000


def test_no_face_of_a_setting_is_a_dash(
    options: Options, records: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Photos without easy or hard faces have no such AP; that shows after hours of work."""
    faceless = {name: record | {"easy": None, "hard": None} for name, record in records.items()}
    for row in own_table(faceless).splitlines()[2:]:
        assert [cell.strip() for cell in row.split("|")][6:10] == ["-", "50.00", "-", "-"]
    assert all(
        row.split()[-4:-1] == ["-", "0.5000", "-"] for row in summary(faceless).splitlines()[1:]
    )
    plot(tmp_path / "exports.png", faceless, "title")


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"seed": -1}, {"max_drop": -1.0}, {"max_drop": math.nan}]
)
def test_a_mistake_is_told_before_the_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Options(data=Path("wider"), **wrong)


@pytest.mark.parametrize("text", ["{", "[]", '{"files": 3}', "\xff"])
def test_damaged_results_are_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "exports.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(DataError, match=r"exports\.json is damaged, or not what"):
        Records(path)
