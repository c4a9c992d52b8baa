"""One command on a device: bytes in, lines of JSON out, and an end that always comes."""

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
"""an empty line is sent this often, so that the device can tell a caller that is gone from one that
waits"""
GRACE_S = 10.0
"""what the far side has for ending by itself once its input has ended"""
MAX_LINE_BYTES = 64 << 20
MAX_GREETING_BYTES = 1 << 20
"""of all that is not ours"""
MAX_WORDS_BYTES = 4096
"""of a line of standard error"""
CHUNK = 1 << 16
LAST_WORDS = 40
"""lines of standard error that are kept"""


class Session(Closing):
    """A local process (ssh, adb) that runs one command on a device. Use it in a ``with`` block.

    Raises DeviceError when the program itself cannot be started. At the end of the block the input
    of the command is closed, which is what ends it on the device, and the local process is gone.
    """

    def __init__(
        self, arguments: Sequence[str], silence_s: float, limit_s: float = math.inf
    ) -> None:
        """``silence_s``: the command is given up when it sends no line of ours, and takes nothing,
        for as long; ``limit_s``: and after as long, whatever it sends."""
        self.heard = False
        """did any line of ours arrive?"""
        self.silent = False
        """was it given up?"""
        self.endless = ""
        """what would not end, where it was given up for that"""
        self._silence_s, self._last, self._beating = silence_s, time.monotonic(), False
        self._limit_s, self._begun = limit_s, time.monotonic()
        self._words: collections.deque[str] = collections.deque(maxlen=LAST_WORDS)
        self._closed = threading.Event()
        try:
            # A session of its own: Ctrl-C reaches this process alone, which then ends the command
            # in good order.
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
        """Write to the command's input. One that has ended is no error here: its lines and its exit
        code tell why."""
        for start in range(0, len(data), CHUNK):
            self._write(data[start : start + CHUNK])
            self._last = time.monotonic()

    def keep_alive(self) -> None:
        """From now on send an empty line every few seconds, whatever else happens."""
        self._beating = True

    def lines(self) -> Iterator[dict[str, Any]]:
        """JSON objects that the command prints, as they come. Anything else, such as a greeting, is
        passed over, but for one without end."""
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
        """End the command and return the exit code of the local process. Calling it again does
        nothing more."""
        assert self._process.stdin
        self._closed.set()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        # What still comes is thrown away: a command that waits for its output to be read would
        # never end.
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
        """Lines of standard error so far, the last ones."""
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
        """The process and all that it started: ssh or adb may be a script that runs another one,
        which would keep our pipes open."""
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
    """The JSON object that is the line; None for any other line."""
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(line)
        return data if isinstance(data, dict) else None
    return None
