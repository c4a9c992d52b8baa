"""The table of systems: it is complete, quick, and has no figure that was not measured."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from benchmarks import systems
from benchmarks.published import PUBLISHED
from edgeface import zoo
from edgeface.architecture.registry import listed
from edgeface.models import build
from edgeface.zoo import save_weights


@pytest.fixture(scope="module")
def rows() -> list[systems.System]:
    return systems.systems()


def test_every_system_has_a_row(rows: list[systems.System]) -> None:
    names = [row.name for row in rows]
    assert names == list(listed())
    families = {
        family: sum(name.startswith(family) for name in names)
        for family in ("damofd", "scrfd", "extd", "asfd", "eresfd-16", "edgeface")
    }
    assert families | {"edgeface": 1} == {
        "damofd": 8,
        "scrfd": 8,
        "extd": 18,
        "asfd": 7,
        "eresfd-16": 1,
        "edgeface": 1,
    }
    assert families["edgeface"] >= 1


def test_sizes_and_published_figures(rows: list[systems.System]) -> None:
    """EXTD's figures are those of extd.md: 4.048 G MACs run at 640x480, 4.52 G as published."""
    by_name = {row.name: row for row in rows}
    extd = by_name["extd-fpn-32-prelu"]
    assert (extd.params, round(extd.macs / 1e9, 3)) == (62_939, 4.048)
    assert extd.macs_as_published is not None and round(extd.macs_as_published / 1e9, 2) == 4.52
    assert extd.published is not None and extd.published.hard == 0.825
    assert by_name["eresfd-16"].params == 92_208
    assert set(PUBLISHED) <= set(by_name)
    assert {row.name for row in rows if row.published is None} == {
        name for name in by_name if name.startswith("edgeface") or name == "eresfd-32"
    }
    for row in rows:
        assert (row.macs_as_published is not None) == row.name.startswith("extd-")
        assert (
            row.published is None
            or row.published.easy >= row.published.medium >= row.published.hard
        )


def test_nothing_is_measured_without_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--format", "json", "--results", str(tmp_path / "none.json")]
    assert systems.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["macs_at"] == "640x480" and len(result["systems"]) == len(listed())
    for row in result["systems"]:
        assert (row["ap"], row["latency_ms"], row["export"], row["int8"]) == ({}, {}, {}, {})


def test_measured_ap_is_kept(
    tmp_path: Path,
    write_mat: Callable[[Path, Mapping[str, Any]], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, weights, results = tmp_path / "wider", tmp_path / "weights", tmp_path / "systems.json"
    write_mat(root, {"event/a": ([[10, 10, 40, 50]], {"easy": [0], "medium": [0], "hard": [0]})})
    folder = root / "WIDER_val" / "images" / "event"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.jpg"), np.full((96, 128, 3), 90, np.uint8))
    save_weights(build("eresfd-16", seed=0), weights / "eresfd-16.safetensors")
    monkeypatch.setattr(zoo, "names", lambda: ())  # shipped networks would take seconds
    arguments = ["--format", "json", "--results", str(results)]
    measuring = [
        *arguments,
        *shlex.split(f"--measure --data {root} --weights {weights} --scales original"),
    ]
    assert systems.main(measuring) == 0
    (row,) = (r for r in json.loads(capsys.readouterr().out)["systems"] if r["ap"])
    assert row["name"] == "eresfd-16" and row["ap"]["original"]["images"] == 1
    kept = results.read_bytes()
    assert systems.main(measuring) == 0 and results.read_bytes() == kept
    assert "measuring" not in capsys.readouterr().err, "the same weights are not measured twice"

    results.write_text("[]")
    assert systems.main(arguments) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("error: ") and "is not what benchmarks.systems --measure writes" in error
    )
    assert error.count("\n") == 1


def test_records_fill_the_row(
    exported: Callable[..., Any], tmp_path: Path, rows: list[systems.System]
) -> None:
    """Float and INT8 Bundles in the folder appear in the row of their network."""
    for precision in ("fp32", "int8"):
        bundle = exported("ncnn", precision)
        (tmp_path / bundle.path.name).symlink_to(bundle.path)
    systems.add_records(rows, tmp_path)
    row = next(r for r in rows if r.name == "edgeface-n")
    assert list(row.export) == ["ncnn fp32 160x128"] and 0 < row.export["ncnn fp32 160x128"] <= 1e-4
    assert list(row.int8) == ["ncnn 160x128"] and row.int8["ncnn 160x128"]["snr_db"]
    line = next(
        text
        for text in systems.as_table(rows, ["640"]).splitlines()
        if text.startswith("edgeface-n ")
    )
    assert "ncnn" in line and " dB" in line


def test_exports_what_the_folder_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exports to one target at a small size: an existing Bundle is not made again.

    Every valid record gets a column."""
    monkeypatch.setattr(systems, "SIZE", (160, 128))
    monkeypatch.setattr(systems, "export_targets", lambda: ("onnx",))
    arguments = shlex.split(
        f"--records {tmp_path} --results {tmp_path / 'none.json'} --only eresfd-16"
    )
    assert systems.main([*arguments, "--export"]) == 0
    (bundle,) = tmp_path.iterdir()
    assert bundle.name == "eresfd-16-onnx-fp32-160x128"
    made = {file: file.stat().st_mtime_ns for file in bundle.iterdir()}
    capsys.readouterr()
    assert systems.main([*arguments, "--export", "--format", "json"]) == 0
    assert {file: file.stat().st_mtime_ns for file in bundle.iterdir()} == made
    (row,) = json.loads(capsys.readouterr().out)["systems"]
    assert list(row["export"]) == ["onnx fp32 160x128"]


def test_latency_of_each_runtime(rows: list[systems.System]) -> None:
    row = next(r for r in rows if r.name == "eresfd-16")
    timed = dataclasses.replace(
        row,
        latency_ms={
            "ncnn fp32 640x480 1 local": 15.62,
            "ncnn int8 640x480 1 local": 9.07,
            "onnx fp32 640x480 2 local": 8.0,
            "onnx fp32 320x240 1 local": 4.0,
        },
    )
    text = systems.as_table([timed], ["640"])
    assert "15.6/9.1" in text and "8.0" not in text and "4.0" not in text


def test_only_shown_figures_are_compared(rows: list[systems.System]) -> None:
    def of(photos: str) -> systems.SystemAccuracy:
        return systems.SystemAccuracy(0.5, 0.5, 0.5, 2, "x", "0", f"{photos}; scale")

    row = dataclasses.replace(rows[0], ap={"640": of("2 photos a"), "multi": of("3 photos b")})
    assert "different photos" in systems.as_table([row], ["640", "multi"])
    assert "different photos" not in systems.as_table([row], ["640"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--records", "missing"], "missing is not a folder"),
        (["--export"], "--export needs --records FOLDER"),
        (["--weights", "missing"], "--weights missing is not a folder"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert systems.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
