"""A remote device for tests that replace how its commands run."""

from __future__ import annotations

from edgeface.latency.devices.remote import RemoteDevice


class PlainDevice(RemoteDevice):
    """A RemoteDevice whose advice repeats each command unchanged."""

    root, folder, package = "~/.cache/edgeface", ".cache/edgeface", "nothing"

    def advice(self, command: str) -> str:
        return command

    def explain(self, code: int, words: list[str]) -> str | None:
        return None

    def python_advice(self) -> str:
        return "install one"
