"""The measurements of an unfinished quantisation, on disk, so that the same command can resume.

The journal is one JSON file, rewritten atomically after every record. Its fingerprint covers
everything that the records depend on; a journal with another fingerprint, or a damaged one, is
ignored and replaced.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeface.errors import EdgefaceError, OutputError
from edgeface.files import write_text
from edgeface.schema import from_fields
from edgeface.types import Note, unnoted

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT_VERSION = 1
MAX_BYTES = 64 << 20
R = TypeVar("R", bound="DataclassInstance")


def fingerprint(**inputs: Any) -> str:
    """SHA-256 over JSON-ready values and the code of this package, equal for equal inputs in any
    process.

    The code is included because a checkout's version number does not change with it.
    """
    text = json.dumps({**inputs, "format_version": FORMAT_VERSION}, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Content:
    fingerprint: str
    records: dict[str, Any] = field(default_factory=dict)


class QuantizeJournal:
    """Records by name, for one fingerprint."""

    def __init__(self, path: Path | None, inputs: str, note: Note = unnoted) -> None:
        """``path``: the file; None for a journal in memory only. ``inputs``: the result of
        :func:`fingerprint`. ``note`` is called if a journal exists but cannot be used."""
        self._path = path
        self._content = _Content(inputs)
        if path is not None and path.exists():
            try:
                found = _read(path)
            except (OSError, ValueError, RecursionError, EdgefaceError):
                note(f"{path} is damaged: what was measured before is measured again")
                return
            if found.fingerprint == inputs:
                self._content = found
            else:
                note(
                    f"{path} is of other inputs or versions: what was measured before is measured"
                    " again"
                )

    def __len__(self) -> int:
        return len(self._content.records)

    def remember(self, name: str, kind: type[R], measure: Callable[[], R]) -> R:
        """The dataclass of type ``kind`` recorded as ``name``; without one, ``measure`` and record
        it."""
        try:
            return from_fields(kind, self._content.records[name], name)
        except (KeyError, EdgefaceError):
            value = measure()
        self._content.records[name] = dataclasses.asdict(value)
        self._write()
        return value

    def discard(self) -> None:
        """Remove the file when the work is done. Raises OutputError."""
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"cannot remove {self._path}: {error.strerror or error}"
                ) from None

    def _write(self) -> None:
        if self._path is not None:
            text = json.dumps(dataclasses.asdict(self._content), sort_keys=True, allow_nan=False)
            write_text(self._path, text + "\n")


def _read(path: Path) -> _Content:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError("too large")
    return from_fields(_Content, json.loads(path.read_bytes()), "journal")
