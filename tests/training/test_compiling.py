"""A training whose compiler takes long, fails or is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from by_hand import wait_for

pytest.importorskip("torch", reason="torch is not installed")

COMPILER = """#!/bin/sh
case "$*" in
  *--version*|*-dumpversion*) exec g++ "$@" ;;
esac
: > "$STARTED"
{}
exit 1
"""
"""a compiler that tells its version and never compiles anything"""


def begun(photos: Path, folder: Path, does: str) -> subprocess.Popen[str]:
    """A training in a session of its own, whose compiler runs the shell command ``does``."""
    compiler = folder / "compiler"
    compiler.write_text(COMPILER.format(does))
    compiler.chmod(0o755)
    environment = {
        **os.environ,
        "CXX": str(compiler),
        "STARTED": str(folder / "started"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }
    words = (
        f"--annotations {photos / 'faces.csv'}"
        f" --samples 4 --batch 2 --size 64 --late-size 64 --precision fp32 --out {folder / 'run'}"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "edgeface", "train", "--data", photos, *words.split()],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    )


def test_a_compiler_that_fails_is_one_line(photos: Path, tmp_path: Path) -> None:
    process = begun(photos, tmp_path, "echo no >&2")
    _, err = process.communicate(timeout=300)
    assert (tmp_path / "started").exists(), err
    assert process.returncode == 2, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: the network cannot be compiled (") and "--no-compile" in last
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_to_all_its_processes_while_it_compiles(
    number: signal.Signals, code: int, photos: Path, tmp_path: Path
) -> None:
    """As a terminal sends Ctrl-C, and systemd SIGTERM: the compiler dies of it, too."""
    process = begun(photos, tmp_path, "sleep 100")
    wait_for(lambda: (tmp_path / "started").exists() or process.poll() is not None, seconds=200)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("stopped: ")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
