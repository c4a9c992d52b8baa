"""What every benchmark prints, keeps and returns: a table for people, JSON with the conditions for machines."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeface.backends import BACKENDS
from edgeface.errors import EdgefaceError
from edgeface.files import atomic_write


def environment(*distributions: str) -> dict[str, Any]:
    """The conditions that a figure depends on: processor, cores, load and versions of ``distributions``."""
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


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Plain text, first column to the left, the others to the right."""
    cells = [[str(v) for v in row] for row in (columns, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    first, *others = widths
    lines = []
    for name, *values in cells:
        lines.append(name.ljust(first) + "".join(f"  {v:>{w}}" for v, w in zip(values, others, strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def emit(result: dict[str, Any], text: str, format: str, save: Path | None) -> None:
    """Print as table or JSON, and keep the JSON where asked."""
    print(json.dumps(result, indent=1) if format == "json" else text)
    if save is not None:
        with atomic_write(save) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")


def exit_code(command: Callable[[], int], kept: str = "") -> int:
    """What ``command()`` returns; 2 after a user's mistake and 130 after Ctrl-C, each told in one line on stderr.

    kept: what is not lost then, such as "measured"; nothing by default.
    """
    try:
        return command()
    except EdgefaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped: what was {kept} is kept, the same command goes on from here" if kept else
              "stopped: nothing is kept, the same command begins again", file=sys.stderr)
        return 130
