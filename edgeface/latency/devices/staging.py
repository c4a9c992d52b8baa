"""What is sent to a device before it measures: the agent and the files of Bundles."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from edgeface.bundle import MANIFEST, Bundle
from edgeface.latency import zipapp

STAGE = Path(__file__).with_name("stage.py")
"""the program that receives the files on the device"""


@dataclasses.dataclass(frozen=True)
class SentFile:
    """A file that the device must have."""

    path: str
    """below the device's cache folder"""
    content: bytes

    def to_json(self) -> dict[str, Any]:
        """Entry in the request that stage.py reads."""
        return {
            "path": self.path,
            "bytes": len(self.content),
            "sha256": hashlib.sha256(self.content).hexdigest(),
        }


@dataclasses.dataclass(frozen=True)
class Staged:
    """What stage.py reports about a device."""

    root: str
    """absolute path of the cache folder"""
    free_bytes: int
    executable: str
    """the Python in use, by the path it was started with"""
    virtual: bool
    """is it in a virtual environment?"""
    ensurepip: bool
    """can it make a virtual environment?"""
    sent: tuple[str, ...]
    """paths of the files that were missing"""

    def __post_init__(self) -> None:
        if not (self.root.startswith("/") and self.root.isprintable()):
            raise ValueError("root must be an absolute path")
        if not (self.executable and self.executable.isprintable()) or self.executable[0] == "-":
            raise ValueError("executable must be a path")
        if not 0 <= self.free_bytes < 1 << 62:
            raise ValueError("free_bytes is out of range")


def agent_path() -> str:
    """Path of the agent below the device's cache folder."""
    return f"edgeface-{hashlib.sha256(zipapp.pack()).hexdigest()[:16]}.pyz"


def bundle_files(bundle: Bundle, folder: str) -> list[SentFile]:
    """All files of ``bundle``, verified, as they lie below ``folder`` on a device."""
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    contents[MANIFEST] = (bundle.path / MANIFEST).read_bytes()
    return [SentFile(f"{folder}/{name}", content) for name, content in sorted(contents.items())]
