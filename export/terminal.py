"""What ``python -m export`` and ``python -m quantize`` say while they work: on stderr, results go to stdout.

A terminal gets a spinner or a bar; a file or a pipe gets one line per step.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from typing_extensions import Self


class Terminal:
    """Notes, spinners and bars on a stderr of its own, so that they are seen while that of the converters is not."""

    def __init__(self) -> None:
        self.console = Console(file=_own_stderr())
        self._bar: Progress | None = None
        self._step = ""

    def line(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line that a user should know of."""
        self.line(f"note: {text}")

    @contextmanager
    def stage(self, text: str) -> Iterator[None]:
        """A step of unknown length lasts as long as the block."""
        self._end()
        if self.console.is_terminal:
            with self.console.status(f"{text} ..."):
                yield
        else:
            self.line(f"{text} ...")
            yield

    def tick(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` parts of the step ``what`` are done; another ``what`` than before begins a new bar."""
        if what != self._step:
            self._end()
            self._step = what
            if self.console.is_terminal:
                self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                                     TimeRemainingColumn(), console=self.console, transient=True,
                                     redirect_stdout=False, redirect_stderr=False)  # what converters print stays away
                self._bar.add_task(what, total=total)
                self._bar.start()
            else:
                self.line(f"{what} ...")
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        if done >= total:
            self._end()

    def _end(self) -> None:
        self._step = ""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()


def _own_stderr() -> TextIO:
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace")
    except (OSError, io.UnsupportedOperation):
        return sys.stderr
