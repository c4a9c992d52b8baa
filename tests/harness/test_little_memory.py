"""61 runs of commands that get less and less memory: the right result, or one line and exit code 2;
nothing half-written, no traceback, no hang.

What is not Python may end the process where it gets no memory, before Python hears of it: torch by
a signal, OpenBLAS, which NumPy and OpenCV bring, with a line of its own. That is counted, and of
each command some endings must be ours.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from commands import said
from hard_times import Task, task

from edgeface.backends import export_targets

pytest.importorskip("torch", reason="torch is not installed")
SHARES = (0.15, 0.4, 0.7, 0.9, 0.97)
"""of the addresses that it needs"""
NAMES = (*export_targets(), "torch", "eval", "export", "quantize", "train", "search")
LIMIT_S = 180
__all__ = ["task"]  # a fixture
OPENBLAS_THREAD = "OpenBLAS blas_thread_init: pthread_create failed"
"""it then sends its own process SIGINT, as if somebody had pressed Ctrl-C"""
SIGNALS = (-6, -11)
"""abort, segmentation fault"""
IGNORED = re.compile(r"Exception ignored (in|on)\b.*?(?=Exception ignored|error: |\n|$)\n?")
"""what Python itself says where it has not even the memory to say more"""
OPENBLAS = "OpenBLAS error: Memory allocation still failed"


@pytest.mark.slow
@pytest.mark.parametrize("task", NAMES, indirect=True)
def test_right_or_one_line(task: Task, tmp_path: Path) -> None:
    process = task.start()
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    *lines, last = out.splitlines()
    peak = int(re.findall(r"\d+", last)[0]) * 1024
    shares = (*SHARES, 1.5) if task.arguments[0] == "search" else SHARES
    ended = [_ending(task, int(peak * share), lines) for share in shares]
    print(task.arguments[0], f"peak {peak / 1e6:.0f} MB:", *ended)
    assert "one line" in ended


def _ending(task: Task, limit: int, wanted: list[str]) -> str:
    if task.made is not None:
        shutil.rmtree(task.made.parent, ignore_errors=True)
    process = task.start(limit)
    out, err = process.communicate(timeout=LIMIT_S)
    assert "Traceback" not in err, err
    if process.returncode == 0:
        assert task.is_whole() if task.made is not None else out.splitlines() == wanted
        return "right"
    task.is_whole()
    if task.torch and process.returncode in SIGNALS:
        return "ended by torch"
    if (process.returncode == 1 and err.startswith(OPENBLAS)) or (
        process.returncode == 130 and err.startswith(OPENBLAS_THREAD)
    ):
        return "ended by OpenBLAS"
    err = IGNORED.sub("", err)
    assert process.returncode == 2 and len(said(err)) == 1 and said(err)[0].startswith("error: "), (
        process.returncode,
        err,
    )
    assert not task.hidden()
    return "one line"
