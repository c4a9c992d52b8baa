"""Runs a command and gives every ending its exit code: 0 all done, 2 not all of it, 130
interrupted, 128 and the number of another signal that ended it in good order.

edgeface.cli.main, python -m export, python -m benchmarks.bench, ...  --->  run()  --->  exit code
"""

from __future__ import annotations

import collections
import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

import edgeface
from edgeface.cli.output import nowhere, printable, settle
from edgeface.errors import (
    NO_MEMORY,
    EdgefaceError,
    MissingExtraError,
    OptionError,
    is_interrupt,
    is_no_memory,
)
from edgeface.interrupts import as_ctrl_c

USAGE_ERRORS: tuple[type[Any], ...] = tuple(filter(None, [typer.BadParameter.__base__]))
"""the parser's own; which package it lies in depends on Typer's version"""
INTERRUPTED = 130
SIGNALLED = 128
"""and the signal's number; 130 is that of Ctrl-C"""
FAILED = 2


class Stopped(Exception):
    """Ctrl-C, in a command that can say what is kept or what to run next; ``code`` is of the
    signal, where another one ended it."""

    def __init__(self, kept: str = "", code: int = INTERRUPTED) -> None:
        super().__init__(kept)
        self.code = code


RESERVE = 1 << 22
"""bytes that are held back, to say in that there is no more memory"""


@contextlib.contextmanager
def stoppable(kept: str) -> Iterator[None]:
    """Ctrl-C in the block ends the command with the line ``stopped: <kept>``."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(kept) from None


@contextlib.contextmanager
def stoppable_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; the exit code is 143 or 129."""
    with as_ctrl_c() as came:
        try:
            yield
        except (KeyboardInterrupt, Stopped) as stop:
            if not came:
                raise
            raise Stopped(str(stop), SIGNALLED + came[0]) from None


def new_app(**options: Any) -> typer.Typer:
    """A Typer whose errors and help are plain text."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **options
    )


def as_command(function: Callable[..., Any], summary: str, epilog: str | None = None) -> Any:
    """The parser's command of one function: options from its signature."""
    app = new_app()
    app.command(help=summary, epilog=epilog)(function)
    return typer.main.get_command(app)


def run(command: Any, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run ``command`` (a Typer, or what :func:`as_command` made) as the program ``name``; returns
    the exit code.

    arguments: default those of the process. A mistake is one line on stderr.
    """
    _open_streams()
    reserve: list[bytearray] = []
    try:
        edgeface.stop_if_asked()
        reserve.append(bytearray(RESERVE))
        _refuse_empty(sys.argv[1:] if arguments is None else arguments)
        parser = typer.main.get_command(command) if isinstance(command, typer.Typer) else command
        code = parser.main(arguments, prog_name=name, standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        edgeface.stop_if_asked()
        return int(code)
    except (KeyboardInterrupt, typer.Abort):
        return _end("stopped", "", INTERRUPTED)
    except Stopped as stop:
        return _end("stopped", str(stop), stop.code)
    except BrokenPipeError:  # what is printed without edgeface.cli.output
        sys.stdout = nowhere()
        return 0
    except USAGE_ERRORS as error:
        return _misused(error, name)
    except Exception as error:
        reserve.clear()
        return _failed(error)


def _failed(error: Exception) -> int:
    """One line for what can be said in one; a fault of ours goes on as it is."""
    if is_interrupt(error):
        return _end("stopped", "", INTERRUPTED)
    ours = isinstance(error, EdgefaceError)
    # a library that is there, but finds no memory to load in, is called missing
    if is_no_memory(error) and (not ours or isinstance(error, MissingExtraError)):
        return _end("error", NO_MEMORY, FAILED)
    if not ours and not isinstance(error, OSError):
        raise error
    return _end("error", str(error) if ours else _of_the_system(error), FAILED)


def _of_the_system(error: Exception) -> str:
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the folder that you are in was deleted: change into another one with: cd"
    return str(error)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """An empty path is the folder that one is in, which nobody means. Raises OptionError."""
    for before, text in zip(("", *arguments), arguments, strict=False):
        name = before if before.startswith("--") else "an argument"
        if not text or re.fullmatch("--[a-z-]+=", text):
            raise OptionError(
                f"{text.rstrip('=') or name} is empty: give a value, or leave it out; is a variable"
                " of the shell not set?"
            )


def _misused(error: Any, name: str) -> int:
    """The parser refused the command line; without any arguments it is help that is needed."""
    path = error.ctx.command_path if error.ctx else name
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.ctx.get_help())
        return FAILED
    return _end("error", f"{error.format_message().rstrip('.')}: see {path} --help", FAILED)


def _end(kind: str, text: str, code: int) -> int:
    if kind == "stopped":
        # Python notes a Ctrl-C that leaves code it was given as text, such as that of a named
        # tuple, and then ends by the signal whatever the code; other such code clears the note.
        collections.namedtuple("Cleared", "")
    settle()
    with contextlib.suppress(KeyboardInterrupt, OSError):  # a second Ctrl-C; a stderr that is gone
        print(f"{kind}: {printable(text)}" if text else kind, file=sys.stderr)
    return code


def _open_streams() -> None:
    """Make stdout and stderr take everything: a name that they cannot encode is escaped, and one
    that the caller closed gets a descriptor, which a file that is opened later would otherwise
    have."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, nowhere())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
