"""One command on a device: bytes in, lines of JSON out; it always ends."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from edgeface.errors import DeviceError
from edgeface.types import Closing

BEAT_S = 5.0
"""an empty line is sent this often, so that the device can tell a waiting caller from one that is
gone"""
GRACE_S = 10.0
"""seconds that the remote side has to end by itself once its input has ended"""
MAX_LINE_BYTES = 64 << 20
MAX_GREETING_BYTES = 1 << 20
"""limit on all output that is not JSON objects"""
MAX_WORDS_BYTES = 4096
"""limit on a line of standard error; the rest counts as another line"""
CHUNK = 1 << 16
LAST_WORDS = 40
"""lines of standard error that are kept"""


class Session(Closing):
    """A local process (ssh, adb) that runs one command on a device. Use it in a ``with`` block.

    Raises DeviceError if the local program cannot be started. The end of the block closes the input
    of the command, which ends it on the device, and ends the local process.
    """

    def __init__(
        self, arguments: Sequence[str], silence_s: float, limit_s: float = math.inf
    ) -> None:
        """Start the command.

        It is given up if it neither sends a JSON object nor takes input for ``silence_s``, and
        after ``limit_s`` in any case.
        """
        self.heard = False
        """did any JSON object arrive?"""
        self.silent = False
        """was the command given up for its silence?"""
        self.endless = ""
        """what the command sent without end, if it was given up for that; otherwise empty"""
        self._silence_s, self._last, self._beating = silence_s, time.monotonic(), False
        self._limit_s, self._begun = limit_s, time.monotonic()
        self._words: collections.deque[str] = collections.deque(maxlen=LAST_WORDS)
        self._closed = threading.Event()
        try:
            # In a new session, so that Ctrl-C reaches only this process, which then ends the
            # command in an orderly way.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"cannot start {arguments[0]}: {error.strerror or error}") from None
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._listen, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, data: bytes) -> None:
        """Write to the command's input.

        If the command has ended, that is no error here: its lines and its exit code tell why.
        """
        for start in range(0, len(data), CHUNK):
            self._write(data[start : start + CHUNK])
            self._last = time.monotonic()

    def keep_alive(self) -> None:
        """From now on send an empty line every few seconds, whatever else happens."""
        self._beating = True

    def lines(self) -> Iterator[dict[str, Any]]:
        """JSON objects that the command prints, as they arrive.

        Other text, such as a greeting, is skipped; too much of it, and the command is given up.
        """
        assert self._process.stdout
        others = 0
        while line := self._process.stdout.readline(MAX_LINE_BYTES):
            data = _read_object(line)
            if data is not None:
                self.heard, self._last = True, time.monotonic()
                yield data
                continue
            others += len(line)
            if others > MAX_GREETING_BYTES:
                self._give_up("text that is not edgeface's")
                return

    def close(self) -> int:
        """End the command; returns the exit code of the local process. May be called again."""
        assert self._process.stdin
        self._closed.set()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        # Discard further output: a command that waits for its output to be read would never end.
        drain = threading.Thread(target=self._drain, daemon=True)
        drain.start()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()
        for thread in (drain, *self._threads):
            thread.join(GRACE_S)
        return self._process.wait()

    def last_words(self) -> list[str]:
        """The last lines of standard error so far."""
        return list(self._words)

    def _write(self, data: bytes) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError, ValueError):  # ended, or closed while a last beat was due
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stderr
        with self._process.stderr as errors:
            while line := errors.readline(MAX_WORDS_BYTES):
                self._words.append(line.decode("utf-8", errors="replace").strip())

    def _drain(self) -> None:
        assert self._process.stdout
        with contextlib.suppress(OSError, ValueError), self._process.stdout as rest:
            while rest.read(CHUNK):
                pass

    def _give_up(self, what: str) -> None:
        self.endless = what
        self._kill()

    def _kill(self) -> None:
        """Kill the process and all that it started.

        ``ssh`` or ``adb`` may be a script that runs another program, which would keep our pipes
        open.
        """
        if sys.platform == "win32":
            self._process.kill()
            return
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _watch(self) -> None:
        beat = time.monotonic()
        while not self._closed.wait(0.2):
            now = time.monotonic()
            if now - self._begun > self._limit_s:
                self._give_up(f"answers, for more than {self._limit_s:g} s")
                return
            if now - self._last > self._silence_s:
                self.silent = True
                self._kill()
                return
            if self._beating and now - beat >= BEAT_S:
                beat = now
                self._write(b"\n")


def _read_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object in ``line``; None if it holds anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(line)
        return data if isinstance(data, dict) else None
    return None
