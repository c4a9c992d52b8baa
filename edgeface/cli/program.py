"""Runs a command and gives every ending its exit code.

0: all done; 2: not everything done; 130: interrupted; 128 plus its number: another signal that
ended the command in good order.

edgeface.cli.main, python -m export, python -m benchmarks.bench, ...  --->  run()  --->  exit code
"""

from __future__ import annotations

import collections
import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

import edgeface
from edgeface.cli.output import nowhere, printable, put, settle
from edgeface.errors import (
    NO_MEMORY,
    EdgefaceError,
    MissingExtraError,
    OptionError,
    OutputError,
    is_interrupt,
    is_no_memory,
)
from edgeface.interrupts import as_ctrl_c

USAGE_ERRORS: tuple[type[Any], ...] = tuple(filter(None, [typer.BadParameter.__base__]))
"""base class of the parser's errors, which is in another package in other versions of Typer"""
INTERRUPTED = 130
SIGNALLED = 128
"""exit code of a signal, less the signal's number; with that of Ctrl-C it is 130"""
FAILED = 2


class Stopped(Exception):
    """Ctrl-C, in a command that can say what is kept or what to run next.

    code: the exit code, which differs if another signal ended the command."""

    def __init__(self, kept: str = "", code: int = INTERRUPTED) -> None:
        super().__init__(kept)
        self.code = code


RESERVE = 1 << 22
"""bytes held back, so that running out of memory can still be reported"""


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
    """The parser's command of one function, with the options of its signature."""
    app = new_app()
    app.command(help=summary, epilog=epilog)(function)
    return typer.main.get_command(app)


def run(command: Any, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run ``command`` as the program ``name`` and return the exit code.

    command: a Typer, or the result of :func:`as_command`. arguments: default those of the process.
    An error of the user is reported in one line on stderr.
    """
    _open_streams()
    reserve: list[bytearray] = []
    try:
        edgeface.stop_if_asked()
        reserve.append(bytearray(RESERVE))
        given = sys.argv[1:] if arguments is None else arguments
        _refuse_empty(given)
        parser = typer.main.get_command(command) if isinstance(command, typer.Typer) else command
        code = _parsed(parser, name, arguments, "--help" in given) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        edgeface.stop_if_asked()
        return int(code)
    except (KeyboardInterrupt, typer.Abort):
        return _end("stopped", "", INTERRUPTED)
    except Stopped as stop:
        return _end("stopped", str(stop), stop.code)
    except BrokenPipeError:  # from prints that do not use edgeface.cli.output
        sys.stdout = nowhere()
        return 0
    except USAGE_ERRORS as error:
        return _misused(error, name)
    except Exception as error:
        reserve.clear()
        return _failed(error)


def _parsed(parser: Any, name: str, arguments: Sequence[str] | None, help: bool) -> int | None:
    """Run the command that ``arguments`` ask for; returns its exit code.

    Help is printed by :func:`put` instead of by the parser, whose error would not name stdout.
    """
    caught = contextlib.redirect_stdout(io.StringIO()) if help else contextlib.nullcontext()
    with caught as text:
        code: int | None = parser.main(arguments, prog_name=name, standalone_mode=False)
    if text:
        put(text.getvalue().rstrip("\n"))
    return code


def _failed(error: Exception) -> int:
    """Report an error in one line and return the exit code; a bug of ours is raised again."""
    if is_interrupt(error):
        return _end("stopped", "", INTERRUPTED)
    ours = isinstance(error, EdgefaceError)
    # an installed library that finds no memory to load is reported as missing
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
    """Raise OptionError for an empty argument: as a path it would mean the current folder."""
    for before, text in zip(("", *arguments), arguments, strict=False):
        name = before if before.startswith("--") else "an argument"
        if not text or re.fullmatch("--[a-z-]+=", text):
            raise OptionError(
                f"{text.rstrip('=') or name} is empty: give a value, or leave it out; is a variable"
                " of the shell not set?"
            )


def _misused(error: Any, name: str) -> int:
    """Report a command line that the parser refused; without any arguments, print the help."""
    path = error.ctx.command_path if error.ctx else name
    if type(error).__name__ == "NoArgsIsHelpError":
        try:
            put(error.ctx.get_help())
        except OutputError as full:
            return _failed(full)
        return FAILED
    return _end("error", f"{error.format_message().rstrip('.')}: see {path} --help", FAILED)


def _end(kind: str, text: str, code: int) -> int:
    if kind == "stopped":
        # If a Ctrl-C interrupts code that Python runs from a string, such as that of a named tuple,
        # Python remembers it and ends by the signal, whatever the exit code. Running other such
        # code clears that.
        collections.namedtuple("Cleared", "")
    settle()
    with contextlib.suppress(KeyboardInterrupt, OSError):  # a second Ctrl-C; a stderr that is gone
        print(f"{kind}: {printable(text)}" if text else kind, file=sys.stderr)
    return code


def _open_streams() -> None:
    """Make stdout and stderr accept everything.

    Characters that they cannot encode are escaped. A stream that the caller closed is opened on
    ``os.devnull``: a file opened later would otherwise get its descriptor."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, nowhere())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
