"""The C++ programs find the faces that the Detector finds, in photos and in a video.

Each is built with CMake if its runtime's files are here, and gets the same ready file as the
Detector. ONNX Runtime, OpenVINO and LiteRT come from their wheels; that of ncnn has no headers:
build ncnn, and set ncnn_DIR.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from debian import cache_folder, unpack
from emulation import wheel_for_arm, write_cpuinfo

from edgeface import zoo
from edgeface.detector import Detector
from edgeface.images import Image, read_image
from export.pipeline import export_model
from export.request import ExportRequest
from export.source import load_source

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CPP = ROOT / "examples" / "cpp"
PROGRAMS = (
    ("onnxruntime", "onnx-fp32-640x480-dynamic"),
    ("openvino", "openvino-int8-640x480"),
    ("litert", "tflite-fp32-640x480"),
    ("litert", "tflite-int8-640x480"),
    ("ncnn", "ncnn-int8-640x480"),
)
ON_ARM = (*(row for row in PROGRAMS if row[0] != "openvino"), ("openvino", ""))
"""OpenVINO gets a float file: its INT8 results on ARM differ from x86 (scores of portraits by
.003)"""
MISSING = {
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install openvino",
    "litert": "pip install ai-edge-litert",
    "ncnn": "build it as docs/apps.md says, and set ncnn_DIR",
}
TOLERANCE_PX = 0.05
Build = Callable[[str], Path]


def run(*command: object, **environment: str) -> str:
    words = [str(word) for word in command]
    env = {**os.environ, **environment}
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def need(tool: str, package: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed: apt install {package}")
    return found


def package(name: str) -> Path | None:
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def onnxruntime_headers() -> Path:
    """Headers from Debian 13, of an older release than the library: the C API only grows."""
    home = cache_folder("onnxruntime-headers")
    if not home.is_dir():
        unpack(("libonnxruntime-dev",), "trixie", "amd64", home, alone=True)
    return home / "usr" / "include" / "onnxruntime"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build(runtime)`` -> the path of its program."""
    folder = tmp_path_factory.mktemp("build")
    where = {}
    if openvino := package("openvino"):
        where["OpenVINO_DIR"] = openvino / "cmake"
    if litert := package("ai_edge_litert"):
        where["LITERT_LIBRARY"] = litert / "libLiteRt.so"
    if onnxruntime := package("onnxruntime"):
        (where["ONNXRUNTIME_LIBRARY"],) = (onnxruntime / "capi").glob("libonnxruntime.so.*")
        where["ONNXRUNTIME_INCLUDE"] = onnxruntime_headers()
    defined = [f"-D{name}={path}" for name, path in where.items()]
    said = run(need("cmake", "cmake"), "-S", CPP, "-B", folder, *defined)

    def make(runtime: str) -> Path:
        if f"detect-{runtime}: will be built" not in said:
            pytest.skip(f"the files of {runtime} are not here: {MISSING[runtime]}")
        run("cmake", "--build", folder, "--target", f"detect-{runtime}")
        return folder / f"detect-{runtime}"

    return make


@pytest.fixture(scope="module")
def photos(astronaut: Image, hopper_path: Path) -> list[Image]:
    """Photos that the programs shrink, enlarge (also with a file for any size) and halve."""
    hopper = read_image(hopper_path)
    small = cv2.resize(hopper, (213, 250), interpolation=cv2.INTER_AREA)
    large = cv2.resize(astronaut, (960, 960), interpolation=cv2.INTER_LINEAR)
    return [astronaut, hopper, np.asarray(small, np.uint8), np.asarray(large, np.uint8)]


def rows_of(said: str) -> Any:
    return np.array([[float(word) for word in line.split()] for line in said.splitlines()])


def assert_same_faces(rows: Any, expected: Any) -> None:
    assert len(rows) == len(expected)
    if len(rows):
        np.testing.assert_allclose(rows[:, 0], expected.scores, atol=1e-3)
        np.testing.assert_allclose(rows[:, 1:5], expected.boxes, atol=TOLERANCE_PX)
        points = rows[:, 5:].reshape(-1, 5, 2)
        np.testing.assert_allclose(points, expected.landmarks, atol=TOLERANCE_PX)


def ready(file: str) -> Path:
    return zoo.BUNDLES / f"edgeface-n-{file}"


def check(command: Sequence[object], bundle: Path, photos: Sequence[Image], folder: Path) -> int:
    """Number of faces that score .3 or more; all must be where the Detector finds them."""
    faces = 0
    with Detector.open(bundle, score_threshold=0.3) as detector:
        for photo in photos:
            path, (height, width) = folder / "photo.ppm", photo.shape[:2]
            path.write_bytes(b"P6 %d %d 255\n" % (width, height) + photo.tobytes())
            expected = detector.detect(photo)
            assert_same_faces(rows_of(run(*command, bundle, path, 0.3)), expected)
            faces += len(expected)
    return faces


@pytest.mark.parametrize(("runtime", "file"), PROGRAMS)
class TestHere:
    def test_portraits(
        self, runtime: str, file: str, build: Build, photos: list[Image], tmp_path: Path
    ) -> None:
        assert check([build(runtime)], ready(file), photos, tmp_path) >= len(photos)

    def test_twenty_photos(
        self, runtime: str, file: str, build: Build, shared: Path, tmp_path: Path
    ) -> None:
        """ncnn runs in float: its INT8 results depend on the instructions that it was built for.

        Without AVX, a weak score was .007 off."""
        bundle = floats(runtime, tmp_path) if runtime == "ncnn" else ready(file)
        paths = sorted((shared / "wider" / "WIDER_val" / "images").rglob("*.jpg"))
        twenty = [read_image(path) for path in paths[:: max(1, len(paths) // 20)][:20]]
        assert check([build(runtime)], bundle, twenty, tmp_path) > 50

    def test_a_video(
        self, runtime: str, file: str, build: Build, photos: list[Image], tmp_path: Path
    ) -> None:
        """The frames are coded losslessly, and each face is printed after its frame's number."""
        program, clip = build(runtime), tmp_path / "clip.avi"
        frames = [np.roll(photos[0], 8 * i, axis=1) for i in range(3)]
        writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"HFYU"), 10, (512, 512))
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
        bundle = ready(file)
        done = subprocess.run([program, bundle, clip, "0.3"], capture_output=True, text=True)
        if "built without OpenCV" in done.stderr:
            pytest.skip("OpenCV's files are not here: apt install libopencv-dev")
        assert done.returncode == 0, done.stderr
        rows = rows_of(done.stdout)
        with Detector.open(bundle, score_threshold=0.3) as detector:
            for number, frame in enumerate(frames):
                assert_same_faces(rows[rows[:, 0] == number][:, 1:], detector.detect(frame))

    def test_what_cannot_be_is_one_line(self, runtime: str, file: str, build: Build) -> None:
        bundle = ready(file)
        photo = ROOT / "docs" / "photo.jpg"
        scores = [(bundle, photo, score) for score in ("high", "0,6", "1.5", "nan", "")]
        files = [(ROOT, "photo.jpg"), (bundle, "none.jpg"), (bundle, CPP / "test.cpp")]
        for arguments in (*files, (bundle, "camera:front"), *scores):
            words = [str(word) for word in (build(runtime), *arguments)]
            done = subprocess.run(words, capture_output=True, text=True)
            last = done.stderr.splitlines()[-1]
            assert done.returncode == 2 and done.stdout == "" and last.startswith("error: ")


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The command that runs an aarch64 program here, with the cross compiler's libraries."""
    qemu = need("qemu-aarch64-static", "qemu-user-static")
    need("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    root = tmp_path_factory.mktemp("arm")
    shutil.copytree("/usr/aarch64-linux-gnu/lib", root / "lib", symlinks=True)
    write_cpuinfo(root)
    return [qemu, "-cpu", "cortex-a76", "-L", root]


class TestArm:
    """Programs cross-compiled for ARM and run in an emulator."""

    def test_the_decoder(self, arm: list[object], tmp_path: Path) -> None:
        strict = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
        run("aarch64-linux-gnu-g++", *strict, CPP / "test.cpp", "-o", tmp_path / "vectors")
        assert "C++: " in run(*arm, tmp_path / "vectors", CPP.parent / "vectors")

    @pytest.mark.parametrize(("runtime", "file"), ON_ARM)
    def test_portraits(
        self, runtime: str, file: str, arm: list[object], photos: list[Image], tmp_path: Path
    ) -> None:
        bundle = ready(file) if file else floats(runtime, tmp_path)
        program = tmp_path / "detect"
        command = ("aarch64-linux-gnu-g++", "-std=c++20", "-O2", CPP / f"{runtime}.cpp")
        run(*command, *linked_for_arm(runtime, tmp_path), "-o", program)
        assert check([*arm, program], bundle, photos[1:3], tmp_path) >= 2


def floats(target: str, folder: Path) -> Path:
    """Export edgeface-n in float, for which there is no ready file."""
    request = ExportRequest(target, "fp32", 640, 480)
    return export_model(load_source("edgeface-n"), request, folder).bundle.path


def linked_for_arm(runtime: str, folder: Path) -> list[object]:
    """Compiler flags for headers and library of the aarch64 wheel, found when the program runs."""
    if runtime == "ncnn":
        home = Path(os.environ.get("NCNN_ARM64", "none"))
        if not home.is_dir():
            pytest.skip("ncnn for aarch64 is not here: build it, and set NCNN_ARM64 to its folder")
        return ["-I", home / "include" / "ncnn", home / "lib" / "libncnn.a"]
    wheel = {"litert": "ai-edge-litert"}.get(runtime, runtime)
    pytest.importorskip(wheel.replace("-", "_"), reason=f"{wheel} is not installed")
    home = wheel_for_arm(wheel)
    if runtime == "litert":
        library, headers = home / "ai_edge_litert" / "libLiteRt.so", None
    elif runtime == "openvino":
        (library,) = (home / "openvino" / "libs").glob("libopenvino.so.*")
        headers = home / "openvino" / "include"
    else:
        library = folder / "libonnxruntime.so.1"
        (wanted,) = (home / "onnxruntime" / "capi").glob("libonnxruntime.so.*")
        library.symlink_to(wanted)
        headers = onnxruntime_headers()
    paths = [f"-Wl,-{kind},{library.parent}" for kind in ("rpath", "rpath-link")]
    return [*(("-I", headers) if headers else ()), library, *paths]
