"""Progress and notes of a running command, on stderr because results go to stdout.

A terminal gets a bar, or a spinner for a step of unknown length. Without a terminal, a step of
known length gets a plain line every half minute, and one of unknown length a line when it begins.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from edgeface.cli.output import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from typing_extensions import Self

EVERY_S = 30.0
"""seconds between two plain lines"""


class Terminal:
    """Notes, spinners and bars, on a copy of stderr.

    So they are seen while the converters' output to stderr is hidden."""

    def __init__(self, shown: bool = True, steps: bool = False) -> None:
        """shown: False for a process that prints nothing because another one does.

        steps: without a terminal, print a line when a step of known length begins."""
        self.stream, self.shown, self.steps = _own_stderr(), shown, steps
        self.is_terminal = _is_terminal(self.stream)
        self._console: Console | None = None
        self._bar: Progress | None = None
        self._step, self._first, self._began, self._told = "", 0, 0.0, 0.0

    def line(self, text: str) -> None:
        """Print one line that stays on the screen."""
        if not self.shown:
            return
        if self._bar:
            self._bar.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
            return
        with suppress(OSError, ValueError):  # stderr is gone: results matter more
            print(printable(text), file=self.stream, flush=True)

    def note(self, text: str) -> None:
        """Print a line that a user should know of."""
        self.line(f"note: {text}")

    @contextmanager
    def stage(self, text: str) -> Iterator[None]:
        """Show a step of unknown length while the block runs."""
        self._end()
        if self.is_terminal and self.shown:
            from rich.text import Text  # not parsed as markup: a name may contain brackets

            with self._rich().status(Text(f"{printable(text)} ...")):
                yield
        else:
            self.line(f"{text} ...")
            yield

    def tick(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` parts of the step ``what`` are done.

        A ``what`` that differs from the last one begins a new bar. total: 0 if unknown. note: short
        text shown beside the figures. See :class:`edgeface.types.Progress`.
        """
        if not self.shown:
            return
        if what != self._step:
            self._begin(what, done, total)
        if self._bar:
            self._bar.update(
                self._bar.task_ids[0], completed=done, total=total or None, note=printable(note)
            )
        elif time.monotonic() - self._told >= EVERY_S:
            self._told = time.monotonic()
            self.line(
                f"{what}: {done}{f' of {total}' if total else ''}{self._end_time(done, total)}"
                f"{f', {note}' if note else ''}"
            )
        if done >= total > 0:
            self._end()

    def _begin(self, what: str, done: int, total: int) -> None:
        self._end()
        self._step, self._first = what, done
        self._began = self._told = time.monotonic()
        if self.is_terminal:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._rich(),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )  # no redirection: what converters print must not appear above the bar
            self._bar.add_task(printable(what), total=total or None, note="")
            self._bar.start()
        elif self.steps:
            self.line(f"{what} ...")

    def _end_time(self, done: int, total: int) -> str:
        """Text with the time at which the step will end at its present pace; empty if unknown."""
        if not self._first < done < total:
            return ""
        left_s = (time.monotonic() - self._began) * (total - done) / (done - self._first)
        ends = time.localtime(time.time() + left_s)
        return (
            f", until about {time.strftime('%H:%M' if left_s < 43_200 else '%Y-%m-%d %H:%M', ends)}"
        )

    def _rich(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self.stream, force_terminal=True)
        return self._console

    def _end(self) -> None:
        self._step = ""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._end()


def _is_terminal(stream: TextIO) -> bool:
    """Is ``stream`` a terminal? As in rich, TTY_COMPATIBLE overrules what the stream says."""
    wish = os.environ.get("TTY_COMPATIBLE")
    return stream.isatty() if wish not in ("0", "1") else wish == "1"


def _own_stderr() -> TextIO:
    try:
        return os.fdopen(
            os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="backslashreplace"
        )
    except (OSError, io.UnsupportedOperation):
        return sys.stderr
