"""Records that a device sent before its line was cut: the same command, given again, starts with
them.

A journal is a file of JSON lines in the user's cache folder, under a name that is a hash of
everything that was asked for: device, protocol, models, reference, and the agent itself. It is
removed once all is measured, and after a day it counts no more, because the device may by then be
another in all but name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from edgeface.errors import EdgefaceError
from edgeface.latency.measurement import Measurement

KEPT_S = 24 * 3600.0


def default_folder() -> Path:
    """``~/.cache/edgeface/journals``, or below XDG_CACHE_HOME."""
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgeface" / "journals"
    )


class Journal:
    """One file. A place that cannot be written loses nothing but the comfort: then there is no
    journal."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def find(cls, folder: Path | None, identity: Any) -> Journal:
        """That of a run which is told from others by ``identity``, anything that is JSON."""
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        return cls((folder or default_folder()) / f"{name}.jsonl")

    def read(self) -> list[Measurement]:
        """What is there. A line that a crash cut short is passed over."""
        records = []
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if time.time() - self.path.stat().st_mtime > KEPT_S:
                self.remove()
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, RecursionError, EdgefaceError):
                    records.append(Measurement.from_json(json.loads(line)))
        return records

    def add(self, record: Measurement) -> None:
        """Append a record; it is on the disk when this returns."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record.to_json()) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def remove(self) -> None:
        """All is measured."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    @property
    def exists(self) -> bool:
        """Is anything kept?"""
        return self.path.is_file()
