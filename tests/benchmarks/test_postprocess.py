"""The decode + NMS benchmark counts what the decoder counts, and says if its limit holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.postprocess import LAYOUTS, SCENES, THRESHOLDS, main, make_outputs
from edgeface.decode import HeadLayout, check_outputs, decode, nms


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scenes_look_like_head_outputs(layout: HeadLayout) -> None:
    outputs = make_outputs(320, 256, 5, layout, np.random.default_rng(0))
    check_outputs(outputs, layout)
    boxes, scores, points = decode(outputs, layout, 0.5)
    assert (points is not None) == (layout.landmarks > 0)
    assert 0 < len(nms(boxes, scores)) <= len(boxes)


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "postprocess.json"
    code = main(["--size", "320x256", "--runs", "2", "--format", "json", "--save", str(saved)])
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads(saved.read_text())
    assert len(data["rows"]) == len(LAYOUTS) * len(SCENES) * len(THRESHOLDS)
    assert {(row["anchors"], row["landmarks"]) for row in data["rows"]} == {(1, 0), (2, 0), (1, 5)}
    assert code == int(data["worst_median_ms"] >= data["limit_ms"])
    for row in data["rows"]:
        assert (
            row["minimum_ms"] <= row["median_ms"] <= row["p90_ms"]
            and row["kept"] <= row["candidates"]
        )


def test_table_and_bad_size(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--size", "320x256", "--runs", "1"])
    assert "limit 2.0 ms" in capsys.readouterr().out
    assert main(["--size", "321x256"]) == 2
    assert "multiples of 32" in capsys.readouterr().err
