"""Runtimes after a fork: the child has their memory, but none of their threads.

With some runtimes and thread counts, a runner of the parent hangs in the child as soon as it
computes or is freed. A new runner hangs, too, if its runtime uses OpenMP and the parent has used
it. A runner of the parent is therefore never used and never freed in the child.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import TYPE_CHECKING

from edgeface.errors import EdgefaceError

if TYPE_CHECKING:
    from edgeface.runners.base import Runner

ADVICE = (
    "start processes with spawn (multiprocessing.get_context('spawn')), or open it after the fork"
)

_open: weakref.WeakSet[Runner] = weakref.WeakSet()
_used: set[type[Runner]] = set()
_lost: set[type[Runner]] = set()
"""kinds of runner that a parent process used before the fork"""


class RunnerForkedError(EdgefaceError):
    """A runner or detector was used in a forked process, where it would hang."""


def check_opening(kind: type[Runner]) -> None:
    """Raise RunnerForkedError if a runner of this ``kind`` would hang."""
    if kind in _lost and not kind.opens_after_fork:
        raise RunnerForkedError(
            f"{kind.__name__}: the process that this one was forked from has used its runtime,"
            f" which would hang here: {ADVICE}"
        )


def opening(runner: Runner) -> None:
    """Register ``runner``, so that a forked child can mark it. Raises RunnerForkedError."""
    check_opening(type(runner))
    _open.add(runner)
    _used.add(type(runner))


def _in_the_child() -> None:
    for runner in list(_open):
        runner.inherited = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runner))  # so it is not freed even at exit
    _lost.update(_used)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_the_child)
