"""The training speed by parts, on the smallest crops."""

from __future__ import annotations

import json

import pytest

from benchmarks import training_speed


def test_parts_of_a_step_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--steps", "5", "--batch", "2", "--size", "64", "--precision", "fp32", "--no-compile")
    assert training_speed.main([*flags, "--format", "json"]) in (0, 1)
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    whole_ms = 1e3 * 2 / row["images_per_cpu_s"]
    assert set(row["parts_ms"]) == set(training_speed.PARTS) and min(row["parts_ms"].values()) > 0
    assert 0.5 * whole_ms < sum(row["parts_ms"].values()) < 1.5 * whole_ms
    assert row["crops_share"] == pytest.approx(row["parts_ms"]["crops"] / whole_ms)


def test_too_few_steps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert training_speed.main(["--steps", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: --steps must be at least 5")
