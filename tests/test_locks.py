"""A run folder has one process at a time, and is free again whatever ended it."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Command, failed

from edgeface.bundle import Bundle
from edgeface.errors import OptionError, OutputError
from edgeface.files import LOCK, locked

ROOT = Path(__file__).parents[1]
HOLD = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from edgeface.files import locked
    with locked(Path(sys.argv[1]), "it"):
        print("held", flush=True)
        time.sleep(600)
    """)


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock ``path`` during the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_second_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "new" / LOCK
    with held(path) as process:
        message = f"it is in use by process {process.pid}: wait for it, .* kill {process.pid}"
        with pytest.raises(OptionError, match=message), locked(path, "it"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(path, "it"):
            assert path.read_text() == f"{os.getpid()}\n"
            with pytest.raises(OptionError, match=f"process {os.getpid()}"), locked(path, "it"):
                pass
    with locked(path, "it"):
        pass


def test_a_holder_that_has_not_written_its_number_yet(tmp_path: Path) -> None:
    with (tmp_path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        message = "^it is in use by another process: wait for it, or choose another folder$"
        with pytest.raises(OptionError, match=message), locked(tmp_path / LOCK, "it"):
            pass


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), locked(tmp_path / "file" / LOCK, "it"):
        pass


def test_on_a_full_disk(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        with pytest.raises(OutputError, match="cannot write"), locked(tmp_path / LOCK, "it"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_training_that_runs(edgeface: Command, portraits: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    faces = tmp_path / "faces.csv"
    faces.write_text("image,x1,y1,x2,y2\nhopper.jpg,200,60,380,280\n")
    run = ("train", "--data", portraits, "--annotations", faces, "--out", tmp_path / "run")
    with held(tmp_path / "run" / LOCK) as process:
        failed(edgeface(*run), f"the training in {tmp_path / 'run'} is in use by", str(process.pid))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [LOCK]


def test_a_search_that_runs(edgeface: Command, tmp_path: Path) -> None:
    pytest.importorskip("pymoo", reason="pymoo is not installed")
    with held(tmp_path / "run" / LOCK) as process:
        failed(
            edgeface("search", "--out", tmp_path / "run", "--target", "onnx"),
            f"the search in {tmp_path / 'run'} is in use by process {process.pid}",
        )
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def test_a_quantisation_that_runs(
    edgeface: Command, exported: Callable[..., Bundle], portraits: Path, tmp_path: Path
) -> None:
    """The lock is for one INT8 Bundle: other Bundles may be made in the same folder meanwhile."""
    floats = exported("onnx")
    name = floats.path.name.replace("fp32", "int8")
    quantize: tuple[object, ...] = ("quantize", "--target", "onnx", "--no-accuracy")
    quantize += ("--bundle", floats.path, "--calibration", portraits, "--images", 2)
    quantize += ("--out", tmp_path)
    with held(tmp_path / f".{name}{LOCK}") as process:
        failed(edgeface(*quantize), f"{name} is in use by process {process.pid}")
    assert not (tmp_path / name).exists()
    assert edgeface(*quantize)[0] == 0 and (tmp_path / name / "manifest.json").is_file()
