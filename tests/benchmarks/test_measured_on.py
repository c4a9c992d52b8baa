"""A kept figure is used only for the same photos and protocol; else it is measured again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from benchmarks import export_matrix, export_table, learning_curve, systems
from benchmarks.measured_on import calibration_photos, measured_on, photos_of, validation_photos
from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.cli.terminal import Terminal
from edgeface.evaluation import evaluate_model
from edgeface.models import build, get_architecture
from edgeface.zoo import save_weights

FACE = ([[10, 10, 40, 50]], {"easy": [0], "medium": [0], "hard": [0]})


def add_photo(folder: Path, name: str, level: int = 90) -> Path:
    """Write a JPEG of one grey level to the event folder ``event`` of ``folder``."""
    path = folder / "images" / "event" / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((96, 128, 3), level, np.uint8))
    return path


@pytest.fixture
def wider(tmp_path: Path, write_mat: Callable[[Path, Mapping[str, Any]], Path]) -> Path:
    """Two annotated validation photos, one of which exists, and one training photo."""
    root = tmp_path / "wider"
    write_mat(root, {"event/a": FACE, "event/b": FACE})
    add_photo(root / "WIDER_val", "a")
    add_photo(root / "WIDER_train", "t")
    return root


def test_photos_are_told_apart(
    wider: Path, tmp_path: Path, write_mat: Callable[[Path, Mapping[str, Any]], Path]
) -> None:
    """The digest of a photo set covers the annotated photos that exist, their bytes and faces."""
    one = validation_photos(wider)
    assert one.startswith("1 photo ")
    add_photo(wider / "WIDER_val", "nobody annotated this")
    assert validation_photos(wider) == one
    path = add_photo(wider / "WIDER_val", "b")
    two = validation_photos(wider)
    assert two.startswith("2 photos ") and two[-12:] != one[-12:]
    path.write_bytes(path.read_bytes() + b"longer")
    changed = validation_photos(wider)
    path.unlink()
    assert validation_photos(wider) == one != changed != two
    write_mat(wider, {"event/a": ([[10, 10, 41, 50]], FACE[1])})
    assert validation_photos(wider) not in (one, two, changed)


@pytest.mark.parametrize("scale", ["640", "original", "multi"])
def test_the_protocol_is_the_one_that_is_followed(wider: Path, scale: str) -> None:
    asked = measured_on(validation_photos(wider), scale)
    followed = str(evaluate_model("edgeface-n", wider, scale).report.protocol)
    for words in asked.partition("; ")[2].partition(", ")[2].split("; "):
        assert words in followed
    assert photos_of(asked) == validation_photos(wider)
    assert len({measured_on("", s, a) for s in ("640", "multi") for a in (True, False)}) == 3


def test_a_file_is_evaluated_again_on_other_photos(wider: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(zoo.BUNDLES / "edgeface-n-tflite-fp32-640x480")
    options = export_table.Options(data=wider, out=tmp_path)
    path = tmp_path / "exports.json"
    seen = []
    with Terminal(shown=False) as terminal:
        for photo in ("", "b", ""):
            if photo:
                add_photo(wider / "WIDER_val", photo)
            kept = export_table.Records(path)
            seen.append(export_table.measure_file(options, bundle, kept, terminal)["images"])
    assert seen == [1, 2, 2]
    record = json.loads(path.read_text())[bundle.path.name]
    path.write_text(json.dumps({bundle.path.name: record | {"images": 9}}))
    with Terminal(shown=False) as terminal:
        kept = export_table.Records(path)
        assert export_table.measure_file(options, bundle, kept, terminal)["images"] == 9


def test_systems_of_other_photos_are_measured_again_and_left_out(
    wider: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """AP that cannot be measured on the new photos is left out, but stays in the file.

    Without --measure the table shows it, and warns that the photos differ."""
    monkeypatch.setattr(zoo, "names", lambda: ())
    weights = tmp_path / "weights"
    for name in ("eresfd-16", "edgeface-n"):
        save_weights(build(name, seed=0), weights / f"{name}.safetensors")
    shown = ["--only", "eresfd-16", "edgeface-n", "--results", str(tmp_path / "systems.json")]
    shown += ["--scales", "original"]
    measuring = [*shown, "--measure", "--data", str(wider), "--weights", str(weights)]
    assert systems.main(measuring) == 0
    assert "different photos" not in capsys.readouterr().out
    add_photo(wider / "WIDER_val", "b")
    (weights / "edgeface-n.safetensors").unlink()
    assert systems.main([*measuring, "--format", "json"]) == 0
    rows = {row["name"]: row["ap"] for row in json.loads(capsys.readouterr().out)["systems"]}
    assert rows["eresfd-16"]["original"]["images"] == 2 and rows["edgeface-n"] == {}
    assert systems.main(shown) == 0
    told = capsys.readouterr().out.partition("AP of different photos, do not compare: ")[2]
    assert re.match(r"edgeface-n: 1 photo \w+; eresfd-16: 2 photos \w+\.\n", told)


def test_what_was_kept_without_its_photos_is_measured_again(
    wider: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version kept AP without naming its photos."""
    monkeypatch.setattr(zoo, "names", lambda: ())
    weights = tmp_path / "eresfd-16.safetensors"
    save_weights(build("eresfd-16", seed=0), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    old = {"easy": 0.5, "medium": 0.5, "hard": 0.5, "images": 9, "protocol": "x", "weights": digest}
    results = tmp_path / "systems.json"
    results.write_text(json.dumps({"eresfd-16": {"original": old}}))
    options = systems.Options(
        data=wider, weights=tmp_path, scales=("original",), results=results, only=("eresfd-16",)
    )
    rows = [row for row in systems.systems() if row.name == "eresfd-16"]
    with Terminal(shown=False) as terminal:
        systems.measure(rows, options, terminal)
    assert systems.load_results(results)["eresfd-16"]["original"].images == 1


def test_a_curve_is_of_one_set_of_photos(wider: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    snapshot = run / "snapshots" / "step-0000010.safetensors"
    save_weights(build("edgeface-n", seed=1), snapshot)
    architecture = get_architecture("edgeface-n").to_json()
    config = {"architecture": architecture, "options": {"batch": 32}, "images": 100, "faces": 9}
    (run / "config.json").write_text(json.dumps(config))

    def rows() -> list[dict[str, Any]]:
        return learning_curve.evaluate_run(run, wider, 1, lambda *progress: None)

    (first,) = rows()
    second = add_photo(wider / "WIDER_val", "b")
    assert learning_curve.rows_of(run / learning_curve.CURVE, wider) == []
    (other,) = rows()
    assert other["measured_on"] != first["measured_on"] and other["step"] == first["step"]
    snapshot.write_bytes(b"evaluated already on both, not read again")
    assert [row["measured_on"] for row in rows()] == [other["measured_on"]]
    second.unlink()
    assert [row["measured_on"] for row in rows()] == [first["measured_on"]]
    assert len(learning_curve.rows_of(run / learning_curve.CURVE, wider)) == 1


def test_int8_files_of_the_matrix_are_of_their_photos(
    wider: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New calibration photos cause INT8 exports to be repeated; float exports do not use them."""
    made: list[str] = []

    def counted(o: Any, name: str, target: str, precision: str, size: Any) -> dict[str, Any]:
        made.append(precision)
        return {"ok": True}

    monkeypatch.setattr(export_matrix, "listed", lambda: ["edgeface-n"])
    monkeypatch.setattr(export_matrix, "QUANTISED", ("edgeface-n",))
    monkeypatch.setattr(export_matrix, "combinations", lambda *all_: [("onnx", p) for p in all_])
    monkeypatch.setattr(export_matrix, "_made", counted)
    options = export_matrix.Options(data=wider, out=tmp_path)
    with Terminal(shown=False) as terminal:
        for _ in range(2):
            kept = export_table.Records(tmp_path / "matrix.json")
            export_matrix.matrix(options, kept, terminal)
        assert made == ["fp32", "fp16", "int8"]
        before = calibration_photos(wider)
        add_photo(wider / "WIDER_train", "u")
        assert calibration_photos(wider) != before
        export_matrix.matrix(options, kept, terminal)
    assert made == ["fp32", "fp16", "int8", "int8"]
