"""The files that a user copies to a Raspberry Pi, run here and in a Debian for its CPU."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from debian import cache_folder, unpack
from emulation import CONSTRAINTS, need_namespace, pip_for_arm, run_in_root
from venvs import build_wheel

from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.images import letterbox, read_image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "raspberry-pi"
DEBS = (
    *("base-files", "bash", "ca-certificates", "coreutils", "dash", "findutils"),
    *("libstdc++6", "python3", "python3-venv"),
)
PI = Path("/home/pi/edgeface")
READY = zoo.BUNDLES / "edgeface-n-tflite-fp32-640x480"


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


def test_a_folder_for_another_library_is_not_taken(tmp_path: Path) -> None:
    for folder, api in (("a", '\n "api": "mediapipe",'), ("b", "")):
        (tmp_path / folder).mkdir()
        text = f'{{{api}\n "target": "tflite"\n}}'
        (tmp_path / folder / "manifest.json").write_text(text)
    (tmp_path / "edgeface-0.1.0-py3-none-any.whl").touch()
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("pip", "python"):
        (tools / name).symlink_to("/bin/false")
    shutil.copy(FOLDER / "install.sh", tmp_path)
    _, out, _ = install(script=tmp_path / "install.sh")
    assert out == f"model: {tmp_path / 'b'} (another one: --model)\n"


PYTHON3 = """#!/bin/bash
# Of a system with Picamera2 and its NumPy. The environments that it makes install nothing.
if [ "$1 $2" != "-m venv" ]; then PYTHONPATH=$SYSTEM exec "$PYTHON" "$@"; fi
venv=${@: -1}
mkdir -p "$venv/bin"
[[ $* == *--system-site-packages* ]] && seen=true || seen=false
echo "include-system-site-packages = $seen" >"$venv/pyvenv.cfg"
for name in python pip edgeface; do cp "$SYSTEM/tool" "$venv/bin/$name"; done
"""
TOOL = """#!/bin/bash
echo "${0##*/} $*" >>"$SYSTEM/log"
[ "$*" != "-c import picamera2" ] || exit "$BROKEN"
"""


@pytest.mark.parametrize(
    ("numpy", "picamera2", "broken", "limits"),
    [
        ("1.24.2", True, 0, " numpy<2 opencv-python-headless<4.12"),
        ("1.24.2", True, 1, " numpy<2 opencv-python-headless<4.12"),
        ("2.2.4", True, 0, ""),
        ("1.24.2", False, 1, ""),
    ],
)
def test_picamera2_of_the_system_opens_the_numpy_beside_it(
    tmp_path: Path, numpy: str, picamera2: bool, broken: int, limits: str
) -> None:
    system = tmp_path / "system"
    system.mkdir()
    (system / "numpy.py").write_text(f"__version__ = '{numpy}'")
    if picamera2:
        (system / "picamera2.py").write_text("")
    for name, text in (("python3", PYTHON3), ("tool", TOOL)):
        (system / name).write_text(text)
        (system / name).chmod(0o755)
    wheel = tmp_path / "edgeface-0.1.0-py3-none-any.whl"
    wheel.touch()
    done = subprocess.run(
        [FOLDER / "install.sh", "--wheel", wheel, "--venv", tmp_path / "venv"],
        capture_output=True,
        text=True,
        env={
            **{"PATH": f"{system}:{os.environ['PATH']}", "SYSTEM": str(system)},
            **{"PYTHON": sys.executable, "BROKEN": str(broken)},
        },
    )
    said = (system / "log").read_text()
    assert f"{wheel}[tflite,cli]{limits}\n" in said
    if picamera2 and broken:
        *_, line = done.stderr.splitlines()
        assert done.returncode == 2 and line.startswith("error: camera.py finds no Picamera2")
    else:
        assert done.returncode == 0 and "Now, for example" in done.stdout, done.stderr
    assert ("-c import picamera2" in said) is picamera2


def write_clip(path: Path, photo: Any) -> None:
    """Write a video of three frames of ``photo`` (BGR)."""
    height, width = photo.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    for _ in range(3):
        writer.write(photo)
    writer.release()


def camera_loop(source: object, bundle: Path, **pipes: Any) -> subprocess.CompletedProcess[str]:
    arguments = ("--usb", str(source), "--model", str(bundle), "--threads", "1")
    return subprocess.run(
        [sys.executable, str(FOLDER / "camera.py"), *arguments],
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **(pipes or {"capture_output": True}),
    )


def test_a_camera_that_is_not_there_is_one_line(exported: Callable[..., Bundle]) -> None:
    done = camera_loop(77, exported("tflite").path)
    *_, line = done.stderr.splitlines()  # after the runtime's own messages
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert line == "error: no video from 77: is it there, and in use by no other program?"


def test_a_ribbon_camera_without_picamera2_is_one_line(exported: Callable[..., Bundle]) -> None:
    if importlib.util.find_spec("picamera2"):
        pytest.skip("Picamera2 is here")
    command = [sys.executable, str(FOLDER / "camera.py"), "--model", str(exported("tflite").path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: Picamera2 cannot be imported") and "--usb 0" in line


@pytest.mark.parametrize("error", ["IndexError('list index out of range')", "RuntimeError('busy')"])
def test_no_camera_on_the_ribbon_cable_is_one_line(
    error: str, exported: Callable[..., Bundle], tmp_path: Path
) -> None:
    """Picamera2 raises these errors without a camera and with one that another program uses."""
    (tmp_path / "picamera2.py").write_text(f"def Picamera2():\n    raise {error}\n")
    command = [sys.executable, str(FOLDER / "camera.py"), "--model", str(exported("tflite").path)]
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: no camera on the ribbon cable (") and "--list-cameras" in line


def test_a_number_that_is_no_camera_is_one_line(exported: Callable[..., Bundle]) -> None:
    done = camera_loop(Path("99999999999999999999"), exported("tflite").path)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "error: no video from 99999999999999999999" in done.stderr


def test_a_reader_that_has_enough_ends_the_camera_loop(
    exported: Callable[..., Bundle], hopper_path: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.avi"
    write_clip(clip, cv2.resize(read_image(hopper_path)[:, :, ::-1], (160, 192)))
    reader, writer = os.pipe()
    os.close(reader)
    done = camera_loop(clip, exported("tflite").path, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 0 and "1 frame, " in done.stderr.splitlines()[-1], done.stderr
    assert "BrokenPipe" not in done.stderr


def test_the_camera_loop_says_what_the_detector_says(
    exported: Callable[..., Bundle], hopper_path: Path, tmp_path: Path
) -> None:
    """A video stands in for the camera."""
    bundle = exported("tflite").path
    photo = cv2.resize(read_image(hopper_path)[:, :, ::-1], (160, 192))
    clip = tmp_path / "clip.avi"
    write_clip(clip, photo)
    done = camera_loop(clip, bundle)
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


def lay_out(folder: Path, bundle: Path, photo: Path) -> None:
    """Fill ``folder`` as on the Pi: script, camera program, wheel, exported folder and photo."""
    build_wheel(folder)
    shutil.copytree(bundle, folder / bundle.name)
    shutil.copy(photo, folder / "photo.jpg")
    for name in ("install.sh", "camera.py"):
        shutil.copy(FOLDER / name, folder)


@pytest.mark.slow
def test_from_nothing_to_faces_and_once_more(
    exported: Callable[..., Bundle], hopper_path: Path, tmp_path: Path
) -> None:
    bundle, other = exported("tflite").path, exported("ncnn").path
    lay_out(tmp_path, bundle, hopper_path)
    shutil.copytree(other, tmp_path / other.name)
    venv = tmp_path / "venv"
    for _ in range(2):
        # An interrupted installation leaves such an environment.
        subprocess.run(["python3", "-m", "venv", "--clear", "--without-pip", venv], check=True)
        code, out, err = install(script=tmp_path / "install.sh")
        if code != 0 and "connection" in err.lower():
            pytest.skip("no package index can be reached")
        assert code == 0, err
        assert "edgeface 0.1.0" in out and "photo.jpg" in out and "edgeface bench" in out
        assert f"model: {tmp_path / bundle.name} " in out  # the ncnn Bundle needs another runtime


@pytest.fixture(scope="module")
def debian_13() -> Path:
    """The root of a Debian 13 for arm64 with Python 3.13, unpacked once and kept."""
    need_namespace()
    root = cache_folder("debian-13-arm64")
    if not root.is_dir():
        unpack(DEBS, "trixie", "arm64", root)
    # Setting up ca-certificates would make this file; pip reads it even without a network.
    parts = sorted((root / "usr" / "share" / "ca-certificates").rglob("*.crt"))
    whole = root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    whole.parent.mkdir(parents=True, exist_ok=True)
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    return root


@pytest.fixture(scope="module")
def pi(debian_13: Path, hopper_path: Path) -> Path:
    """A Debian 13 for arm64 in which install.sh has run, with packages from a folder."""
    home = debian_13 / "home" / "pi"
    shutil.rmtree(home, ignore_errors=True)
    (home / "edgeface").mkdir(parents=True)
    lay_out(home / "edgeface", READY, hopper_path)
    canvas = letterbox(read_image(hopper_path), 640, 480)[0]
    assert cv2.imwrite(str(home / "edgeface" / "canvas.png"), canvas[:, :, ::-1])
    pins = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()[:8]
    wheels = cache_folder(f"debian-13-wheels-{pins}")
    if not wheels.is_dir():
        draft, wheel = wheels.with_suffix(".draft"), next((home / "edgeface").glob("*.whl"))
        pip_for_arm("download", "3.13", "--dest", draft, f"{wheel}[tflite,cli]")
        draft.rename(wheels)
    shutil.copytree(wheels, home / "wheels", ignore=shutil.ignore_patterns("edgeface-*"))
    done = run_in_root(debian_13, PI / "install.sh", "--wheels", "/home/pi/wheels")
    assert done.returncode == 0, done.stderr
    assert "aarch64" in done.stdout and "photo.jpg" in done.stdout
    return debian_13


@pytest.mark.slow
class TestOnAnEmulatedPi:
    @pytest.mark.parametrize(
        ("model", "photo"),
        [(PI / READY.name, "photo.jpg"), ("edgeface-n-tflite-int8-640x480", "canvas.png")],
    )
    def test_the_boxes_of_this_machine(self, model: Path | str, photo: str, pi: Path) -> None:
        """A copied Bundle and a model's name give the boxes that they give on this machine.

        INT8 gets a photo that fills its canvas: on ARM, OpenCV shrinks one pixel in 15,000 to the
        next level, which moves a box by 0.01 px at most in float, but by a whole output step in
        INT8."""
        command = (PI / "venv/bin/edgeface", "detect", PI / photo, "--model", model)
        done = run_in_root(pi, *command, "--format", "json")
        assert done.returncode == 0, done.stderr
        found = Detections.from_json(json.loads(done.stdout)[0]["faces"])
        with Detector.open(Path(model).name) as detector:
            expected = detector.detect(pi / PI.relative_to("/") / photo)
        assert len(found) == len(expected) == 1
        assert found.landmarks is not None and expected.landmarks is not None
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=0.01)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)

    def test_the_camera_loop(self, pi: Path, hopper_path: Path) -> None:
        clip = pi / "home" / "pi" / "clip.avi"
        write_clip(clip, cv2.resize(read_image(hopper_path)[:, :, ::-1], (320, 384)))
        command = (PI / "venv/bin/python", PI / "camera.py", "--usb", "/home/pi/clip.avi")
        done = run_in_root(pi, *command)
        assert done.returncode == 0 and "3 frames, " in done.stderr, done.stderr
        for line in done.stdout.splitlines():
            assert [face["id"] for face in json.loads(line)["faces"]] == [1]
