"""61 runs of commands with less and less memory: the right result, or one line and exit code 2.

Nothing is half-written, and there is no traceback and no hang. A library may end the process when
it gets no memory, before our code learns of it: torch by a signal, OpenBLAS, which NumPy and OpenCV
bring, with a line of its own. At a few limits Python and NumPy themselves end with a segmentation
fault, as they release half-made objects as if they were whole (``dictiter_new`` of Python 3.11,
``PyArrayMethod_FromSpec_int`` while NumPy is imported). Such endings are counted, and some endings
of each command must be ours.
"""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest
from commands import said
from hard_times import Task, task

from edgeface.backends import export_targets

pytest.importorskip("torch", reason="torch is not installed")
SHARES = (0.15, 0.4, 0.7, 0.9, 0.97)
"""shares of the address space that the command needs"""
NAMES = (*export_targets(), "torch", "eval", "export", "quantize", "train", "search")
__all__ = ["task"]  # a fixture
SIGNALS = (-6, -11)
"""abort, segmentation fault"""
IGNORED = re.compile(r"Exception ignored (in|on)\b.*?(?=Exception ignored|error: |\n|$)\n?")
"""Python's own message when it lacks the memory to say more"""
PYTHON = "ended by Python or NumPy"
OPENBLAS = "OpenBLAS error: Memory allocation still failed"


@pytest.mark.slow
@pytest.mark.parametrize("task", NAMES, indirect=True)
def test_right_or_one_line(task: Task, tmp_path: Path) -> None:
    code, out, err = task.ended()
    assert code == 0, err
    *lines, last = out.splitlines()
    peak = int(re.findall(r"\d+", last)[0]) * 1024
    shares = (*SHARES, 1.5) if task.arguments[0] == "search" else SHARES
    ended = [_ending(task, int(peak * share), lines) for share in shares]
    print(task.arguments[0], f"peak {peak / 1e6:.0f} MB:", *ended)
    assert "one line" in ended
    assert ended.count(PYTHON) <= len(ended) // 3  # measured: 4 of 260 limits


def _ending(task: Task, limit: int, wanted: list[str]) -> str:
    if task.made is not None:
        shutil.rmtree(task.made.parent, ignore_errors=True)
    code, out, err = task.ended(limit)
    assert "Traceback" not in err, err
    assert code != -signal.SIGXCPU, ("it hangs", limit, err)
    if code == 0:
        assert task.is_whole() if task.made is not None else out.splitlines() == wanted
        return "right"
    task.is_whole()
    if task.torch and code in SIGNALS:
        return "ended by torch"
    if code == -signal.SIGSEGV:
        return PYTHON
    if code == 1 and err.startswith(OPENBLAS):
        return "ended by OpenBLAS"
    err = IGNORED.sub("", err)
    one_line = len(said(err)) == 1 and said(err)[0].startswith("error: ")
    assert code == 2 and one_line, (code, err)
    assert not task.hidden()
    return "one line"
