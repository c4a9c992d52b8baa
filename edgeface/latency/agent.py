"""The program that runs on a device: reads one request, measures, reports.

The request is one line of JSON on standard input::

    {"do": "check"}
    {"do": "measure", "jobs": [{"bundle": path, "threads": 1, "fast": false}], "protocol": {...},
     "reference": 0, "device": "ssh://...", "python": [command that starts a worker],
     "silence_s": 60}

Only ``do`` and, to measure, ``jobs`` are required. The answers are lines of JSON on standard
output::

    {"progress": {"what": text, "done": 3, "total": 28}}
    {"check": facts}                                see edgeface/latency/examine.py
    {"measurement": record}                         as soon as it is complete
    {"failed": {"job": index, "message": text}}     the other jobs go on
    {"error": text}                                 only done follows
    {"done": true}                                  the last line; without it the agent was cut off

The caller keeps standard input open. If it ends before ``done``, the caller is gone, and the agent
ends with all its workers. To detect a connection that dies silently, the caller sets ``silence_s``
and writes an empty line more often than that. The exit code is 2 for a malformed request, 3 if the
caller is gone, and otherwise 0, even if a measurement failed.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from edgeface.errors import DeviceError, EdgefaceError
from edgeface.latency.examine import examine
from edgeface.latency.protocol import LOCAL, Job, Protocol
from edgeface.schema import from_fields

EXIT_ORPHAN = 3
EXIT_BAD_REQUEST = 2
MAX_REQUEST_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Request:
    """The one line that the agent reads."""

    do: str
    jobs: tuple[Job, ...] = ()
    protocol: Protocol = dataclasses.field(default_factory=Protocol)
    reference: int | None = None
    device: str = LOCAL
    python: tuple[str, ...] = (sys.executable,)
    silence_s: float | None = None
    """the caller counts as gone after this many s without input; None: only when its input ends"""

    def __post_init__(self) -> None:
        if self.do not in ("check", "measure"):
            raise ValueError(f"do must be check or measure, got {self.do!r}")
        if self.reference is not None and not 0 <= self.reference < len(self.jobs):
            raise ValueError(f"reference {self.reference} is none of {len(self.jobs)} jobs")
        if self.silence_s is not None and not 1 <= self.silence_s <= 86_400:
            raise ValueError(f"silence_s must be from 1 to 86400, got {self.silence_s}")
        if not self.python:
            raise ValueError("python must name a command")

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)


def parse(line: str) -> Request:
    """The request in ``line``. Raises DeviceError if there is none."""
    try:
        return from_fields(Request, json.loads(line), "request")
    except (ValueError, RecursionError, EdgefaceError) as error:
        raise DeviceError(f"the agent cannot read its request: {error}") from None


class Agent:
    """Carries out one request; every line goes to ``out``."""

    def __init__(self, out: TextIO, understood: Callable[[Request], None] | None = None) -> None:
        """``understood`` is called before a request is carried out."""
        self._out, self._understood = out, understood

    def run(self, line: str) -> int:
        """Carry out the request in ``line``; returns the exit code."""
        code = 0
        try:
            request = parse(line)
        except DeviceError as error:
            self._say(error=str(error))
            code = EXIT_BAD_REQUEST
        else:
            if self._understood:
                self._understood(request)
            self._carry_out(request)
        self._say(done=True)
        return code

    def _carry_out(self, request: Request) -> None:
        if request.do == "check":
            self._say(check=examine())
            return
        try:
            self._measure(request)
        except EdgefaceError as error:
            self._say(error=str(error))
        except ImportError as error:  # NumPy or OpenCV is missing, or does not load here
            self._say(error=f"{error}: run `edgeface device check` to see what this device needs")

    def _measure(self, request: Request) -> None:
        from edgeface.latency.session import measure

        measure(
            request.jobs,
            request.protocol,
            request.reference,
            lambda what, done, total, note="": self._say(
                progress={"what": what, "done": done, "total": total}
            ),
            lambda record: self._say(measurement=record.to_json()),
            lambda job, message: self._say(failed={"job": job, "message": message}),
            request.device,
            request.python,
        )

    def _say(self, **line: Any) -> None:
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def _end_with_caller(request: Request) -> None:
    """End the process, and with it its workers, when standard input ends or falls silent."""

    def wait() -> None:
        while _speaks(request.silence_s) and os.read(0, 1 << 16):
            pass
        os._exit(EXIT_ORPHAN)

    threading.Thread(target=wait, daemon=True).start()


def _speaks(silence_s: float | None) -> bool:
    """Wait for input; False if there is none for ``silence_s``."""
    return silence_s is None or bool(select.select([0], [], [], silence_s)[0])


def main() -> int:
    """Serve standard input; returns the exit code."""
    # Not sys.stdin: a thread that waits in a buffered reader can crash the interpreter at exit.
    line = io.FileIO(0, closefd=False).readline(MAX_REQUEST_BYTES).decode("utf-8", errors="replace")
    # The protocol gets its own descriptor: whatever a library prints goes to standard error.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        return Agent(out, _end_with_caller).run(line)
    except BrokenPipeError:
        os._exit(EXIT_ORPHAN)


if __name__ == "__main__":
    raise SystemExit(main())
