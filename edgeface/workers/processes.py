"""Workers in processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from edgeface.workers.base import (
    RETRIES,
    TASKS,
    Outcome,
    Outcomes,
    Task,
    Workers,
    attempt,
    task_name,
    worker_died,
)

LEAVE_S = 5.0
"""seconds that an idle process has to end by itself"""


class Processes(Workers):
    """Up to ``count`` processes at once, kept from run to run until :meth:`close`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[_Process] = []

    def close(self) -> None:
        """End all processes."""
        while self._idle:
            self._idle.pop().leave()

    def outcomes(self, task: Task, items: Sequence[Any]) -> Outcomes:
        name, deaths, waiting = task_name(task), Counter[int](), deque(range(len(items)))
        running: dict[_Process, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._count:
                    with _without_ctrl_c():
                        process = self._idle.pop() if self._idle else _Process()
                        running[process] = waiting.popleft()
                    process.give(name, items[running[process]])
                for process in _done(running):
                    outcome, index = process.answer(), running.pop(process)
                    if outcome:
                        self._keep(process)
                        yield index, outcome
                        continue
                    code = process.end()
                    deaths[index] += 1
                    if deaths[index] > RETRIES:
                        raise worker_died(name, index, items[index], _cause(code))
                    waiting.appendleft(index)
        finally:
            for process in running:
                process.end()

    def _keep(self, process: _Process) -> None:
        if process.tasks < TASKS:
            self._idle.append(process)
        else:
            process.end()


class _Process:
    """A new Python process, which runs one task after the other."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.connection, far = spawn.Pipe()
        self.tasks = 0
        self._process = spawn.Process(target=_serve, args=(far,))
        self._process.start()
        far.close()

    def give(self, name: str, item: Any) -> None:
        """Start a task in the process."""
        self.tasks += 1
        with contextlib.suppress(OSError):  # the process died; the missing answer will show it
            self.connection.send((name, item))

    def is_done(self, ready: Sequence[object]) -> bool:
        """Is an answer there, or has the process died?"""
        # A dead process may leave the connection open, in processes that it forked.
        return self.connection in ready or not self._process.is_alive()

    def answer(self) -> Outcome | None:
        """Outcome of the task, once :meth:`is_done`; None if the process died."""
        with contextlib.suppress(EOFError, OSError):
            if self.connection.poll():
                outcome: Outcome = self.connection.recv()
                return outcome
        return None

    def leave(self) -> None:
        """Let an idle process end by itself, so that it releases its system resources.

        It does so when the connection is closed; after :data:`LEAVE_S` it is killed."""
        self.connection.close()
        self._process.join(LEAVE_S)
        self.end()

    def end(self) -> int:
        """Kill the process and all that it started, and return its exit code."""
        assert self._process.pid
        with contextlib.suppress(OSError):  # it has no process group yet, or no longer
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self.connection.close()
        return self._process.exitcode or 0


def _done(running: dict[_Process, int]) -> list[_Process]:
    ready = wait([process.connection for process in running], timeout=1.0)
    return [process for process in running if process.is_done(ready)]


def _serve(connection: Connection[Outcome, tuple[str, Any]]) -> None:
    """Main function of a process: run tasks until the parent closes the connection."""
    # In a session of its own, so that Ctrl-C reaches only the parent, which then ends its processes
    # in good order.
    os.setsid()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with contextlib.suppress(EOFError):
        while True:
            connection.send(attempt(*connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.killpg(0, signal.SIGKILL)


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block, and in a process started there until it is ready."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return name + ": not enough memory? Run fewer at once" * (name == "SIGKILL")
