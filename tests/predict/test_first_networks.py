"""Choice of the networks to measure first, tested on the measurements in the project."""

from __future__ import annotations

import json

import pytest

from benchmarks.latency_model import TABLES
from benchmarks.research.first_networks import main
from edgeface.predict.first_networks import first_networks
from edgeface.predict.table import LatencyTable

COUNT = 44


@pytest.mark.parametrize("kind", ["ncnn-fp32", "tflite-int8"])
def test_the_rest_is_predicted_better_than_from_random_ones(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--kinds", kind, "--count", str(COUNT), "--draws", "3", "--format", "json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["chosen"]["within_10"] > max(each["within_10"] for each in result["random"])


def test_table_and_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kinds", "onnx-fp32", "--count", "20", "--draws", "1"]) == 0
    assert "within 10 %, chosen" in capsys.readouterr().out
    assert main(["--kinds", "onnx-fp32", "--count", "9999"]) == 2
    assert "--count must be 20 to " in capsys.readouterr().err
    assert main(["--kinds", "onnx-fp32", "--draws", "0"]) == 2
    assert "--draws must be from 1 to 1000, got 0" in capsys.readouterr().err


def test_as_many_as_there_are() -> None:
    table = LatencyTable.load(TABLES / "ncnn-fp32-640x480-1t.json")
    few = [r.architecture for r in table.records[:5]]
    assert sorted(first_networks(few, (640, 480), "ncnn", 9)) == list(range(5))
