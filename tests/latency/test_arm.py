"""An emulated 64-bit ARM device: Debian's arm64 Python and aarch64 wheels under qemu, behind sshd.

The tests prove that everything works there and that the faces are the same. Emulated times mean
nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from by_hand import wait_for
from debian import cache_folder, unpack
from emulation import CONSTRAINTS, pip_for_arm, write_cpuinfo
from loopback import Loopback, need_sshd

from edgeface import Detections, Detector
from edgeface.bundle import Bundle
from edgeface.images import Image
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol

pytestmark = pytest.mark.slow

FILES = (("ncnn", "fp32"), ("tflite", "fp32"), ("tflite", "int8"), ("openvino", "fp32"))
PACKAGES = ("numpy", "opencv-python-headless", "ncnn", "ai-edge-litert", "openvino")
PYTHON_DEBS = ("python3.11-minimal", "libpython3.11-stdlib", "libgomp1", "libstdc++6", "zlib1g")
QUICK = Protocol(rounds=1, per_round=1, warm_up_s=0, photo_width=640, photo_height=480)


@pytest.fixture(scope="session")
def arm_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of an aarch64 Python with the runtimes, installed once and kept: about 0.8 GB."""
    pins = [
        line for line in CONSTRAINTS.read_text().splitlines() if line.partition("==")[0] in PACKAGES
    ]
    home = cache_folder("arm64-" + hashlib.sha256("\n".join(pins).encode()).hexdigest()[:8])
    python = home / "venv" / "bin" / "python"
    if not python.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        unpack(("qemu-user-static",), "bookworm", _own_architecture(), home / "qemu")
        unpack(PYTHON_DEBS, "bookworm", "arm64", home / "rootfs")
        target = home / "venv" / "lib" / "python3.11" / "site-packages"
        pip_for_arm("install", "3.11", "--target", target, *PACKAGES)
        _as_environment(home, python)
    return python


def _own_architecture() -> str:
    return subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _as_environment(home: Path, python: Path) -> None:
    """Make ``home`` a virtual environment whose ``python`` is a script that starts the emulator.

    ``-0`` tells Python the script's name, so that Pythons that it starts are emulated too.
    """
    write_cpuinfo(home / "rootfs")
    (home / "venv" / "pyvenv.cfg").write_text(f"home = {home}/rootfs/usr/bin\nversion = 3.11\n")
    python.parent.mkdir()
    draft = python.with_name("draft")
    draft.write_text(
        f'#!/bin/sh\nexec {home}/qemu/usr/bin/qemu-aarch64-static -0 "$0" -cpu cortex-a76 '
        f'-L {home}/rootfs {home}/rootfs/usr/bin/python3.11 "$@"\n'
    )
    draft.chmod(0o755)
    draft.rename(python)


@pytest.fixture(scope="module")
def board(arm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    need_sshd()
    with Loopback(tmp_path_factory.mktemp("arm") / "device") as server:
        yield server
        wait_for(lambda: not server.running())


@pytest.fixture(scope="module")
def records(
    board: Loopback, arm_python: Path, exported: Callable[..., Bundle]
) -> dict[str, Measurement]:
    jobs = [Job(str(exported(*file).path)) for file in FILES]
    return {record.bundle: record for record in board.device(str(arm_python)).measure(jobs, QUICK)}


def test_check(board: Loopback, arm_python: Path) -> None:
    found = board.device(str(arm_python)).check()
    assert found[0].ok and "on Linux aarch64" in found[0].what
    assert all(finding.ok for finding in found), found
    onnx = next(finding for finding in found if finding.what.startswith("onnx: no runtime"))
    assert onnx.fix and onnx.fix.endswith(f"{arm_python} -m pip install onnxruntime")


@pytest.mark.parametrize("file", FILES)
def test_measures(
    file: tuple[str, str], records: dict[str, Measurement], exported: Callable[..., Bundle]
) -> None:
    record = records[exported(*file).path.name]
    machine = record.environment.machine
    assert machine.architecture == "aarch64" and "asimddp" in machine.flags
    assert record.network_ms.min > 0 and record.peak_memory_bytes
    assert set(PACKAGES) & set(record.environment.runtimes) >= {"numpy", "opencv-python-headless"}
    assert not record.valid


DETECT = """
import io, json, sys
import numpy
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from edgeface import Detector
photo = numpy.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
with Detector.open(Path(sys.argv[2]), score_threshold=0.3) as detector:
    print(json.dumps({"faces": detector.detect(photo).to_json()}))
"""
TOLERANCE_PX, TOLERANCE_SCORE = 2e-3, 1e-5
"""the differences seen are 2e-4 px and 3e-7; raw outputs differ by a share of 1e-6 to 2e-5"""


@pytest.mark.parametrize("file", FILES)
def test_same_faces_as_here(
    file: tuple[str, str],
    board: Loopback,
    arm_python: Path,
    records: dict[str, Measurement],
    exported: Callable[..., Bundle],
    astronaut: Image,
) -> None:
    """Detection uses the files that measuring has sent: the zip of light modules and the Bundle."""
    bundle = exported(*file)
    (agent,) = board.cache.glob("edgeface-*.pyz")
    (there,) = board.cache.glob(f"bundles/*/{bundle.path.name}")
    photo = io.BytesIO()
    np.save(photo, astronaut)
    command = shlex.join([str(arm_python), "-c", DETECT, str(agent), str(there)])
    done = subprocess.run(
        board.device().arguments(command), input=photo.getvalue(), capture_output=True, check=True
    )
    theirs = Detections.from_json(json.loads(done.stdout.splitlines()[-1])["faces"])
    with Detector.open(bundle.path, score_threshold=0.3) as detector:
        ours = detector.detect(astronaut)
    assert len(ours) == len(theirs) > 5
    np.testing.assert_allclose(theirs.boxes, ours.boxes, rtol=0, atol=TOLERANCE_PX)
    np.testing.assert_allclose(theirs.scores, ours.scores, rtol=0, atol=TOLERANCE_SCORE)
