"""What devices at the other end of a line share: the files they keep, the agent they run, and what
can go wrong.

::

    here                                        on the device, below its cache folder
    --------------------------------            -----------------------------------------------
    stage.py, as the text of a command   --->   says what is there, stores what is missing
    edgeface-<hash>.pyz, Bundles         --->   edgeface-<hash>.pyz, bundles/<hash>/<name>/...
    a request                            --->   agent: measures
    records, one by one                  <---

A file is sent once: the device keeps it under a name with its hash, and checks the hash each time.
Records are kept here as they arrive (see journal.py), so that a run that was cut off goes on where
it was. The agent ends when its input does: nothing is left running on the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shlex
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.backends import get_backend
from edgeface.bundle import MANIFEST, Bundle
from edgeface.errors import DeviceError
from edgeface.latency import zipapp
from edgeface.latency.agent import Request
from edgeface.latency.devices.address import quoted_path
from edgeface.latency.devices.base import OLDEST_PYTHON, Device, Finding, findings
from edgeface.latency.devices.journal import Journal
from edgeface.latency.devices.run import Run, content_key
from edgeface.latency.devices.session import Session
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.types import Progress

if TYPE_CHECKING:
    from edgeface.latency.session import Failed, Finished

STAGE = Path(__file__).with_name("stage.py")
ANSWER_S = 120.0
"""silence after which a device that only has to look at itself is given up"""
SLACK_S = 60.0
"""the same for one that measures, on top of the protocol's limit for one model"""
SILENCE_S = 60.0
"""silence after which the agent takes us for gone; many beats of a session fit into it"""
NOT_FOUND, NOT_RUNNABLE = 127, 126
"""exit codes of a shell"""
FOREIGN = (
    "wrong ELF class",
    "Exec format error",
    "invalid ELF header",
    "cannot open shared object",
    "SIGILL",
)
"""what is said of a library that was built for another machine"""


@dataclasses.dataclass(frozen=True)
class SentFile:
    """A file that the device must have."""

    path: str
    """below the device's cache folder"""
    content: bytes

    def to_json(self) -> dict[str, Any]:
        """As stage.py takes it."""
        return {
            "path": self.path,
            "bytes": len(self.content),
            "sha256": hashlib.sha256(self.content).hexdigest(),
        }


@dataclasses.dataclass(frozen=True)
class Staged:
    """What stage.py says of a device."""

    root: str
    """absolute path of the cache folder"""
    free_bytes: int
    executable: str
    """the Python that is used, as it was called"""
    virtual: bool
    """is it that of a virtual environment?"""
    ensurepip: bool
    """can it make a virtual environment?"""
    sent: tuple[str, ...]
    """paths of the files that were missing"""


class PythonError(DeviceError):
    """A device that was reached but has no Python to work with."""

    def __init__(self, url: str, what: str, fix: str) -> None:
        super().__init__(f"{url}: {what}: run: {fix}")
        self.what, self.fix = what, fix


class RemoteDevice(Device):
    """A device that runs shell commands for us. Subclasses say how, and what their program's
    complaints mean."""

    root: str
    """cache folder on the device, as its shell understands it"""
    folder: str
    """the same without ``~``, as a user can type it in an unquoted command"""
    package: str
    """Debian's name of what brings the local program"""
    setup: str = ""
    """shell commands before each of ours, ended by ``; ``"""

    def __init__(self, url: str, python: str | None = None, journals: Path | None = None) -> None:
        """python: path on the device; default: a virtual environment in the cache folder, or else
        python3. journals: folder here for the records of runs that are cut off."""
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

    def check(self) -> list[Finding]:
        """As :class:`Device` says. Sends the agent, and nothing else."""
        try:
            staged = self._stage(())
        except PythonError as error:
            return [Finding(False, error.what, error.fix)]
        install = self._install(staged)
        found = [
            self._typed_here(finding, install)
            for finding in findings(self._examine(staged), install)
        ]
        if not (staged.virtual or self.python) and any(
            not f.ok and f.fix and " pip " in f.fix for f in found
        ):
            found.insert(1, self._missing_venv(staged))
        return found

    def measure(
        self,
        jobs: Sequence[Job],
        protocol: Protocol | None = None,
        reference: int | None = None,
        progress: Progress | None = None,
        finished: Finished | None = None,
        failed: Failed | None = None,
    ) -> list[Measurement]:
        """As :class:`Device` says. Records that an earlier call with equal arguments brought home
        before it was cut off are not measured again; ``finished`` is called with them too."""
        if not jobs:
            raise DeviceError("nothing to measure: name at least one Bundle")
        run = Run(jobs, protocol or Protocol(), reference, progress, finished, failed)
        identity = [
            self.url,
            self.python,
            dataclasses.asdict(run.protocol),
            run.identity(),
            agent_path(),
        ]
        run.resume(Journal.find(self._journals, identity))
        if run.waiting():
            self._measure(run)
        return run.close()

    def close(self) -> None:
        """As :class:`Device` says. Nothing stays open between two commands."""

    def _measure(self, run: Run) -> None:
        wanted = run.wanted()
        folders = {i: f"bundles/{content_key(run.bundles[i])[:16]}/{run.name(i)}" for i in wanted}
        files = {
            file.path: file for i in wanted for file in bundle_files(run.bundles[i], folders[i])
        }
        staged = self._stage(tuple(files.values()), run)
        install = self._install(staged)
        self._check_packages(run, self._examine(staged), install)
        wanted = run.wanted()
        if not run.waiting():
            return
        jobs = tuple(
            dataclasses.replace(run.jobs[i], bundle=f"{staged.root}/{folders[i]}") for i in wanted
        )
        reference = wanted.index(run.reference) if run.reference in wanted else None
        request = Request(
            "measure", jobs, run.protocol, reference, self.url, (staged.executable,), SILENCE_S
        )
        for line in self._agent(staged, request, run.protocol.time_limit_s + SLACK_S, run):
            with self._understood():
                self._heed(line, run, wanted, install)

    def _heed(self, line: dict[str, Any], run: Run, wanted: Sequence[int], install: str) -> None:
        if "progress" in line:
            run.progress(**line["progress"])
        elif "measurement" in line:
            run.record(line["measurement"])
        elif "failed" in line:
            index, message = wanted[line["failed"]["job"]], line["failed"]["message"]
            run.fail(index, message + foreign_hint(message, run.bundles[index], install))

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Raises DeviceError where an answer of the device has another form than ours."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise DeviceError(
                f"{self.url}: the device answered something else than edgeface would "
                f"({type(error).__name__}): remove its cache folder {self.folder} and run the same "
                "command again"
            ) from error

    def _check_packages(self, run: Run, facts: dict[str, Any], install: str) -> None:
        """Fail the jobs that have no runtime on the device. Raises DeviceError where nothing at all
        can run."""
        for module, distribution in (("numpy", "numpy"), ("cv2", "opencv-python-headless")):
            if not facts["packages"][module]:
                raise DeviceError(
                    f"{self.url}: {distribution} is missing on the device: run: {install}"
                    f" {distribution}"
                )
        platform = f"{facts['system']} {facts['machine']}"
        for index in run.waiting():
            backend = get_backend(run.bundles[index].manifest.target)
            if facts["runtimes"][backend.target]:
                continue
            if platform in backend.platforms:
                run.fail(
                    index,
                    f"{backend.distributions[0]} is missing on the device: run: "
                    f"{install} {backend.distributions[0]}",
                )
            else:
                run.fail(
                    index,
                    f"there is no {backend.title} for {platform} (only for "
                    f"{', '.join(backend.platforms)}): measure a model of another target",
                )

    def _stage(self, files: Sequence[SentFile], run: Run | None = None) -> Staged:
        """Send what the device lacks of ``files`` and of the agent. Raises DeviceError."""
        files = (*files, SentFile(agent_path(), zipapp.pack()))
        # The path of Python is handed on to be used again: it may be a script, of which Python
        # itself knows nothing.
        command = self._command(f'-I -c {shlex.quote(STAGE.read_text(encoding="utf-8"))} "$P"')
        with self._session(command, ANSWER_S) as session:
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
        missing = [files[index] for index in line.pop("missing")]
        staged = Staged(**line, sent=tuple(file.path for file in missing))
        size = sum(len(file.content) for file in missing)
        if size > staged.free_bytes:
            raise self._disk_full(
                staged.root, f"{size:,} bytes to send, {staged.free_bytes:,} free"
            )
        for file in missing:
            session.send(file.content)
        return staged

    def _examine(self, staged: Staged) -> dict[str, Any]:
        """What edgeface/latency/examine.py sees on the device."""
        for line in self._agent(staged, Request("check", python=(staged.executable,)), ANSWER_S):
            if "check" in line:
                facts: dict[str, Any] = line["check"]
                return facts
        raise DeviceError(
            f"{self.url}: the agent did not say what the device has: run the same command again"
        )

    def _agent(
        self, staged: Staged, request: Request, silence_s: float, run: Run | None = None
    ) -> Iterator[dict[str, Any]]:
        """Lines of the agent up to its last. Raises DeviceError when it ends before."""
        command = self._command(
            f"-u {shlex.quote(f'{staged.root}/{agent_path()}')}", staged.executable
        )
        with self._session(command, silence_s) as session:
            session.send(json.dumps(request.to_json()).encode() + b"\n")
            session.keep_alive()
            for line in session.lines():
                if "error" in line:
                    raise DeviceError(f"{self.url}: {line['error']}")
                if line.get("done"):
                    return
                yield line
            raise self._failure(session, run)

    def _session(self, command: str, silence_s: float) -> Session:
        arguments = self.arguments(command)
        if shutil.which(arguments[0]) is None:
            raise DeviceError(
                f"{self.url}: {arguments[0]} is not installed here: run: sudo apt-get install "
                f"{self.package}"
            )
        return Session(arguments, silence_s)

    def _command(self, words: str, python: str | None = None) -> str:
        """A command line for any Bourne shell: Python with ``words``, in which ``$P`` is that
        Python itself."""
        python = python or self.python
        choose = (
            f"P={quoted_path(python)}"
            if python
            else f'P={self.root}/venv/bin/python; [ -x "$P" ] || P=python3'
        )
        inner = (  # exec: no shell stays between the line and Python
            f'{self.setup}{choose}; exec "$P" {words}'
        )
        return f"exec sh -c {shlex.quote(inner)}"

    def _install(self, staged: Staged) -> str:
        """The command that installs packages where the Python that is used will find them."""
        python = self.python or f"{self.folder}/venv/bin/python"
        if staged.virtual and not (self.python or staged.executable.startswith(staged.root)):
            python = staged.executable
        return self.advice(f"{quoted_path(python)} -m pip install")

    def _typed_here(self, finding: Finding, install: str) -> Finding:
        """A finding that is no fault may come with a command for the device's own shell."""
        if not finding.ok or not finding.fix or finding.fix.startswith(install):
            return finding
        return dataclasses.replace(finding, fix=self.advice(shlex.quote(finding.fix)))

    def _missing_venv(self, staged: Staged) -> Finding:
        """A distribution's own Python takes no packages from pip, so one that lacks something needs
        this first."""
        command = self.advice(f"python3 -m venv {self.folder}/venv")
        if not staged.ensurepip:
            command = f"{self.python_advice()} && {command}"
        return Finding(False, "no virtual environment to install packages into", command)

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


def agent_path() -> str:
    """Of the agent below the device's cache folder."""
    return f"edgeface-{hashlib.sha256(zipapp.pack()).hexdigest()[:16]}.pyz"


def bundle_files(bundle: Bundle, folder: str) -> list[SentFile]:
    """All files of ``bundle``, verified, as they lie below ``folder`` on a device."""
    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    contents[MANIFEST] = (bundle.path / MANIFEST).read_bytes()
    return [SentFile(f"{folder}/{name}", content) for name, content in sorted(contents.items())]


def foreign_hint(message: str, bundle: Bundle, install: str) -> str:
    """What to do about a runtime that does not load because it was built for another machine; empty
    for the rest."""
    if not any(text in message for text in FOREIGN):
        return ""
    package = get_backend(bundle.manifest.target).distributions[0]
    return (
        f": {package} was built for another processor or system: run: {install} --force-reinstall"
        f" {package}"
    )
