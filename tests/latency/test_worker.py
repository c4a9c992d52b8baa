"""Worker processes: their answers, and that they always end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import alive, wait_for

from edgeface.bundle import Bundle
from edgeface.detector import Detector
from edgeface.errors import DeviceError
from edgeface.latency.measurement import STAGES
from edgeface.latency.photo import synthetic_photo
from edgeface.latency.worker import EXIT_ORPHAN, peak_memory_bytes, time_stages
from edgeface.latency.worker_process import START, WorkerProcess

PHOTO = (320, 240)
ROOT = str(Path(__file__).parents[2])


def open_it(worker: WorkerProcess, bundle: Bundle, /, **changes: Any) -> dict[str, Any]:
    return worker.ask(
        "open",
        **{
            "bundle": str(bundle.path),
            "threads": 1,
            "fast": False,
            "cores": [],
            "photo": PHOTO,
            "seed": 0,
            **changes,
        },
    )


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess("net", 120) as process:
        yield process
        pid = process.pid
    assert not alive(pid)


@pytest.mark.parametrize("target", ["onnx", "tflite", "openvino", "ncnn"])
def test_answers(worker: WorkerProcess, exported: Callable[..., Bundle], target: str) -> None:
    bundle = exported(target)
    cores = sorted(os.sched_getaffinity(0))[-1:]
    facts = open_it(worker, bundle, cores=cores)
    assert (facts["width"], facts["height"], facts["cores"]) == (160, 128, cores)
    assert facts["import_ms"] > 0 and facts["load_ms"] > 0
    package, version = facts["runtime"].split()
    assert facts["runtimes"][package] == version and "numpy" in facts["runtimes"]
    assert target in ("onnx", "tflite") or facts["precision_hints"]
    assert target == "ncnn" or facts["delegates"]
    found = worker.ask("run", images=3)
    assert set(found["stages"]) == set(STAGES)
    for stage in found["stages"].values():
        assert len(stage["wall_ms"]) == len(stage["cpu_ms"]) == 3 and min(stage["wall_ms"]) > 0
    with Detector.open(bundle.path) as detector:
        assert found["faces"] == len(detector.detect(synthetic_photo(*PHOTO)))
    assert (
        found["peak_memory_bytes"] > 1 << 20
        and found["cpu_s"] > 0
        and found["moment"]["load"] is not None
    )
    assert worker.ask("close") == {}


def test_precision_hints_follow_fast_mode(
    worker: WorkerProcess, exported: Callable[..., Bundle]
) -> None:
    facts = open_it(worker, exported("ncnn"), fast=True)
    assert any(facts["precision_hints"].values()) and facts["runtime"].endswith("(fast)")


def test_end_to_end_is_the_three_stages_of_the_same_image(exported: Callable[..., Bundle]) -> None:
    photo = synthetic_photo(*PHOTO)
    with Detector.open(exported("onnx").path, score_threshold=0.05) as detector:
        times, faces = time_stages(detector, photo)
        assert faces == len(detector.detect(photo)) > 0
    parts = np.sum([times[name] for name in STAGES[:3]], axis=0)
    assert times["end_to_end"] == pytest.approx(tuple(parts), abs=1e-6)


def test_photo_is_made_from_its_seed() -> None:
    photo = synthetic_photo(320, 240, 1)
    assert photo.shape == (240, 320, 3) and photo.dtype == np.uint8
    assert np.array_equal(photo, synthetic_photo(320, 240, 1)) and not np.array_equal(
        photo, synthetic_photo(320, 240)
    )
    assert synthetic_photo(16, 2000).shape == (2000, 16, 3)
    steps = np.abs(np.diff(photo.astype(int), axis=1))
    assert np.mean(steps < 16) > 0.95  # smooth, but not of one colour
    assert photo.std() > 30


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bundle": "/nowhere"}, "no Bundle at /nowhere"),
        ({"threads": 0}, "threads 0 is not a whole number from 1 to"),
    ],
)
def test_mistakes_are_told(
    worker: WorkerProcess, exported: Callable[..., Bundle], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DeviceError, match=words) as error:
        open_it(worker, exported("onnx"), **changes)
    assert str(error.value).startswith("net: ") and not alive(worker.pid)


def wrapped(folder: Path, code: str) -> tuple[str, str]:
    """Command of a worker that runs ``code`` first, to misbehave as a broken runtime would."""
    path = folder / "wrapped.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {ROOT!r})\nimport edgeface.latency.worker as worker\n"
        f"{textwrap.dedent(code)}\nsys.argv = sys.argv[2:]\nexec(sys.argv[0])\n"
    )
    return sys.executable, str(path)


def test_chatter_on_standard_output_harms_nothing(
    exported: Callable[..., Bundle], tmp_path: Path
) -> None:
    python = wrapped(
        tmp_path,
        """
        import os
        real = worker.Worker.run
        def run(self, images):
            os.write(1, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\n{")
            print("and so on")
            return real(self, images)
        worker.Worker.run = run
    """,
    )
    with WorkerProcess("net", 120, python) as process:
        open_it(process, exported("onnx"))
        assert len(process.ask("run", images=2)["stages"]["network"]["wall_ms"]) == 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("worker.Worker.open = lambda self, **_: __import__('os').abort()", "ended by SIGABRT"),
        (
            (
                "worker.Worker.open = lambda self, **_:"
                " __import__('os').kill(__import__('os').getpid(), 9)"
            ),
            "SIGKILL: not enough memory",
        ),
        ("worker.Worker.open = lambda self, **_: __import__('os')._exit(7)", "ended with code 7"),
        (
            "worker.Worker.open = lambda self, **_: 1 / 0",
            "ended with code 1: ZeroDivisionError: division by zero",
        ),
        ("print('noise', flush=True)", "answered nonsense"),
    ],
)
def test_death_is_told_in_one_line(
    exported: Callable[..., Bundle], tmp_path: Path, code: str, words: str
) -> None:
    with WorkerProcess("net", 120, wrapped(tmp_path, code)) as process:
        with pytest.raises(DeviceError, match=words) as error:
            open_it(process, exported("onnx"))
        assert "\n" not in str(error.value) and not alive(process.pid)


def test_a_worker_that_hangs_is_ended() -> None:
    with WorkerProcess("net", 1.0) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(DeviceError, match=r"not done within 1 s .*--time-limit-s"):
            process.ask("run", images=1)
        assert not alive(process.pid)


def test_no_such_python() -> None:
    with pytest.raises(DeviceError, match="cannot start /nowhere/python"):
        WorkerProcess("net", 1.0, ("/nowhere/python",))


def start(python: tuple[str, ...] = (sys.executable,)) -> subprocess.Popen[bytes]:
    """Start a worker process directly, without a WorkerProcess."""
    return subprocess.Popen(
        [*python, "-c", START, ROOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def test_it_ends_when_its_parent_is_gone_even_while_it_works(
    exported: Callable[..., Bundle],
) -> None:
    import json

    process = start()
    assert process.stdin and process.stdout
    for request in (
        {
            "do": "open",
            "limit_s": 999,
            "bundle": str(exported("onnx").path),
            "threads": 1,
            "fast": False,
            "cores": [],
            "photo": PHOTO,
            "seed": 0,
        },
        {"do": "run", "limit_s": 999, "images": 10**9},
    ):
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    assert b"ok" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(60) == EXIT_ORPHAN
    process.stdout.close()


def test_it_ends_by_itself_while_a_runtime_hangs_with_the_interpreters_lock(tmp_path: Path) -> None:
    process = start(
        wrapped(
            tmp_path,
            """
        import ctypes
        worker.Worker.answer = lambda self, request: ctypes.PyDLL(None).sleep(600)
    """,
        )
    )
    assert process.stdin and process.stdout
    process.stdin.write(b'{"do": "run", "limit_s": 1}\n')
    process.stdin.close()
    assert wait_for(lambda: process.poll() is not None)
    process.stdout.close()


def test_peak_memory_grows() -> None:
    before = peak_memory_bytes()
    held = np.ones(1 << 26, np.uint8)
    after = peak_memory_bytes()
    assert before and after and after >= before and after > held.nbytes
