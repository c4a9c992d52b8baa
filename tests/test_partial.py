"""Unreadable inputs do not end a command: it reports them with counts, prints the rest, and its
exit code says that not all was done. Pipes, which would never end, are not opened."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Command, said

FACES = ((176, 60, 272, 180), (181, 49, 383, 337))
"""faces of the astronaut and of Grace Hopper: x1, y1, x2, y2 in px, drawn by hand"""


@pytest.fixture
def album(tmp_path: Path, astronaut: np.ndarray, hopper_path: Path) -> Path:
    """Four photos, one of them damaged inside, and their faces."""
    folder = tmp_path / "album"
    folder.mkdir()
    rows = []
    for i in range(4):
        hopper = cv2.imread(str(hopper_path))
        assert hopper is not None
        photo = hopper if i % 2 else astronaut[..., ::-1]
        content = cv2.imencode(".jpg", photo)[1].tobytes()
        if i == 2:
            content = content[:9000] + bytes(4096) + content[13096:]
        (folder / f"{i}.jpg").write_bytes(content)
        rows.append(f"{i}.jpg," + ",".join(map(str, FACES[i % 2])))
    (folder / "faces.csv").write_text("\n".join(rows))
    return folder


def test_detect(edgeface: Command, album: Path) -> None:
    code, out, err = edgeface("detect", album, "--format", "json")
    assert code == 2 and [Path(i["image"]).name for i in json.loads(out)] == [
        "0.jpg",
        "1.jpg",
        "3.jpg",
    ]
    assert "2.jpg: the image is truncated or damaged" in said(err)[0]
    assert "1 of 4 inputs" in said(err)[1]


def test_eval(edgeface: Command, album: Path) -> None:
    arguments = ("--data", album, "--annotations", album / "faces.csv", "--format", "json")
    code, out, err = edgeface("eval", *arguments)
    report = json.loads(out)
    assert code == 2 and report["images"] == report["faces"]["hard"] == 3
    assert report["hard"] > 0.99, "the face that nobody could see does not count"
    assert "2.jpg: the image is truncated or damaged" in said(err)[0]
    assert "1 of 4 photos could not be read; the figures are those of the other 3" in said(err)[1]


def test_train(edgeface: Command, album: Path, tmp_path: Path) -> None:
    arguments = ("--data", album, "--annotations", album / "faces.csv", "--out", tmp_path / "run")
    small = ("--samples", 4, "--batch", 2, "--size", 64, "--late-size", 64, "--no-compile")
    code, _, err = edgeface("train", *arguments, *small)
    assert code == 2 and (tmp_path / "run" / "weights.safetensors").is_file(), err
    assert err.count("2.jpg: the image is truncated or damaged") == 1
    assert "1 photo could not be read and were left out" in err


def test_autofem(edgeface: Command, album: Path, tmp_path: Path) -> None:
    arguments = ("--data", album, "--annotations", album / "faces.csv", "--out", tmp_path / "run")
    small = ("--channels", 8, "--steps", 1, "--batch", 2, "--size", 64)
    code, out, err = edgeface("autofem", *arguments, *small, "--format", "json")
    found = json.loads((tmp_path / "run" / "genotype.json").read_text())
    assert code == 2 and json.loads(out) == found, err
    assert err.count("2.jpg: the image is truncated or damaged") == 1
    assert "1 photo could not be read and were left out of the search" in err


def test_everything_damaged_is_one_refusal(edgeface: Command, album: Path, tmp_path: Path) -> None:
    for path in album.glob("*.jpg"):
        path.write_bytes(b"no photo")
    arguments = ("--data", album, "--annotations", album / "faces.csv")
    for verb in (("eval",), ("train", "--out", tmp_path / "run")):
        code, out, err = edgeface(*verb, *arguments)
        assert code == 2 and out == "" and "none of 4 photos" in said(err)[-1]
    assert not (tmp_path / "run" / "cache").exists()


def test_a_pipe_is_refused_wherever_a_file_is_read(
    edgeface: Command, album: Path, tmp_path: Path
) -> None:
    (album / "2.jpg").write_bytes((album / "0.jpg").read_bytes())
    pipes = {suffix: tmp_path / f"pipe{suffix}" for suffix in (".csv", ".safetensors", ".json")}
    for pipe in pipes.values():
        os.mkfifo(pipe)
    csv, weights, text = pipes.values()
    photo, out = album / "0.jpg", ("--out", tmp_path / "out")
    shutil.copytree(album, tmp_path / "run")
    os.mkfifo(tmp_path / "run" / "checkpoint.safetensors")
    train = ("train", "--data", album, *out)
    for arguments in (
        ("detect", photo, "--model", weights),
        ("detect", photo, "--weights", weights),
        (*train, "--annotations", csv),
        (*train, "--annotations", album / "faces.csv", "--landmarks", csv),
        (*train, "--annotations", album / "faces.csv", "--init", weights),
        (*train, "--model", "asfd-d0", "--genotype", text),
        ("train", "--data", album, "--from", tmp_path / "run", "--samples", 4, *out),
        ("eval", "--data", album, "--annotations", csv),
        ("score", text),
        ("score", "damofd-0.5g", "--data", csv),
        ("bench", "compare", text, text),
        ("weights", "import", weights, "--model", "extd-fpn-32-prelu", *out),
        ("search", "--space", text, *out),
        ("export", "--target", "onnx", "--model", weights, *out),
    ):
        code, _, err = edgeface(*arguments)
        assert code == 2 and len(said(err)) == 1, (arguments, err)
