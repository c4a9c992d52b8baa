"""What a machine has that a measurement needs. Runs before anything is installed: the standard
library is enough."""

from __future__ import annotations

import importlib
import platform
import shutil
from pathlib import Path
from typing import Any

from edgeface import __version__
from edgeface.backends import BACKENDS, has_module
from edgeface.latency.environment import Machine


def examine() -> dict[str, Any]:
    """JSON-ready facts of the machine this runs on.

    ``packages``: import name -> version, None where it is missing or does not load. ``runtimes``:
    target -> name and version, None where there is none.
    """
    machine = Machine.read()
    return {
        "edgeface": __version__,
        "python": machine.python,
        "system": platform.system().replace("Darwin", "macOS"),
        "machine": machine.architecture,
        "cpu": machine.cpu,
        "flags": list(machine.flags),
        "cores": machine.cores,
        "governor": machine.governor,
        "memory_bytes": machine.memory_bytes,
        "free_bytes": _free_bytes(),
        "packages": {name: _loads(name) for name in ("numpy", "cv2")},
        "runtimes": {target: _runtime(target) for target in BACKENDS},
    }


def _runtime(target: str) -> str | None:
    found = BACKENDS[target].installed()
    return " ".join(found) if found else None


def _loads(name: str) -> str | None:
    """Version of a module that can be imported: a package whose system libraries are missing is of
    no use."""
    if not has_module(name):
        return None
    try:
        return str(importlib.import_module(name).__version__)
    except (ImportError, OSError, AttributeError):
        return None


def _free_bytes() -> int | None:
    try:
        return shutil.disk_usage(Path.home()).free
    except (OSError, RuntimeError):
        return None
