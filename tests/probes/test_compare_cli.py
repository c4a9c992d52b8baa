"""``edgeface compare``: what it prints and draws, and one line for every mistake."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from commands import Command, failed
from networks import with_part

from edgeface.bundle import Bundle, write_bundle

if TYPE_CHECKING:
    from export import Source


onnx = pytest.importorskip("onnx", reason="onnx is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
Make = Callable[..., Bundle]
Alter = Callable[[str, str], Bundle]


@pytest.fixture
def command(edgeface: Command) -> Command:
    """``edgeface compare arguments``."""
    return lambda *arguments: edgeface("compare", *arguments)


def refuse(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def test_command_on_equal_files(command: Command, exported: Make, hopper_path: Path) -> None:
    code, out, err = command(exported("onnx").path, exported("tflite").path, "--image", hopper_path)
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert (
        lines[0] == "A: edgeface-n-onnx-fp32-160x128"
        and lines[1] == "B: edgeface-n-tflite-fp32-160x128"
    )
    assert "rel. RMS" in lines[2] and any("backbone.0.1.first" in line for line in lines)
    assert (
        "A and B agree: " in out and "they part" not in out and "not compared, because" in lines[-1]
    )


def test_command_on_an_altered_file(
    command: Command, exported: Make, alter: Alter, hopper_path: Path, tmp_path: Path
) -> None:
    layer = "/backbone/stages.0/stages.0.1/first/conv/Conv"
    plot = tmp_path / "new" / "parting.png"
    code, out, err = command(
        exported("tflite").path,
        alter(layer, "nan").path,
        "--image",
        hopper_path,
        "--plot",
        plot,
        "--format",
        "json",
    )
    assert code == 1 and err == ""
    data = json.loads(out, parse_constant=refuse)
    assert data["equal"] is False and data["tolerance"] == 1e-3
    assert (
        data["parting"]["a"]["layer"] == "backbone.0.1.first" and data["parting"]["rel_rms"] is None
    )
    assert (
        data["parting"]["index"] == data["largest_jump"]["index"]
        and data["parting"]["rel_rms_before"] < 1e-4
    )
    assert {"a", "b", "shape", "max_abs", "rel_rms", "snr_db"} == set(data["pairs"][0])
    picture = cv2.imread(str(plot))
    assert picture is not None
    assert picture.shape[0] > 400 and picture.shape[1] > 800
    red = np.all(
        np.abs(picture.astype(int) - (40, 39, 214)) < 20, axis=2
    )  # BGR of the mark where the files part
    assert red.sum() > 30
    before = plot.read_bytes()
    code, out, _ = command(
        exported("tflite").path, alter(layer, "nan").path, "--image", hopper_path, "--plot", plot
    )
    assert code == 1 and plot.read_bytes() == before and not list(plot.parent.glob(".*"))
    (line,) = (line for line in out.splitlines() if line.startswith("A and B part at "))
    assert line.startswith(
        "A and B part at backbone.0.1.first (in B: /backbone/stages.0/stages.0.1/first/"
    )
    (row,) = (line for line in out.splitlines() if line.rstrip().endswith("they part"))
    assert "backbone.0.1.first" in row


def test_command_on_a_weights_file(
    command: Command, exported: Make, pointed: Source, hopper_path: Path, tmp_path: Path
) -> None:
    from edgeface.zoo import save_weights

    save_weights(pointed.network, tmp_path / "mine.safetensors")
    bundle = exported("onnx", landmarks=True)
    code, out, err = command(tmp_path / "mine.safetensors", bundle.path, "--image", hopper_path)
    assert code == 0 and err == "" and "A and B agree: " in out
    assert out.startswith(
        f"A: {tmp_path}/mine.safetensors in torch\nB: edgeface-n-onnx-fp32-160x128\n"
    )


def test_a_weights_file_beside_the_file_that_was_made_of_it(
    command: Command,
    pointed: Source,
    lively_size: tuple[int, int],
    hopper_path: Path,
    tmp_path: Path,
) -> None:
    """The model's name in the exported file contains digits of the weights' SHA-256."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from edgeface.zoo import save_weights
    from export import ExportRequest, export_model, load_source

    weights = tmp_path / "mine.safetensors"
    save_weights(pointed.network, weights)
    request = ExportRequest("onnx", "fp32", *lively_size)
    bundle = export_model(load_source(str(weights)), request, tmp_path).bundle
    assert bundle.manifest.model != "edgeface-n"
    code, out, err = command(weights, bundle.path, "--image", hopper_path)
    assert code == 0 and err == "" and "A and B agree: " in out


def test_other_weights_of_the_network_are_told(
    command: Command, hopper_path: Path, tmp_path: Path
) -> None:
    """Without this note, other weights would look like a fault of the export."""
    from edgeface.zoo import get_entry, load_network, save_weights

    network = load_network("edgeface-n")
    same, other = tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    save_weights(network, same)
    with torch.no_grad():
        next(network.parameters()).mul_(1.5)
    save_weights(network, other)
    code, out, err = command("edgeface-n", other, "--image", hopper_path)
    assert code == 1 and "they part" in out
    digits = get_entry("edgeface-n").sha256[:8], hashlib.sha256(other.read_bytes()).hexdigest()[:8]
    assert "different weights, SHA-256 {} and {}: that they part".format(*digits) in err
    ready = "edgeface-n-onnx-fp32-640x480-dynamic"
    code, _, err = command(other, ready, "--image", hopper_path, "--format", "json")
    assert code == 1 and "A and B have different weights" in err
    assert command("edgeface-n", same, "--image", hopper_path)[::2] == (0, "")


def test_a_tolerance_of_ones_own(
    command: Command, exported: Make, alter: Alter, hopper_path: Path
) -> None:
    altered = alter("/head/cls.0/conv/Conv", "noise").path
    assert (
        command(exported("onnx").path, altered, "--image", hopper_path, "--tolerance", "5")[0] == 0
    )
    assert (
        command(
            exported("onnx").path, exported("ncnn").path, "--image", hopper_path, "--tolerance", "0"
        )[0]
        == 1
    )


def changed(bundle: Bundle, folder: Path, **fields: Any) -> Path:
    manifest = dataclasses.replace(bundle.manifest, contract=None, **fields)
    return write_bundle(
        folder, manifest, {name: bundle.read(name) for name in bundle.manifest.files}
    ).path


def misfits(bundle: Bundle, folder: Path) -> tuple[Path, Path, Path]:
    """Copies of ``bundle`` with another width, under another name, and of another architecture."""
    manifest = bundle.manifest
    return (
        changed(bundle, folder / "wide", input=dataclasses.replace(manifest.input, width=320)),
        changed(bundle, folder / "other", model="face-x"),
        changed(
            bundle,
            folder / "architecture",
            architecture=with_part(manifest.architecture, "neck", channels=64),
        ),
    )


def test_mistakes_are_one_line(
    command: Command, exported: Make, hopper_path: Path, tmp_path: Path
) -> None:
    a, tflite = exported("onnx").path, exported("tflite")
    wide, other, architecture = misfits(tflite, tmp_path)
    (tmp_path / "text.jpg").write_text("not an image")
    image = ("--image", hopper_path)
    cases: list[tuple[tuple[Any, ...], str]] = [
        (
            (a, tflite.path),
            f"--image is missing: .* run: edgeface compare {a} {tflite.path} --image photo.jpg",
        ),
        ((a, tflite.path, "--image", tmp_path / "none.jpg"), "no image at "),
        ((a, tflite.path, "--image", tmp_path / "text.jpg"), "text.jpg: "),
        ((a, wide, *image), "A takes 160x128 px and B 320x128: export both at one size"),
        ((a, other, *image), "A is edgeface-n and B is face-x: two networks share no tensors"),
        (
            (a, architecture, *image),
            "A and B are both called edgeface-n but have different architectures",
        ),
        ((a, tmp_path / "nothing", *image), "no Bundle at .*nothing"),
        (
            (a, tmp_path / "nothing.safetensors", *image),
            "cannot read weights .*nothing.safetensors",
        ),
        ((a, "damofd-0.5g", *image), "A is edgeface-n and B is damofd-0.5g"),
        ((a, tmp_path, *image), "is not a Bundle: it has no manifest.json"),
        (
            (a, tflite.path, *image, "--tolerance", "-1"),
            "--tolerance -1.0 is not a number between 0 and 1000",
        ),
        (
            (a, tflite.path, *image, "--tolerance", "nan"),
            "--tolerance nan is not a number between 0 and 1000",
        ),
        (
            (a, tflite.path, *image, "--format", "xml"),
            r"unknown format 'xml' \(known: table, json\)",
        ),
        ((a, tflite.path, *image, "--plot", hopper_path / "x.png"), "cannot write "),
    ]
    for arguments, message in cases:
        assert re.search(message, failed(command(*arguments))), message


def test_help_says_the_exit_codes(command: Command) -> None:
    code, out, _ = command("--help")
    text = " ".join(out.split())
    assert code == 0
    assert (
        "Exit code: 0 if the two agree within the tolerance, 1 if they differ, 2 on an error."
        in text
    )
    assert "0.001 for fp32 files, 0.01 if one is fp16, 0.3 if one is int8" in text
