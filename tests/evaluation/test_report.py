"""What is printed and drawn: figures always come with their protocol."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeface.errors import DataError, MissingExtraError, OutputError
from edgeface.evaluation.report import EVALUATOR, EvaluationProtocol, Report
from edgeface.evaluation.wider import SETTINGS, GroundTruth, ImageFaces, WiderResult, evaluate

PROTOCOL = EvaluationProtocol("640", "padded to multiples of 32", 0.02, 0.45, "torch 2")


@pytest.fixture(scope="module")
def result() -> WiderResult:
    """One face of 50 px, in the hard setting only, found with a lower score than a false box."""
    none, one = np.array([False]), np.array([True])
    faces = ImageFaces(
        np.array([[100.0, 100, 40, 50]]), {"easy": none, "medium": none, "hard": one}
    )
    rows = np.array([[500, 500, 40, 50, 0.9], [100, 100, 40, 50, 0.5]])
    return evaluate({"e/a": rows}, GroundTruth({"e/a": faces}))


def test_json_has_the_promised_keys(result: WiderResult) -> None:
    data = json.loads(
        json.dumps(Report.of("edgeface-n", PROTOCOL, result).to_json(), allow_nan=False)
    )
    assert data == {
        "model": "edgeface-n",
        "scale": "640",
        "input": "padded to multiples of 32",
        "score_threshold": 0.02,
        "nms": 0.45,
        "runtime": "torch 2",
        "heights": "annotated",
        "evaluator": EVALUATOR,
        "images": 1,
        "easy": None,
        "medium": None,
        "hard": 0.5,
        "by_height": {"0-16": None, "16-32": None, "32-96": 0.5, "96+": None},
        "faces": {"easy": 0, "medium": 0, "hard": 1, "0-16": 0, "16-32": 0, "32-96": 1, "96+": 0},
        "operating_points": [
            {
                "score": score / 10,
                "precision": precision,
                "recall": recall,
                "false_boxes": 1.0,
                "recall_by_height": {"0-16": None, "16-32": None, "32-96": recall, "96+": None},
            }
            for scores, precision, recall in ((range(1, 6), 0.5, 1.0), (range(6, 10), 0.0, 0.0))
            for score in scores
        ],
    }


def test_operating_points_begin_where_boxes_were_dropped(result: WiderResult) -> None:
    kept = replace(PROTOCOL, score_threshold=0.3)
    points = Report.of("edgeface-n", kept, result).operating_points
    assert [point.score for point in points] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_reports_of_before_operating_points_are_read(result: WiderResult) -> None:
    report = Report.of("edgeface-n", PROTOCOL, result)
    data = report.to_json()
    del data["operating_points"]
    assert Report.from_json(data) == replace(report, operating_points=())


def test_json_round_trip(result: WiderResult) -> None:
    report = Report.of("edgeface-n", PROTOCOL, result)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize("change", [{"hard": None, "harder": 1.0}, {"nms": "absent"}])
def test_json_of_something_else_is_refused(result: WiderResult, change: dict[str, object]) -> None:
    data = {**Report.of("edgeface-n", PROTOCOL, result).to_json(), **change}
    data = {key: value for key, value in data.items() if value != "absent"}
    with pytest.raises(DataError, match="not an evaluation report"):
        Report.from_json(data)


def test_the_figure_states_protocol_and_figures(result: WiderResult) -> None:
    pytest.importorskip("matplotlib")
    from edgeface.evaluation.plots import draw_curves

    figure = draw_curves(Report.of("edgeface-n", PROTOCOL, result), result)
    title = figure.get_suptitle()
    for part in (
        "edgeface-n",
        "on 1 image\n",
        "long side 640",
        "score >= 0.02",
        "NMS IoU 0.45",
        "torch 2",
        EVALUATOR,
    ):
        assert part in title
    labels = [axes.get_legend_handles_labels()[1] for axes in figure.axes]
    assert labels == [["hard: AP 0.500 (1 face)"], ["32-96: AP 0.500 (1 face)"]]
    legend = figure.axes[1].get_legend()
    assert legend is not None and legend.get_title().get_text() == "face height, annotated px"
    recall, precision = map(np.asarray, figure.axes[0].lines[0].get_data())
    assert set(recall.tolist()) == {1.0} and set(precision.tolist()) == {0.5}


def test_a_png_is_written_alike_each_time(result: WiderResult, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from edgeface.evaluation.plots import plot_curves

    report = Report.of("edgeface-n", PROTOCOL, result)
    for name in ("a.png", "b.png"):
        plot_curves(tmp_path / name, report, result)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG") and content == (tmp_path / "b.png").read_bytes()
    with pytest.raises(OutputError):
        plot_curves(tmp_path / "a.png" / "c.png", report, result)


def test_curves_without_any_face(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from edgeface.evaluation.plots import plot_curves

    empty = evaluate(
        {},
        GroundTruth(
            {"e/a": ImageFaces(np.zeros((0, 4)), dict.fromkeys(SETTINGS, np.zeros(0, bool)))}
        ),
    )
    plot_curves(tmp_path / "a.png", Report.of("edgeface-n", PROTOCOL, empty), empty)
    assert (tmp_path / "a.png").exists()


def test_without_matplotlib_one_line_says_what_to_install(
    result: WiderResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeface.evaluation.plots import draw_curves

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeface\[eval\]'"):
        draw_curves(Report.of("edgeface-n", PROTOCOL, result), result)


def test_without_scipy_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeface.evaluation.wider import load_ground_truth

    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeface\[eval\]'"):
        load_ground_truth(tmp_path)
