"""A device's shell: commands run there, the files that they need are there first, and what can go
wrong with either is told in one line."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeface.errors import DeviceError, ModelError
from edgeface.latency import zipapp
from edgeface.latency.agent import Request
from edgeface.latency.devices.address import quoted_path
from edgeface.latency.devices.base import OLDEST_PYTHON, Device
from edgeface.latency.devices.run import Run
from edgeface.latency.devices.session import Session
from edgeface.latency.devices.staging import STAGE, SentFile, Staged, agent_path
from edgeface.schema import from_fields

ANSWER_S = 120.0
"""silence after which a device that only has to look at itself is given up"""
STAGE_LIMIT_S = 3600.0
"""within which a device has taken all files; the slowest line takes minutes"""
NOT_FOUND, NOT_RUNNABLE = 127, 126
"""exit codes of a shell"""


class PythonError(DeviceError):
    """A device that was reached but has no Python to work with."""

    def __init__(self, url: str, what: str, fix: str) -> None:
        super().__init__(f"{url}: {what}: run: {fix}")
        self.what, self.fix = what, fix


class ShellDevice(Device):
    """A device that runs shell commands for us. Subclasses say how, and what their program's
    complaints mean."""

    root: str
    """cache folder on the device, as its shell understands it"""
    folder: str
    """the same without ``~``, as a user can type it in an unquoted command"""
    package: str
    """Debian's name of what brings the local program"""
    installed: tuple[str, ...] = ()
    """other folders on the device in which an installation made its virtual environment"""
    setup: str = ""
    """shell commands before each of ours, ended by ``; ``"""

    def __init__(self, url: str, python: str | None = None, journals: Path | None = None) -> None:
        """python: path on the device; default: a virtual environment in the cache folder or in one
        of ``installed``, or else python3. journals: folder here for the records of runs that are
        cut off."""
        self.url, self.python, self._journals = url, python, journals

    @abstractmethod
    def arguments(self, command: str) -> list[str]:
        """Local argument list that runs ``command`` in a shell of the device, with its streams
        connected to ours."""

    @abstractmethod
    def advice(self, command: str) -> str:
        """What a user types here to run ``command`` there."""

    @abstractmethod
    def explain(self, code: int, words: list[str]) -> str | None:
        """What is wrong with the line, by exit code and last words of the local program; None: the
        line is good."""

    @abstractmethod
    def python_advice(self) -> str:
        """What a user types to get a Python there."""

    def _stage(self, files: Sequence[SentFile], run: Run | None = None) -> Staged:
        """Send what the device lacks of ``files`` and of the agent. Raises DeviceError."""
        files = (*files, SentFile(agent_path(), zipapp.pack()))
        # The path of Python is handed on to be used again: it may be a script, of which Python
        # itself knows nothing.
        command = self._command(f'-I -c {shlex.quote(STAGE.read_text(encoding="utf-8"))} "$P"')
        with self._session(command, ANSWER_S, STAGE_LIMIT_S) as session:
            request = {"root": self.root, "files": [file.to_json() for file in files]}
            session.send(json.dumps(request).encode() + b"\n")
            staged: Staged | None = None
            for line in session.lines():
                kind = line.pop("stage", None)
                if kind == "here":
                    with self._understood():
                        staged = self._send(session, line, files)
                elif kind == "stored" and run:
                    with self._understood():
                        run.progress(f"sent {files[line['index']].path}", 0, len(run.jobs))
                elif kind == "error":
                    raise self._stage_error(line)
                elif kind == "end" and staged:
                    return staged
            raise self._failure(session)

    def _send(self, session: Session, line: dict[str, Any], files: Sequence[SentFile]) -> Staged:
        wanted = line.pop("missing")
        if len({*wanted}) < len(wanted) or any(type(i) is not int or i < 0 for i in wanted):
            raise ValueError("missing must be indices, each once")
        missing = [files[index] for index in wanted]
        sent = [file.path for file in missing]
        staged = from_fields(Staged, {**line, "sent": sent}, "its answer")
        size = sum(len(file.content) for file in missing)
        if size > staged.free_bytes:
            raise self._disk_full(
                staged.root, f"{size:,} bytes to send, {staged.free_bytes:,} free"
            )
        for file in missing:
            session.send(file.content)
        return staged

    def _agent(
        self, staged: Staged, request: Request, silence_s: float, run: Run | None = None
    ) -> Iterator[dict[str, Any]]:
        """Lines of the agent up to its last. Raises DeviceError when it ends before, and when it
        does not end: each job has its time twice, for the reference may come again beside it."""
        command = self._command(
            f"-u {shlex.quote(f'{staged.root}/{agent_path()}')}", staged.executable
        )
        limit_s = silence_s + 2 * len(request.jobs) * request.protocol.time_limit_s
        with self._session(command, silence_s, limit_s) as session:
            session.send(json.dumps(request.to_json()).encode() + b"\n")
            session.keep_alive()
            for line in session.lines():
                if "error" in line:
                    raise DeviceError(f"{self.url}: {line['error']}")
                if line.get("done"):
                    return
                yield line
            raise self._failure(session, run)

    def _session(self, command: str, silence_s: float, limit_s: float) -> Session:
        arguments = self.arguments(command)
        if shutil.which(arguments[0]) is None:
            raise DeviceError(
                f"{self.url}: {arguments[0]} is not installed here: run: sudo apt-get install "
                f"{self.package}"
            )
        return Session(arguments, silence_s, limit_s)

    def _command(self, words: str, python: str | None = None) -> str:
        """A command line for any Bourne shell: Python with ``words``, in which ``$P`` is that
        Python itself."""
        python = python or self.python
        environments = (f"{folder}/venv/bin/python" for folder in (self.root, *self.installed))
        choose = (
            f"P={quoted_path(python)}"
            if python
            else f'for P in {" ".join(environments)} python3; do [ -x "$P" ] && break; done'
        )
        inner = (  # exec: no shell stays between the line and Python
            f'{self.setup}{choose}; exec "$P" {words}'
        )
        return f"exec sh -c {shlex.quote(inner)}"

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Raises DeviceError where an answer of the device has another form than ours."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, ModelError) as error:
            why = str(error) if isinstance(error, ModelError) else type(error).__name__
            raise DeviceError(
                f"{self.url}: the device answered something else than edgeface would ({why}):"
                f" remove its cache folder {self.folder} and run the same command again"
            ) from error

    def _stage_error(self, line: dict[str, Any]) -> DeviceError:
        kind, text, path = line.get("kind"), line.get("text"), line.get("path")
        if kind == "python":
            oldest = ".".join(map(str, OLDEST_PYTHON))
            return PythonError(
                self.url,
                f"Python {text} is too old, {oldest} is the oldest that will do",
                self.python_advice(),
            )
        if kind == "disk full":
            return self._disk_full(str(path), str(text))
        if kind == "damaged":
            return DeviceError(
                f"{self.url}: {path} was not stored: {text}: run the same command again"
            )
        return DeviceError(f"{self.url}: cannot write {path} on the device: {text}")

    def _disk_full(self, path: str, text: str) -> DeviceError:
        return DeviceError(
            f"{self.url}: the device's disk is full ({path}: {text}): free some space, for example"
            f" by: {self.advice(f'rm -r {self.folder}/bundles')}"
        )

    def _failure(self, session: Session, run: Run | None = None) -> DeviceError:
        """Why a command ended without its last line."""
        code = session.close()
        words = session.last_words()
        known = self.explain(code, words)
        then = run.so_far() if run else "run the same command again"
        if session.endless:
            return DeviceError(
                f"{self.url}: the device sends {session.endless}, and does not end: remove its"
                f" cache folder {self.folder}; {then}"
            )
        if session.silent:
            return DeviceError(
                f"{self.url}: nothing was heard for too long: the device hangs or is gone; {then}"
            )
        if known:
            what = f"the connection was lost ({known}); {then}" if session.heard else known
            return DeviceError(f"{self.url}: {what}")
        if not session.heard and code in (NOT_FOUND, NOT_RUNNABLE):
            return self._no_python(words)
        last = f": {words[-1]}" if words else ""
        return DeviceError(
            f"{self.url}: what ran on the device ended early, with exit code {code}{last}; {then}"
        )

    def _no_python(self, words: list[str]) -> DeviceError:
        reason = f" ({words[-1]})" if words else ""
        if self.python:
            return DeviceError(
                f"{self.url}: {self.python} is no Python that the device can run{reason}: name"
                " another one with ?python=PATH at the end of the URL, or leave that out"
            )
        return PythonError(self.url, f"no Python on the device{reason}", self.python_advice())
