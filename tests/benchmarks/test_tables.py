"""The benchmark commands run end to end on small inputs and print their measurements."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import __main__ as tables
from benchmarks import (
    bench,
    export_matrix,
    export_table,
    latency_model,
    learning_curve,
    model_card,
    postprocess,
    ready,
    systems,
    training_speed,
)
from edgeface import zoo
from edgeface.models import build, get_architecture
from edgeface.training.options import TrainOptions
from edgeface.zoo import save_weights


@pytest.fixture
def wider(tmp_path: Path, write_mat: Callable[[Path, Mapping[str, Any]], Path]) -> Path:
    """Two validation photos with one annotated face each."""
    root = tmp_path / "wider"
    faces = ([[10, 10, 40, 50]], {"easy": [0], "medium": [0], "hard": [0]})
    write_mat(root, {"event/a": faces, "event/b": faces})
    folder = root / "WIDER_val" / "images" / "event"
    folder.mkdir(parents=True)
    for name in "ab":
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((96, 128, 3), 90, np.uint8))
    return root


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a finished training of edgeface-n, with random weights."""
    run = tmp_path / "run"
    for step in (10, 20):
        save_weights(
            build("edgeface-n", seed=step), run / "snapshots" / f"step-{step:07d}.safetensors"
        )
    save_weights(build("edgeface-n", seed=20), run / "weights.safetensors")
    options = {k: v for k, v in vars(TrainOptions(samples=640)).items() if k != "augment"}
    (run / "config.json").write_text(
        json.dumps(
            {
                "architecture": get_architecture("edgeface-n").to_json(),
                "options": options,
                "images": 100,
                "faces": 300,
            }
        )
    )
    return run


def test_learning_curve_then_card(
    finished: Path, wider: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(finished), "--data", str(wider), "--format", "json"]
    assert learning_curve.main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(r["step"], r["samples"], r["epoch"]) for r in rows] == [(10, 320, 3.2), (20, 640, 6.4)]
    assert (finished / "curve.png").read_bytes().startswith(b"\x89PNG")
    (finished / "snapshots" / "step-0000010.safetensors").write_bytes(
        b"evaluated already, not read again"
    )
    assert learning_curve.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == rows, "read from curve.csv"

    shelf = tmp_path / "zoo"
    shelf.mkdir()
    (shelf / "index.json").write_text("{}")
    assert (
        model_card.main(
            [str(finished), "--data", str(wider), "--note", "Two photos.", "--zoo", str(shelf)]
        )
        == 0
    )
    entry = zoo.read_index(shelf)["edgeface-n"]
    network = zoo.network_with(
        entry.architecture, zoo.load_weights_file(shelf / entry.weights, entry.sha256)
    )
    assert network.state_dict()["backbone.stem.conv.weight"].equal(
        build("edgeface-n", seed=20).state_dict()["backbone.stem.conv.weight"]
    )
    card = (shelf / entry.card).read_text()
    assert entry.sha256 in card and "Two photos." in card and "640 crops (6.4 epochs" in card


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ({}, "no pre-training"),
        ({"init": None, "branch": None}, "no pre-training"),
        ({"init": "1" * 64, "branch": None}, "begun with the weights of SHA-256 `111"),
        ({"init": None, "branch": {"step": 4200, "sha256": "2" * 64}}, "after 4,200 steps"),
    ],
)
def test_a_card_says_what_the_training_began_with(
    start: dict[str, Any], told: str, finished: Path
) -> None:
    config = json.loads((finished / "config.json").read_text()) | start
    text = model_card._training(config)
    assert told in text and (told == "no pre-training") == ("no pre-training" in text)


def test_ctrl_c_in_a_part_ends_all_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in one part ends the whole command; a part that fails does not."""
    begun: list[str] = []

    def pressed(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    def next_part(arguments: list[str]) -> int:
        begun.append(arguments[-1])
        return 0

    monkeypatch.setattr(training_speed, "main", next_part)
    monkeypatch.setattr(postprocess, "measure", pressed)
    assert tables.main(["--out", str(tmp_path)]) == 130 and begun == []
    assert "stopped" in capsys.readouterr().err
    monkeypatch.setattr(postprocess, "main", lambda arguments: 1)
    assert tables.main(["--out", str(tmp_path)]) == 1
    assert begun == [str(tmp_path / "bench" / "training_speed.json")]


def test_curve_and_card_of_photos_without_easy_faces(
    finished: Path,
    wider: Path,
    tmp_path: Path,
    write_mat: Callable[[Path, Mapping[str, Any]], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    faces = ([[10, 10, 40, 50]], {"easy": [], "medium": [], "hard": [0]})
    write_mat(wider, {"event/a": faces, "event/b": faces})
    for _ in range(2):  # measured, then read from curve.csv
        assert learning_curve.main([str(finished), "--data", str(wider), "--format", "json"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [(row["easy"], row["medium"]) for row in rows] == [(None, None)] * 2
        assert all(row["hard"] is not None for row in rows)
    assert learning_curve.main([str(finished), "--data", str(wider)]) == 0
    (tmp_path / "index.json").write_text("{}")
    assert model_card.main([str(finished), "--data", str(wider), "--zoo", str(tmp_path)]) == 0
    assert re.search(r"AP +- +- +0\.\d{4}", (tmp_path / "edgeface-n.md").read_text())


@pytest.mark.parametrize("command", [learning_curve, model_card])
def test_no_run_is_one_line(
    command: Any, tmp_path: Path, wider: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(tmp_path / "nowhere"), "--data", str(wider)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("command", "arguments", "kept"),
    [
        (bench, "", "dist/bench/latency.json"),
        (
            bench,
            "--device ssh://pi@host?python=/bin/python3",
            "dist/bench/ssh-pi@host/context.json",
        ),
        (bench, "--results other", "other/latency.json"),
        (export_table, "--data wider", "dist/bench/exports.json"),
        (export_matrix, "--data wider", "dist/bench/matrix.json"),
        (export_matrix, "--data wider --docs pages", "pages/networks.md"),
        (latency_model, "--tables mine", "mine/onnx-fp32-640x480-1t.json"),
        (learning_curve, "run --data wider", "run/curve.csv"),
        (ready, "--data wider --out files", "files/index.json"),
        (systems, "", "dist/bench/systems.json"),
    ],
)
def test_save_spares_what_the_command_keeps(
    command: Any,
    arguments: str,
    kept: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also before that file is there: a first run would replace it at its end."""
    monkeypatch.chdir(tmp_path)
    save = str(tmp_path / "dist" / ".." / kept)
    assert command.main([*arguments.split(), "--save", save]) == 2
    assert "is a file in which this command keeps results" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", [learning_curve, model_card])
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "{}"),
        ("config.json", "[]"),
        ("config.json", "{"),
        ("curve.csv", "epoch,loss\n1,2\n"),
        ("curve.csv", "step,samples,epoch,easy,medium,hard\nlast,1,1,1,1,1\n"),
        ("curve.csv", "step,samples,epoch,easy,medium,hard\n10,1,1,1\n"),
    ],
)
def test_a_foreign_file_in_the_run_is_one_line(
    command: Any,
    file: str,
    text: str,
    finished: Path,
    wider: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (finished / file).write_text(text)
    (tmp_path / "index.json").write_text("{}")
    shelf = ["--zoo", str(tmp_path)] if command is model_card else []
    assert command.main([str(finished), "--data", str(wider), *shelf]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and (file in error or str(finished) in error)
