"""Runners: one per runtime, each imported only when a Bundle asks for it."""

from __future__ import annotations

from edgeface.bundle import Bundle
from edgeface.runners.base import Heads, Runner, RunnerClosedError

__all__ = ["Heads", "Runner", "RunnerClosedError", "open_runner"]


def open_runner(bundle: Bundle, threads: int = 1) -> Runner:
    """Load the model of ``bundle`` in its runtime, with ``threads`` threads.

    The bytes that are loaded are the bytes whose SHA-256 was checked. Raises MissingExtraError without the runtime,
    BundleError for a file that the runtime refuses, OptionError for a target that is off.
    """
    from edgeface.backends import get_backend

    runner: Runner = get_backend(bundle.manifest.target).load_runner()(bundle, threads)
    return runner
