"""Inputs that go wrong while others go on: each is told at once, all are counted at the end."""

from __future__ import annotations

from edgeface.cli.program import FAILED
from edgeface.cli.terminal import Terminal
from edgeface.errors import counted


class Failures:
    """Call it with each error of an input that is left out."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.told: dict[str, None] = {}
        """each once, however often the input is looked at"""

    def __call__(self, error: object) -> None:
        text = str(error)
        if text not in self.told:
            self.told[text] = None
            self.terminal.line(f"error: {text}")

    def ended(self, text: str, total: int | None = None, noun: str = "photo") -> int | None:
        """The exit code, once it is said how many went wrong: ``<count> photos <text>``.

        total: that there are, where that is known; of one alone it is clear.
        """
        if not self.told:
            return None
        count = len(self.told)
        many = counted(count, noun) if total is None else f"{count} of {total} {noun}s"
        if total != 1:
            self.terminal.line(f"error: {many} {text}")
        return FAILED
