"""Hides the output of runtimes and converters; edgeface says what matters in a line of its own."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from edgeface.errors import EdgefaceError, ExportError, is_no_memory


class _Changing:
    """Lets one thread at a time change something that exists once per process, and undoes it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._undo: list[Callable[[], None]] = []
        self._thread = 0
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self._after_fork)

    @contextlib.contextmanager
    def changed(self, change: Callable[[], Callable[[], None]]) -> Iterator[None]:
        """Call ``change``, run the block, then call the function that ``change`` returned."""
        with self._lock:
            self._thread = threading.get_ident()
            self._undo.append(change())
            try:
                yield
            finally:
                self._undo.pop()()

    def _after_fork(self) -> None:
        """In a child, which has only the forking thread, undo what another thread has changed."""
        if self._undo and self._thread == threading.get_ident():
            return
        while self._undo:
            self._undo.pop()()
        self._lock = threading.RLock()


_STREAMS, _MODULES = _Changing(), _Changing()
"""for changes of sys.stdout and sys.stderr; for changes of sys.modules"""


class Descriptor:
    """A file descriptor that ``with`` blocks redirect; blocks of several threads may overlap.

    It leads to the target of the block that began last; blocks with ``listens`` take precedence.
    When no block is left, it leads to its original target again, or is closed if it had none.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._lock = threading.Lock()
        self._blocks: list[tuple[bool, int, int]] = []
        self._first = -1
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(
                before=self._lock.acquire,
                after_in_parent=self._lock.release,
                after_in_child=self._after_fork,
            )

    @contextlib.contextmanager
    def led_to(self, target: int, listens: bool = False) -> Iterator[None]:
        """Redirect to the open descriptor ``target`` while the block runs."""
        block = (listens, threading.get_ident(), target)
        with self._lock:
            if not self._blocks:
                self._first = self._copy()
            self._blocks.append(block)
            self._lead()
        try:
            yield
        finally:
            with self._lock:
                self._blocks.remove(block)
                self._lead()

    def _copy(self) -> int:
        try:
            return os.dup(self.number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return -1  # closed

    def _lead(self) -> None:
        """Redirect to the target of the block that counts now, or restore the original target."""
        if self._blocks:
            first = [block for block in self._blocks if block[0]] or self._blocks
            os.dup2(first[-1][2], self.number)
        elif self._first < 0:
            os.close(self.number)
        else:
            os.dup2(self._first, self.number)
            os.close(self._first)

    def _after_fork(self) -> None:
        """In a child, which has only the forking thread, drop the blocks of other threads."""
        others = [block for block in self._blocks if block[1] != threading.get_ident()]
        if others:
            self._blocks = [block for block in self._blocks if block not in others]
            self._lead()
        self._lock.release()


STDOUT, STDERR = Descriptor(1), Descriptor(2)


@contextlib.contextmanager
def quiet(everything: bool = False) -> Iterator[None]:
    """Redirect file descriptor 2 to ``os.devnull`` while the block runs.

    everything: also descriptor 1, sys.stdout, sys.stderr and warnings. Output of other threads is
    lost meanwhile, so wrap no more than a load. Blocks may be nested. A process without stderr has
    none after the block either.
    """
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        for descriptor, stream in ((STDOUT, sys.stdout), (STDERR, sys.stderr))[not everything :]:
            with contextlib.suppress(OSError, AttributeError, ValueError):  # closed or absent
                stream.flush()
            stack.enter_context(descriptor.led_to(nowhere.fileno()))
        if everything:
            stack.enter_context(_STREAMS.changed(functools.partial(_print_to, nowhere)))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield


def _print_to(nowhere: TextIO) -> Callable[[], None]:
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = nowhere

    def put_back() -> None:
        sys.stdout, sys.stderr = stdout, stderr

    return put_back


@contextlib.contextmanager
def quiet_stage(stage: str, verbose: bool = False) -> Iterator[None]:
    """Run a block of converter code and hide all its output.

    A failure becomes one ExportError line that names ``stage``, or a MemoryError if it says that
    memory ran out, whatever its class. An EdgefaceError passes through. verbose: hide nothing, and
    let the converter's own error through.
    """
    try:
        with contextlib.nullcontext() if verbose else quiet(everything=True):
            yield
    except (EdgefaceError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        if verbose:
            raise
        if is_no_memory(error):
            raise MemoryError(str(error)) from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(
            f"{stage} failed: {reason} (run again with --verbose for the converter's log)"
        ) from error


@contextlib.contextmanager
def unreported(sender: str = "openvino_telemetry") -> Iterator[None]:
    """Hide the package ``sender`` from imports in the block.

    If that package is installed, OpenVINO and NNCF report over the network as soon as they are
    imported, and leave a file in the home folder. Without it they report nothing.
    """

    def hide() -> Callable[[], None]:
        present = {sender: sys.modules[sender]} if sender in sys.modules else {}
        sys.modules[sender] = None  # type: ignore[assignment]

        def put_back() -> None:
            del sys.modules[sender]
            sys.modules.update(present)

        return put_back

    with _MODULES.changed(hide):
        yield
