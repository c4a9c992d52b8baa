"""Runners: one per runtime, each imported only when a Bundle asks for it."""

from __future__ import annotations

from edgeface.bundle import Bundle, Contract, contract_of
from edgeface.runners.base import Heads, Runner, RunnerClosedError
from edgeface.runners.forks import RunnerForkedError

__all__ = [
    "Heads",
    "Runner",
    "RunnerClosedError",
    "RunnerForkedError",
    "open_runner",
    "read_contract",
]


def open_runner(bundle: Bundle, threads: int = 1, fast: bool = False) -> Runner:
    """Load the model of ``bundle`` in its runtime, with ``threads`` threads.

    fast: let the runtime use arithmetic of lower precision where the device has it (see
    ``Backend.fast``); without it float files compute in float32 everywhere, as the parity check
    did.

    The bytes that are loaded are the bytes whose SHA-256 was checked. Raises MissingExtraError if
    the runtime is missing, BundleError if it refuses the file.
    """
    from edgeface.backends import get_backend

    bundle.require_heads()
    runner: Runner = get_backend(bundle.manifest.target).load_runner()(bundle, threads, fast)
    runner.trained = not bundle.manifest.weights.random
    return runner


def read_contract(bundle: Bundle) -> Contract:
    """Contract of ``bundle``, from its manifest and its file as opened in the runtime.

    Raises what :func:`open_runner` raises.
    """
    with open_runner(bundle) as runner:
        ports = runner.ports()
    assert ports is not None, "of a file"
    return contract_of(bundle.manifest, ports)
