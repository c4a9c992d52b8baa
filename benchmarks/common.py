"""Shared by the benchmarks: options for the result, and the conditions that a figure depends on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeface.backends import BACKENDS
from edgeface.cli.failures import Failures
from edgeface.options import Range

MAX_DROP = Range(0, 100)
"""AP points that INT8 may lose, as :class:`quantize.request.QuantizeRequest` takes them"""


def environment(*distributions: str) -> dict[str, Any]:
    """The conditions that a figure depends on: processor, cores, load and versions of
    ``distributions``."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in distributions},
    }


def installed_runtimes() -> list[str]:
    """pip names of the runtimes that are installed."""
    return [found[0] for row in BACKENDS.values() if (found := row.installed())]


def shown(value: float | None, digits: int = 4) -> str:
    """``value``, or a dash for the AP of a setting without faces."""
    return "-" if value is None else f"{value:.{digits}f}"


def left_out(failures: Failures) -> int:
    """Report how many photos are missing from the figures; returns the exit code."""
    return failures.ended("could not be read; the figures are those of the others") or 0


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@dataclass(frozen=True, kw_only=True)
class Printed:
    """Options of every command of this folder that prints a result."""

    format: str = "table"
    """how the result is printed: table or json"""
    save: Path | None = None
    """also save the JSON to this file"""
