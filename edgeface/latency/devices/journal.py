"""Keeps records that a device sent before the connection was cut.

The same command, run again, continues from them. A journal is a file of JSON lines in the user's
cache folder. Its name is a hash of everything that was asked for: device, protocol, models,
reference, and the agent itself. It is removed once all models are measured. After a day it is
ignored, because by then the device may have the same name but be another one in fact.
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
    """One journal file. If it cannot be written, that is no error: there is no journal then."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def find(cls, folder: Path | None, identity: Any) -> Journal:
        """The journal of the run with this ``identity``, any JSON value."""
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        return cls((folder or default_folder()) / f"{name}.jsonl")

    def read(self) -> list[Measurement]:
        """The records kept, none if older than a day. A line that a crash cut short is skipped."""
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
        """Delete the file."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    @property
    def exists(self) -> bool:
        """Is there a journal file?"""
        return self.path.is_file()
