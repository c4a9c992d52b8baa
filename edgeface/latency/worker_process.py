"""The parent's side of a worker: starts it, sends it requests and makes sure that it ends."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeface
from edgeface.errors import DeviceError

if TYPE_CHECKING:
    from typing_extensions import Self

PYTHON = (sys.executable,)
START = (
    "import sys; sys.path = [path for path in sys.path if path]; "
    "sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]); "
    "from edgeface.latency.worker import main; main()"
)
"""the worker's program: it imports this same package, which may lie in a zip, and nothing from the
current folder"""
GRACE_S = 2.0
"""seconds that the worker's own time limit is longer than the parent's"""
LAST_WORDS_BYTES = 4096
MAX_ANSWER_BYTES = 64 << 20
UNASKED = 16
"""a worker is killed if it sends more unread answers than this"""


class WorkerProcess:
    """One worker process. Use it in a ``with`` block, which always ends the process."""

    def __init__(self, name: str, time_limit_s: float, python: Sequence[str] = PYTHON) -> None:
        """Start the worker. Raises DeviceError if that fails.

        ``time_limit_s``: total time that its answers may take.
        """
        self.name, self._limit_s, self._left_s = name, time_limit_s, time_limit_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by kill)
        root = str(Path(edgeface.__file__).parents[1])
        try:
            # In a new session, so that Ctrl-C reaches only the parent, which then ends its workers.
            self._process = subprocess.Popen(
                [*python, "-c", START, root],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise DeviceError(
                f"cannot start {' '.join(python)}: {error.strerror or error}"
            ) from None
        self._answers: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        """Process ID of the worker."""
        return self._process.pid

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises DeviceError if the worker reports an error, dies, gives a malformed answer or uses up
        its time; the process is then gone.
        """
        start = time.monotonic()
        request = {"do": what, "limit_s": round(self._left_s + GRACE_S, 3), **arguments}
        try:
            assert self._process.stdin
            with contextlib.suppress(BrokenPipeError):  # it died; the empty answer below says how
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            line = self._answers.get(timeout=max(0.001, self._left_s))
        except queue.Empty:
            self.kill()
            raise DeviceError(
                f"{self.name}: not done within {self._limit_s:g} s (stopped while it had to"
                f" {what}): it hangs, or is too slow here: edgeface bench gives a model more with"
                " --time-limit-s"
            ) from None
        self._left_s -= time.monotonic() - start
        return self._understand(line)

    def kill(self) -> None:
        """End the process at once. Calling it again does nothing."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # closing flushes, which fails if the worker is dead
            if self._process.stdin:
                self._process.stdin.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def _listen(self) -> None:
        assert self._process.stdout
        with self._process.stdout as answers:
            while line := answers.readline(MAX_ANSWER_BYTES):
                if self._answers.qsize() >= UNASKED:
                    self._process.kill()
                    break
                self._answers.put(line)
        self._answers.put(b"")

    def _understand(self, line: bytes) -> dict[str, Any]:
        if not line:
            raise self._died()
        answer: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line)
        found = answer if isinstance(answer, dict) else {}
        if isinstance(result := found.get("ok"), dict):
            return result
        self.kill()
        if "error" in found:
            raise DeviceError(f"{self.name}: {found['error']}")
        raise DeviceError(f"{self.name}: its worker process answered nonsense: {line[:60]!r}")

    def _died(self) -> DeviceError:
        code = self._process.wait()
        words = self._last_words()
        self.kill()
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            hint = {
                "SIGKILL": ": not enough memory? A smaller --together loads fewer models at once",
                "SIGILL": ": the runtime was built for a newer processor",
            }.get(name, "")
            return DeviceError(f"{self.name}: its worker process was ended by {name}{hint}")
        return DeviceError(
            f"{self.name}: its worker process ended with code {code}{': ' * bool(words)}{words}"
        )

    def _last_words(self) -> str:
        """Last line on its standard error."""
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - LAST_WORDS_BYTES))
            lines = self._errors.read().decode("utf-8", errors="replace").strip().splitlines()
            return lines[-1][:200] if lines else ""
        return ""
