"""Program that a device runs to report which files it has and to receive the missing ones.

Its text is sent as ``python3 -c``, before anything else is on the device. It needs only the
standard library, and runs on Python 3.7 far enough to say that 3.10 is needed. Its argument is the
command that Python was started with. Standard input is one line of JSON, then the bytes of the
missing files, in the order of ``missing``::

    {"root": "~/.cache/edgeface", "files": [{"path": "a/b.bin", "bytes": 9, "sha256": ...}]}

Standard output, one line each::

    {"stage": "here", "root": ..., "missing": [0], ...}     missing: indices into files
    {"stage": "stored", "index": 0}                         hash checked on the disk, renamed
    {"stage": "error", "kind": "disk full", "text": ...}    the last line, instead of end
    {"stage": "end"}
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from importlib import util
from pathlib import Path
from typing import Any, BinaryIO

CHUNK = 1 << 16
STALE_S = 3600
FULL = (errno.ENOSPC, errno.EDQUOT)


def tell(stage: str, **fields: Any) -> None:
    """Write one line of JSON to standard output."""
    sys.stdout.write(json.dumps({"stage": stage, **fields}) + "\n")
    sys.stdout.flush()


def digest(path: Path) -> str:
    """SHA-256 of a file on the disk; empty if it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for part in iter(lambda: file.read(CHUNK), b""):
                found.update(part)
    except OSError:
        return ""
    return found.hexdigest()


def tidy(folder: Path) -> None:
    """Remove partial files of transfers that were interrupted more than STALE_S ago."""
    for path in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def store(source: BinaryIO, path: Path, entry: dict[str, Any]) -> str:
    """Write a file under a temporary name, verify, rename it; returns an error or an empty text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path.parent)
    aside, left = path.with_name(f"{path.name}.{os.getpid()}.part"), entry["bytes"]
    try:
        with aside.open("wb") as file:
            while left:
                part = source.read(min(left, CHUNK))
                if not part:
                    return "the connection ended"
                file.write(part)
                left -= len(part)
            file.flush()
            os.fsync(file.fileno())
        if digest(aside) != entry["sha256"]:
            return "it arrived damaged"
        aside.replace(path)
        return ""
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def serve(source: BinaryIO) -> None:
    """Carry out one request. Raises OSError if a file cannot be written."""
    request = json.loads(source.readline())
    root = Path(request["root"]).expanduser()
    files = [(root / entry["path"], entry) for entry in request["files"]]
    root.mkdir(parents=True, exist_ok=True)
    missing = [i for i, (path, entry) in enumerate(files) if digest(path) != entry["sha256"]]
    tell(
        "here",
        root=str(root),
        missing=missing,
        free_bytes=shutil.disk_usage(root).free,
        executable=shutil.which(sys.argv[1]) or sys.executable,
        virtual=sys.prefix != sys.base_prefix,
        ensurepip=bool(util.find_spec("ensurepip")),
    )
    for i in missing:
        wrong = store(source, *files[i])
        if wrong:
            tell("error", kind="damaged", text=wrong, path=str(files[i][0]))
            return
        tell("stored", index=i)
    tell("end")


def main() -> None:
    """Serve standard input."""
    if sys.version_info < (3, 10):  # noqa: UP036  (any Python may run this text)
        tell("error", kind="python", text=platform.python_version())
        return
    try:
        serve(sys.stdin.buffer)
    except OSError as error:
        kind = "disk full" if error.errno in FULL else "cannot write"
        tell("error", kind=kind, text=error.strerror or str(error), path=str(error.filename or ""))


if __name__ == "__main__":
    main()
