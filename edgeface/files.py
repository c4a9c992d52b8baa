"""Atomic writing of files and folders, and locks that keep a folder to one process at a time.

A file or folder that is being written has a hidden name beside its final place, and is locked for
as long as its writer runs::

    .NAME-edgeface-0123456789ab.png    a file
    .NAME-edgeface-0123456789ab        a folder
    .NAME-edgeface-old                 the old folder while it is being replaced

To replace a folder, the writer renames the old one, moves the new one into its place, and only then
deletes the old one. So one of the two exists whenever a writer is killed, and :func:`recover`
restores it. Leftovers of a killed writer are deleted by the next one that writes into the same
parent folder.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.util
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from edgeface.errors import EdgefaceError, OptionError, OutputError

LOCK = ".lock"
"""name of the lock file of a folder"""
BUSY_BYTE = 1 << 30
"""byte that Windows locks: far behind the process number, as nobody can read a locked byte"""
fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None
"""None on Windows: what is being written is not locked there, and no leftovers are deleted"""
MARK = "-edgeface-"
LEFT = re.compile(rf"\..*{MARK}[0-9a-f]{{12}}(\.\w+)?", re.DOTALL)
LEFT_S = 60.0
"""seconds before an unlocked file counts as left over: its writer may not have locked it yet"""


@contextmanager
def atomic_write(path: Path | str, free: Callable[[Path], Path] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds, remove
    it otherwise.

    Makes the parent folder. A replaced file keeps its permissions, a new one gets those of the
    umask. A link stays, and the file that it leads to is replaced. free: called with ``path`` at
    the end of the block, returns the path in the same folder to rename to instead, where nothing is
    yet. Raises OutputError, in one line, if the place cannot be written or the disk is full; an
    existing file is then untouched.
    """
    given = Path(path)
    with _as_output_error(given):
        _refuse_special(given)
        path = _without_links(given) if free is None else given
        _make_parent(path.parent)
        temporary = _hidden(path, given.suffix)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        with _as_output_error(given), _locked(descriptor):
            yield temporary
            path = path if free is None else free(path)
            if path.is_file():
                shutil.copymode(path, temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a whole text file, as UTF-8, or nothing. Raises OutputError."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Like :func:`atomic_write` for a folder: a folder already at ``path`` is replaced only on
    success."""
    given = Path(path)
    check_replaceable(given)
    path = _without_links(given)
    with _as_output_error(given):
        if path.exists() and not path.is_dir():
            raise OutputError(f"cannot write {given}: it is not a folder")
        _make_parent(path.parent)
        recover(path)
        temporary = _hidden(path, "")
        temporary.mkdir()
    try:
        with _as_output_error(given), _held(temporary):
            yield temporary
            _put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder and delete it afterwards. Raises OutputError if none can be made."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="edgeface-")
    except OSError as error:
        raise OutputError(f"cannot write a temporary folder: {error.strerror or error}") from error
    with folder as name:
        yield Path(name)


def check_replaceable(folder: Path | str) -> None:
    """Raise OutputError if ``folder`` is the current folder or a parent of it.

    A new folder cannot take the place of these."""
    try:
        current = Path.cwd()
    except OSError:  # deleted
        return
    if Path(os.path.realpath(folder)) in (current, *current.parents):
        raise OutputError(
            f"cannot write {folder}: it is replaced as a whole, and the command runs inside it:"
            " name another folder"
        )


def recover(path: Path | str) -> None:
    """Clean up after a writer that was killed while it replaced the folder ``path``.

    Deletes the old folder if the new one is in place, else moves the old one back. Raises OSError.
    """
    path = Path(path)
    aside = _aside(path)
    if not aside.is_dir():
        return
    with _held(aside):  # waits for a writer that still runs
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        elif aside.exists():
            aside.rename(path)


def check_writable(path: Path | str, option: str = "--out", folder: bool = True) -> None:
    """Raise OutputError if the result of long work could not be written to ``path`` later.

    folder: ``path`` is a folder that files are written into; otherwise a file. Leaves nothing.
    """
    inside = Path(path).absolute()
    try:
        if not folder:
            _refuse_special(inside)
            inside = _without_links(inside).parent
        inside = _refuse_file(path, inside)
        # a real attempt, because permission bits do not restrict root
        tempfile.TemporaryDirectory(prefix=".edgeface-", dir=inside).cleanup()
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}: choose another"
            f" {'folder' if folder else 'file'} with {option}"
        ) from None


def refuse_input(path: Path | str, inputs: Iterable[Path | str], option: str) -> None:
    """Raise OptionError if writing ``path`` would replace one of ``inputs``, also through links."""
    target = _identity(path)
    for given in inputs if target else ():
        if _identity(given) == target:
            raise OptionError(
                f"{option} {path} is the input {given}, which it would replace: name another"
            )


def refuse_others(folder: Path, names: Iterable[str], of: str) -> None:
    """Raise OptionError if ``folder`` has one of the files ``names``, which a new ``of`` replaces.

    of: what is about to start, such as "a training". For folders where none has begun."""
    for name in (name for name in names if (folder / name).exists()):
        raise OptionError(
            f"{folder / name} is not of {of} that can go on, and would be replaced: choose"
            " another --out folder, or move that file"
        )


def read_file(path: Path | str, error: type[EdgefaceError], what: str = "") -> bytes:
    """Content of an input file. Raises ``error``, in one line that says ``what`` the file is."""
    try:
        return read_regular(path)
    except OSError as wrong:
        named = f"{what} {path}" if what else path
        raise error(f"cannot read {named}: {wrong.strerror or wrong}") from None


def read_regular(path: Path | str) -> bytes:
    """Content of an input file. Raises OSError.

    Also raises it for a pipe or a device, without opening it: reading might never end."""
    require_regular(path)
    return Path(path).read_bytes()


def require_regular(path: Path | str) -> None:
    """Raise OSError if ``path`` is not a regular file, such as a folder, a pipe or a device."""
    try:
        mode = Path(path).stat().st_mode
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error)) from None
    if not stat.S_ISREG(mode):
        what = "a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file"
        raise OSError(errno.EINVAL, f"it is {what}")


def _refuse_file(path: Path | str, folder: Path) -> Path:
    """``folder`` or its nearest parent that exists. Raises OutputError if that is not a folder."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: {folder} is not a folder")
    return folder


def _identity(path: Path | str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _refuse_special(path: Path) -> None:
    """Raise OutputError for a folder or a device, such as /dev/null: a rename would replace it."""
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is not a regular file")


def _without_links(path: Path) -> Path:
    """``path`` without links and ``..``, which may lead through the very folder that is renamed."""
    return Path(os.path.realpath(path))


def _hidden(path: Path, suffix: str) -> Path:
    """Temporary name beside ``path``; suffix: "" for a folder, where a dot is part of the name."""
    name = path.name.removesuffix(suffix)[:40]
    return path.with_name(f".{name}{MARK}{secrets.token_hex(6)}{suffix}")


def _aside(path: Path) -> Path:
    return path.parent / f".{path.name}{MARK}old"


def _put(temporary: Path, path: Path) -> None:
    aside = _aside(path)
    with _held(path) if path.exists() else contextlib.nullcontext():
        if path.exists():
            path.rename(aside)
        try:
            temporary.rename(path)
        except OSError:
            if aside.is_dir():
                aside.rename(path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _make_parent(parent: Path) -> None:
    parent.mkdir(parents=True, exist_ok=True)
    _tidy(parent.resolve())


@functools.cache
def _tidy(parent: Path) -> None:
    """Delete what killed writers left in ``parent``.

    Once per process and folder, as a process may write many files there."""
    with contextlib.suppress(OSError):
        for path in parent.iterdir():
            if LEFT.fullmatch(path.name) and _is_left(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_left(path: Path) -> bool:
    if fcntl is None or path.is_symlink() or time.time() - path.stat().st_mtime < LEFT_S:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Lock the folder ``path`` while the block runs; waits for others that hold it."""
    if fcntl is None:  # Windows cannot open folders
        yield
        return
    with _locked(os.open(path, os.O_RDONLY)):
        yield


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    if fcntl is None:  # Windows cannot rename an open file
        os.close(descriptor)
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            _refuse_file(path, path.absolute().parent)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; makes its folder, deletes the file at last.

    The system's lock on the file counts, and ends with the process; the file contains the process
    number. On a file system without locks, nothing is locked. Raises OptionError if another process
    works on ``what``, OutputError if nothing can be written.
    """
    with _as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    try:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read(20).decode("ascii", "replace").strip()
            if not holder:  # it has only just locked the file
                raise OptionError(
                    f"{what} is in use by another process: wait for it, or choose another folder"
                ) from None
            raise OptionError(
                f"{what} is in use by process {holder}: wait for it, stop it with: kill {holder},"
                " or choose another folder"
            ) from None
        except OSError:
            pass
        if _identity(path) != _identity_of(file):  # the previous holder has just deleted the file
            with locked(path, what):
                yield
            return
        try:
            with _as_output_error(path):
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows cannot delete an open file
                path.unlink()
    finally:
        file.close()


def _identity_of(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _lock(file: BinaryIO) -> None:
    """Lock without waiting. Raises BlockingIOError or PermissionError if another process has it."""
    if fcntl is None:
        import msvcrt

        file.seek(BUSY_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
