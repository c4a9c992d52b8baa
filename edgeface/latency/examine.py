"""Collects the facts about a machine that decide whether it can measure.

It runs before anything is installed, so it uses only the standard library.
"""

from __future__ import annotations

import importlib
import platform
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeface import __version__
from edgeface.backends import BACKENDS, has_module
from edgeface.latency.environment import Machine
from edgeface.schema import from_fields

NEEDED = ("numpy", "cv2")
"""packages that every measurement needs, by import name"""


@dataclass(frozen=True)
class Facts:
    """The result of :func:`examine` as received from a device, which is not trusted."""

    edgeface: str
    python: str
    system: str
    machine: str
    cpu: str
    flags: tuple[str, ...]
    cores: int
    governor: str | None
    memory_bytes: int | None
    free_bytes: int | None
    packages: dict[str, str | None]
    runtimes: dict[str, str | None]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d{1,4}\.\d{1,4}(\.[\w+]{1,20})?", self.python, re.ASCII):
            raise ValueError("python must be a version such as 3.11.7")
        for found, wanted in ((self.packages, NEEDED), (self.runtimes, BACKENDS)):
            if {*found} != {*wanted}:
                raise ValueError(f"expected what is there of {', '.join(wanted)}")
        sizes = (self.cores, self.memory_bytes or 0, self.free_bytes or 0)
        if not all(0 <= size < 1 << 62 for size in sizes):
            raise ValueError("a count is out of range")


def read_facts(data: Any, where: str) -> dict[str, Any]:
    """Check the facts that a device sent. Raises ModelError if they are malformed."""
    return asdict(from_fields(Facts, data, where))


def examine() -> dict[str, Any]:
    """JSON-ready facts about this machine.

    ``packages``: import name -> version, None if it is missing or does not load. ``runtimes``:
    target -> name and version, None if none is installed or it is too old.
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
        "packages": {name: _loads(name) for name in NEEDED},
        "runtimes": {target: _runtime(target) for target in BACKENDS},
    }


def _runtime(target: str) -> str | None:
    row = BACKENDS[target]
    return " ".join(row.installed() or ()) if row.usable() else None


def _loads(name: str) -> str | None:
    """Version of a module; None if it cannot be imported.

    The import is tried because a package whose system libraries are missing is of no use.
    """
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
