"""level_bias adds its constants to the biases of the weights that it writes, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.research import level_bias
from edgeface.detector import Detector
from edgeface.evaluation import evaluate
from edgeface.evaluation.own import own_photos
from edgeface.evaluation.predict import SCORE_THRESHOLD
from edgeface.images import Image
from edgeface.images.marked import write_image
from edgeface.zoo import load_weights, load_weights_file

STRIDES = (8, 16, 32)


@pytest.fixture
def faces(tmp_path: Path, astronaut: Image) -> Path:
    """Annotations of a photo and an enlarged part of it, whose face is six times as large."""
    write_image(tmp_path / "small.png", astronaut[::3, ::3])
    write_image(tmp_path / "large.png", astronaut[:240, 100:340].repeat(2, 0).repeat(2, 1))
    rows = ["image,x1,y1,x2,y2", "small.png,57,20,92,66", "large.png,142,120,352,396"]
    path = tmp_path / "faces.csv"
    path.write_text("\n".join(rows))
    return path


def test_the_chosen_constants_are_in_the_biases(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.safetensors"
    arguments = ["--data", str(tmp_path), "--annotations", str(faces), "--out", str(out)]
    assert level_bias.main(["--model", "edgeface-n", *arguments, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    old, new = load_weights("edgeface-n"), load_weights_file(out)
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    for level, stride in enumerate(STRIDES):
        name, constant = f"head.cls.{level}.conv.bias", told["chosen"].get(str(stride), 0)
        moved = np.asarray(new[name], np.float64) - np.asarray(old[name], np.float64)
        assert np.allclose(moved, constant, atol=1e-6)  # rounding of float32 near 5
        changed -= {name}
    assert not changed
    assert len(told["rows"]) == 2 * len(level_bias.GRID) + 1

    truth, photos = own_photos(faces, tmp_path)
    with Detector.open(out, score_threshold=SCORE_THRESHOLD) as detector:
        found = {key: detector.detect(path, top_k=None) for key, path in photos.items()}
    result = evaluate(found, level_bias.settings_by_height(truth))
    row = next(row for row in told["rows"] if row | told["chosen"] == row)
    assert row["hard"] == pytest.approx(result.hard, abs=1e-9)


def test_a_damaged_photo_is_told_and_the_others_count(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large.png").write_bytes((tmp_path / "large.png").read_bytes()[:500])
    out = tmp_path / "new.safetensors"
    arguments = ["--data", str(tmp_path), "--annotations", str(faces), "--out", str(out)]
    assert level_bias.main(["--model", "edgeface-n", *arguments, "--format", "json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["photos"] == 1 and out.is_file()
    assert "large.png: the image is truncated" in told.err
    (tmp_path / "small.png").write_bytes(b"")
    out.unlink()
    assert level_bias.main(["--model", "edgeface-n", *arguments]) == 2
    assert "none of the 2 photos can be read" in capsys.readouterr().err and not out.exists()


def test_a_setting_holds_the_faces_of_its_height(faces: Path, tmp_path: Path) -> None:
    truth, _ = own_photos(faces, tmp_path)
    counts = level_bias.settings_by_height(truth).images["small"].counts
    assert {setting: bool(counts[setting][0]) for setting in counts} == {
        "easy": False,  # 46 px high
        "medium": True,
        "hard": True,
    }


def test_levels_that_share_a_convolution_are_refused(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeface.models import build
    from edgeface.zoo import save_weights

    model, out = tmp_path / "shared.safetensors", tmp_path / "new.safetensors"
    save_weights(build("scrfd-0.5g"), model)
    arguments = ["--data", str(tmp_path), "--annotations", str(faces), "--out", str(out)]
    assert level_bias.main(["--model", str(model), *arguments]) == 2
    assert "share one convolution" in capsys.readouterr().err
    assert not out.exists()
