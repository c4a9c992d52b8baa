"""How work that takes long says how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called often; drives a bar or a line in a log."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` parts of ``what`` are done; note: what there is to say at the moment."""


def unseen(what: str, done: int, total: int, note: str = "") -> None:
    """Progress that nobody watches."""
