"""48 commands killed at random moments of a fixed seed: the old result or the new one is whole.

The next start works, and removes what the killed one left."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from hard_times import Task, task

from edgeface.files import LEFT_S

pytest.importorskip("torch", reason="torch is not installed")
KILLS = 8
"""kills of each command"""
NAMES = ("export", "quantize", "train", "save", "search", "bench")
LIMIT_S = 600
__all__ = ["task"]  # a fixture


def run(task: Task, kill_s: float | None = None) -> float:
    """Run the task and return the seconds; after ``kill_s`` it is killed with all its processes."""
    start = time.monotonic()
    process = task.start(start_new_session=True)
    if kill_s is not None:
        time.sleep(kill_s)
        os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT_S)
    if kill_s is None:
        assert process.returncode == 0, err
    assert "Traceback" not in err, err
    return time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize("task", NAMES, indirect=True)
def test_killed_at_any_moment(task: Task, request: pytest.FixtureRequest) -> None:
    long_s = run(task)
    assert task.is_whole(), "the user's own, from now on"
    rng = random.Random(NAMES.index(request.node.callspec.params["task"]))
    left = 0
    for _ in range(KILLS):
        # half of the kills come near the end, where files are written
        run(task, long_s * (rng.uniform(0.8, 1.02) if rng.random() < 0.5 else rng.uniform(0.02, 1)))
        found = task.hidden()
        left += len(found)
        assert task.is_whole() or any(path.name.endswith("-old") for path in found)
    past = time.time() - 2 * LEFT_S
    for path in task.hidden():
        os.utime(path, (past, past))
    run(task)
    print(task.arguments[0], f"{long_s:.1f} s, {KILLS} kills, {left} temporaries left")
    assert task.is_whole() and not task.hidden()
