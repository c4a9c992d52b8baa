"""A device with a shell: runs commands, sends the files they need first, explains what went wrong.

Each error is a message of one line.
"""

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
"""seconds of silence after which a device that does not measure is given up"""
STAGE_LIMIT_S = 3600.0
"""seconds within which a device must take all files; the slowest connection takes minutes"""
NOT_FOUND, NOT_RUNNABLE = 127, 126
"""exit codes of a shell"""


class PythonError(DeviceError):
    """The device was reached but has no usable Python."""

    def __init__(self, url: str, what: str, fix: str) -> None:
        super().__init__(f"{url}: {what}: run: {fix}")
        self.what, self.fix = what, fix


class ShellDevice(Device):
    """A device that runs shell commands for us.

    Subclasses say how commands get there and what error messages of their local program mean.
    """

    root: str
    """cache folder on the device, as its shell understands it"""
    folder: str
    """the same without ``~``, as a user can type it in an unquoted command"""
    package: str
    """Debian package with the local program"""
    installed: tuple[str, ...] = ()
    """other folders on the device in which an installation may have made a virtual environment"""
    setup: str = ""
    """shell commands to run before each of ours; they end with ``; ``"""

    def __init__(self, url: str, python: str | None = None, journals: Path | None = None) -> None:
        """Does not connect yet.

        python: path on the device; default: a virtual environment in the cache folder or in one of
        ``installed``, or else python3. journals: folder on this machine for the records of
        interrupted runs.
        """
        self.url, self.python, self._journals = url, python, journals

    @abstractmethod
    def arguments(self, command: str) -> list[str]:
        """Local argument list that runs ``command`` in a shell of the device, streams connected."""

    @abstractmethod
    def advice(self, command: str) -> str:
        """What a user types on this machine to run ``command`` on the device."""

    @abstractmethod
    def explain(self, code: int, words: list[str]) -> str | None:
        """What is wrong with the connection; None if nothing is wrong.

        code, words: exit code and last lines of standard error of the local program.
        """

    @abstractmethod
    def python_advice(self) -> str:
        """What a user types to get a Python on the device."""

    def _stage(self, files: Sequence[SentFile], run: Run | None = None) -> Staged:
        """Send the agent and ``files``, as far as the device lacks them. Raises DeviceError."""
        files = (*files, SentFile(agent_path(), zipapp.pack()))
        # "$P" tells stage.py how Python was started: that may be a script, which Python itself
        # cannot know.
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
        """Lines of the agent, without the last one (``done``).

        Raises DeviceError if the agent reports an error, ends without ``done``, or does not end in
        time: twice the limit per job, because the reference may be measured again beside it.
        """
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
        """Command line for any Bourne shell that runs Python with ``words``.

        In ``words``, ``$P`` is the command that starts this Python.
        """
        python = python or self.python
        environments = (f"{folder}/venv/bin/python" for folder in (self.root, *self.installed))
        choose = (
            f"P={quoted_path(python)}"
            if python
            else f'for P in {" ".join(environments)} python3; do [ -x "$P" ] && break; done'
        )
        inner = (  # exec: no shell remains between the connection and Python
            f'{self.setup}{choose}; exec "$P" {words}'
        )
        return f"exec sh -c {shlex.quote(inner)}"

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Raises DeviceError if the block finds an answer of the device malformed."""
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
        """Error that tells why a command ended without its last line."""
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
