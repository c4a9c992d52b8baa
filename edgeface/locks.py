"""One process at a time works in a run folder; whatever happens to it, its lock ends with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgeface.errors import OptionError, OutputError

LOCK = ".lock"
"""name of the lock of a folder"""
BUSY_BYTE = 1 << 30
"""Windows locks bytes, which nobody can then read: one far behind the number of the process"""


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; its folder is made.

    The file stays: what counts is who holds it, which ends with the process, and its text is the
    number of the last one. A file system without locks goes without. Raises OptionError where
    another process works on ``what``, OutputError where nothing can be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    with file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read(20).decode("ascii", "replace").strip() or "unknown"
            raise OptionError(
                f"{what} is in use by process {holder}: wait for it, stop it with: kill {holder},"
                " or choose another folder"
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        yield


def _lock(file: BinaryIO) -> None:
    """Raises BlockingIOError or PermissionError where another one has it."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        file.seek(BUSY_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
