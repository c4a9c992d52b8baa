"""Checks of results that the tests of all commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Result = tuple[int, str, str]
"""exit code, stdout, stderr"""
Command = Callable[..., Result]


def said(err: str) -> list[str]:
    """Lines on stderr, without notes and progress."""
    return [
        line
        for line in err.splitlines()
        if not line.endswith(" ...") and not line.startswith("note: ")
    ]


def failed(result: Result, *words: str) -> str:
    """Check for exit code 2, an empty stdout, and one line on stderr with these words, besides
    notes and progress; returns that line."""
    code, out, err = result
    lines = said(err)
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and out == "", (
        code,
        out,
        err,
    )
    assert all(word in lines[0] for word in words), lines[0]
    return lines[0]


class CommandInto:
    """A verb that gets ``--out`` in addition."""

    def __init__(self, command: Command, verb: str, out: Path) -> None:
        self.command, self.verb, self.out = command, verb, out

    def __call__(self, *arguments: object) -> Result:
        return self.command(self.verb, *arguments, "--out", self.out)
