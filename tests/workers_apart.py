"""Work that may crash, hang or take all memory, in a process of its own.

A script that is run so says the number of each item before it begins with it, and at its end one
line of JSON. Whatever becomes of it, the item that did it is known.
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
    """The last line of ``script``; AssertionError names the item at which it crashed or hung."""
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
    """The numbers, each said and watched over: one that takes longer than ``limit_s`` ends the
    process with the place where it hangs."""
    words = os.fdopen(os.dup(2), "w")  # what is done may close or lead away descriptor 2
    for item in range(first, first + count):
        print(item, flush=True)
        faulthandler.dump_traceback_later(limit_s, exit=True, file=words)
        yield item
    faulthandler.cancel_dump_traceback_later()


def limit_memory(size: int) -> None:
    """This process may have so many bytes of addresses."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def peak_bytes() -> int:
    """Of memory that this process has had; what getrusage says is also that of its parent."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def one_line(error: Exception) -> bool:
    """Is it told in one line, and can a terminal print that?"""
    text = printable(error)
    return "\n" not in str(error) and text.isprintable() and 0 < len(text) <= LONGEST


def ended(results: dict[str, Any]) -> None:
    """The last line."""
    print(json.dumps({**results, "peak_bytes": peak_bytes()}), flush=True)
