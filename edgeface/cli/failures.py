"""Errors of inputs that are left out: each is printed at once, all are counted at the end."""

from __future__ import annotations

from edgeface.cli.program import FAILED
from edgeface.cli.terminal import Terminal
from edgeface.errors import counted


class Failures:
    """Callback for the error of each input that is left out."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.told: dict[str, None] = {}
        """messages printed so far: each once, even if its input is read several times"""

    def __call__(self, error: object) -> None:
        text = str(error)
        if text not in self.told:
            self.told[text] = None
            self.terminal.line(f"error: {text}")

    def ended(
        self, text: str, total: int | None = None, noun: str = "photo", count: int | None = None
    ) -> int | None:
        """Print how many inputs failed, ``<count> photos <text>``, and return the exit code.

        The exit code is None if none failed. total: number of all inputs, if known; for a single
        one, nothing more is printed. count: by default one for each message.
        """
        if not self.told:
            return None
        count = len(self.told) if count is None else count
        many = counted(count, noun) if total is None else f"{count} of {total} {noun}s"
        if total != 1:
            self.terminal.line(f"error: {many} {text}")
        return FAILED
