"""What a user copies to a Raspberry Pi, run here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgeface.bundle import Bundle
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.images import read_image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "raspberry-pi"


def install(*arguments: object, script: Path = FOLDER / "install.sh") -> tuple[int, str, str]:
    done = subprocess.run([script, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_script_is_clean() -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([checker, FOLDER / "install.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--runtime", "coreml"), "unknown runtime coreml; accepted: tflite, ncnn, onnx, openvino"),
        (("--wheel",), "--wheel needs a value"),
        (("--sudo",), "unknown option --sudo"),
        ((), "no edgeface-*.whl beside this script: run make package"),
        (("--wheel", "none.whl"), "no wheel at none.whl"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    shutil.copy(FOLDER / "install.sh", tmp_path)
    code, out, err = install(*arguments, script=tmp_path / "install.sh")
    assert code == 2 and out == "" and err.startswith("error: ") and len(err.splitlines()) == 1
    assert words in err and [path.name for path in tmp_path.iterdir()] == ["install.sh"]


def test_the_camera_loop_says_what_the_detector_says(
    exported: Callable[..., Bundle], hopper_path: Path, tmp_path: Path
) -> None:
    """With a video in place of the camera."""
    bundle = exported("tflite").path
    photo = cv2.resize(read_image(hopper_path)[:, :, ::-1], (160, 192))
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 192))
    for _ in range(3):
        writer.write(photo)
    writer.release()
    done = subprocess.run(
        [sys.executable, FOLDER / "camera.py", "--usb", clip, "--model", bundle, "--threads", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and "3 frames, " in done.stderr, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    capture = cv2.VideoCapture(str(clip))
    with Detector.open(bundle) as detector:
        for number, row in enumerate(rows):
            frame: Any = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
            assert row["frame"] == number
            assert Detections.from_json(row["faces"]) == detector.detect(frame)
            assert all(face["id"] >= 1 for face in row["faces"])


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    home = tmp_path / "edgeface" / "venv" / "bin"
    home.mkdir(parents=True)
    (home / "edgeface").symlink_to("/bin/true")
    shutil.copy(FOLDER / "edgeface.service", tmp_path)
    unit = tmp_path / "edgeface.service"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [verify, "--user", "verify", unit], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and "edgeface.service" not in done.stderr, done.stderr


@pytest.mark.slow
def test_from_nothing_to_faces_and_once_more(
    exported: Callable[..., Bundle], hopper_path: Path, tmp_path: Path
) -> None:
    """In a folder as it lies on the Pi: the script, the wheel, an exported folder and a photo."""
    made = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*made, tmp_path, ROOT], check=True)
    bundle = exported("tflite")
    shutil.copytree(bundle.path, tmp_path / bundle.path.name)
    shutil.copy(hopper_path, tmp_path / "photo.jpg")
    shutil.copy(FOLDER / "install.sh", tmp_path)
    for _ in range(2):
        code, out, err = install(script=tmp_path / "install.sh")
        if code != 0 and "connection" in err.lower():
            pytest.skip("no package index can be reached")
        assert code == 0, err
        assert "edgeface 0.1.0" in out and "photo.jpg" in out and "edgeface bench" in out
