"""Runs scripts that may crash, hang or take all memory, each in a process of its own.

Such a script prints the number of each item before it starts on it, and one line of JSON at its
end, so the item of a crash or hang is known.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeface.cli.output import LONGEST, printable

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "tests/harness"


def apart(script: str, *arguments: object, limit_s: float = 900) -> dict[str, Any]:
    """Run ``script``; returns its last line. AssertionError tells the item of a crash or hang."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        env={**os.environ, "PYTHONPATH": path},
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (
        f"{script} {arguments}: exit code {done.returncode} at item {lines[-1:]}:"
        f" {done.stderr[-2000:]}"
    )
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def items(first: int, count: int, limit_s: float) -> Iterator[int]:
    """Numbers of the items, each printed before it is yielded. If one takes longer than
    ``limit_s``, the process ends with a traceback of the place where it hangs."""
    words = os.fdopen(os.dup(2), "w")  # the work may close or redirect descriptor 2
    for item in range(first, first + count):
        print(item, flush=True)
        faulthandler.dump_traceback_later(limit_s, exit=True, file=words)
        yield item
    faulthandler.cancel_dump_traceback_later()


def limit_memory(size: int) -> None:
    """Limit this process to ``size`` bytes of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def peak_bytes() -> int:
    """Peak memory of this process; the peak of getrusage includes its parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def one_line(error: Exception) -> bool:
    """Whether the error's message is one line that a terminal can print."""
    text = printable(error)
    return "\n" not in str(error) and text.isprintable() and 0 < len(text) <= LONGEST


def ended(results: dict[str, Any]) -> None:
    """Print the last line: ``results`` and the peak memory, as JSON."""
    print(json.dumps({**results, "peak_bytes": peak_bytes()}), flush=True)
