"""Commands for tests that limit memory or kill processes: their arguments, and checks that the
results they leave are complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from workers_apart import ROOT

from edgeface.backends import export_targets
from edgeface.bundle import Bundle
from edgeface.files import MARK
from edgeface.latency.measurement import load_measurements
from edgeface.zoo import load_weights_file
from edgeface.zoo.index import FOLDER

FACE = (181, 49, 383, 337)
"""Grace Hopper's face: x1, y1, x2, y2 in px, drawn by hand"""
FRAMES = 30
CPU_S = 240
"""CPU time limit of a command with little memory, several times what any command needs: SIGXCPU
ends one that spins for ever, however busy the machine is"""
PROGRAM = f"""
import resource, sys
limit = int(sys.argv.pop(1))
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S} + 10))
from edgeface.cli import main
code = main(sys.argv[1:])
sys.stdout.flush()
if not limit:
    print([line for line in open("/proc/self/status") if line.startswith("VmPeak")][0].strip())
raise SystemExit(code)
"""


@dataclass(frozen=True)
class Task:
    """A command, and a check that its result is complete."""

    arguments: tuple[object, ...]
    made: Path | None
    """file or folder that it writes; None if its result is on stdout"""
    check: Callable[[Path], object] = lambda path: None
    """raises if the result is incomplete"""
    torch: bool = True
    """whether it runs C++ code that ends the process if it gets no memory"""

    def start(self, limit: int = 0, **options: object) -> subprocess.Popen[str]:
        """``limit``: bytes of address space. If 0, there is no limit, and the last line on stdout
        gives the peak."""
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-c", PROGRAM, str(limit), *map(str, self.arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            **options,
        )

    def ended(self, limit: int = 0, within_s: float = 900) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a run with ``limit`` bytes of address space. Raises
        TimeoutExpired for a run that hangs, after killing it."""
        process = self.start(limit)
        try:
            out, err = process.communicate(timeout=within_s)
        finally:
            process.kill()
        return process.returncode, out, err

    def is_whole(self) -> bool:
        """Whether the result exists. Raises if it exists and is incomplete."""
        if self.made is None or not self.made.exists():
            return False
        self.check(self.made)
        return True

    def hidden(self) -> list[Path]:
        """Temporary files that a writer has not renamed to their final name."""
        if self.made is None or not self.made.parent.exists():
            return []
        return [path for path in self.made.parent.rglob(f".*{MARK}*") if MARK in path.name]


def photos(folder: Path, hopper: Path, count: int = 4) -> tuple[Path, Path]:
    """(Folder of different photos, CSV of their faces)."""
    image = cv2.imread(str(hopper))
    assert image is not None
    (folder / "photos").mkdir()
    rows = []
    for i in range(count):
        cv2.imwrite(str(folder / "photos" / f"{i}.jpg"), np.roll(image, 3 * i, axis=1))
        rows.append(f"{i}.jpg," + ",".join(map(str, FACE)))
    (folder / "faces.csv").write_text("\n".join(rows))
    return folder / "photos", folder / "faces.csv"


def clip(path: Path, hopper: Path) -> Path:
    """A video of FRAMES frames."""
    image = cv2.imread(str(hopper))
    assert image is not None
    small = cv2.resize(image, (256, 300))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (256, 300))
    for i in range(FRAMES):
        writer.write(np.ascontiguousarray(np.roll(small, i, axis=1)))
    writer.release()
    return path


def export(folder: Path, out: Path) -> Task:
    arguments = ("export", "--target", "onnx", "--size", "64x64", "--out", out)
    return Task(arguments, out / "edgeface-n-onnx-fp32-64x64", Bundle.open)


def quantize(floats: Path, data: Path, out: Path) -> Task:
    made = out / floats.name.replace("fp32", "int8")
    how = ("--target", "onnx", "--no-accuracy", "--calibration", data, "--images", 2)
    return Task(("quantize", "--bundle", floats, *how, "--out", out), made, Bundle.open)


def train(data: Path, faces: Path, out: Path) -> Task:
    small: tuple[object, ...] = (
        "--samples",
        16,
        "--batch",
        2,
        "--size",
        64,
        "--late-size",
        64,
        "--no-compile",
    )
    small += ("--threads", 1, "--checkpoint-every", 2)
    arguments = ("train", "--data", data, "--annotations", faces, "--out", out, *small)
    return Task(arguments, out / "weights.safetensors", load_weights_file)


def search(out: Path) -> Task:
    def check(path: Path) -> None:
        assert json.loads(path.read_text())["name"]

    made = out / "architecture.json"
    return Task(("search", "--published", "0.5g", "--out", out), made, check, torch=False)


def save(video: Path, out: Path) -> Task:
    def check(path: Path) -> None:
        assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES

    made = out / "marked.mp4"
    return Task(("detect", video, "--save", made), made, check, torch=False)


def bench(bundle: Path, out: Path) -> Task:
    def check(path: Path) -> None:
        assert len(load_measurements(path)) == 1

    short = ("--rounds", 2, "--per-round", 1, "--warm-up-s", 0, "--max-load", 1024)
    made = out / "records.json"
    return Task(("bench", bundle, *short, "--save", made), made, check, torch=False)


def detect(photo: Path, model: object, torch: bool = False) -> Task:
    arguments = ("detect", photo, "--model", model, "--score-threshold", 0.3, "--format", "json")
    return Task(arguments, None, torch=torch)


def evaluate(data: Path, faces: Path) -> Task:
    arguments = ("eval", "--data", data, "--annotations", faces, "--format", "json")
    return Task(arguments, None, torch=False)


@pytest.fixture
def task(
    request: pytest.FixtureRequest,
    exported: Callable[..., Bundle],
    hopper_path: Path,
    tmp_path: Path,
) -> Task:
    """The task that the test's parameter names; for the name of a runtime, a detection with it."""
    data, faces = photos(tmp_path, hopper_path)
    name, out = request.param, tmp_path / "out"
    if name in export_targets():
        return detect(hopper_path, exported(name).path)
    return {
        "torch": lambda: detect(hopper_path, FOLDER / "edgeface-n.safetensors", True),
        "eval": lambda: evaluate(data, faces),
        "export": lambda: export(tmp_path, out),
        "quantize": lambda: quantize(exported("onnx").path, data, out),
        "train": lambda: train(data, faces, out),
        "save": lambda: save(clip(tmp_path / "clip.avi", hopper_path), out),
        "search": lambda: search(out),
        "bench": lambda: bench(exported("onnx").path, out),
    }[name]()
