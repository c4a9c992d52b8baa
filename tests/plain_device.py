"""A device behind a line of which a test says alone what runs for a command."""

from __future__ import annotations

from edgeface.latency.devices.remote import RemoteDevice


class PlainDevice(RemoteDevice):
    """Gives no advice of its own."""

    root, folder, package = "~/.cache/edgeface", ".cache/edgeface", "nothing"

    def advice(self, command: str) -> str:
        return command

    def explain(self, code: int, words: list[str]) -> str | None:
        return None

    def python_advice(self) -> str:
        return "install one"
