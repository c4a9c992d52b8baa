"""Base class of remote devices: the files they keep, the agent they run, and the errors.

::

    here                                        on the device, below its cache folder
    --------------------------------            -----------------------------------------------
    stage.py, as the text of a command   --->   says what is there, stores what is missing
    edgeface-<hash>.pyz, Bundles         --->   edgeface-<hash>.pyz, bundles/<hash>/<name>/...
    a request                            --->   agent: measures
    records, one by one                  <---

A file is sent once: the device keeps it under a name with its hash, and checks the hash each time.
Records are kept here as they arrive (see journal.py), so that an interrupted run continues where it
stopped. The agent ends when its input does: nothing is left running on the device.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeface.backends import get_backend
from edgeface.bundle import Bundle
from edgeface.errors import DeviceError
from edgeface.latency.agent import Request
from edgeface.latency.devices.address import quoted_path
from edgeface.latency.devices.base import Finding, findings
from edgeface.latency.devices.journal import Journal
from edgeface.latency.devices.run import Run, content_key
from edgeface.latency.devices.shell import ANSWER_S, PythonError, ShellDevice
from edgeface.latency.devices.staging import Staged, agent_path, bundle_files
from edgeface.latency.examine import read_facts
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.schema import from_fields
from edgeface.types import Progress

if TYPE_CHECKING:
    from edgeface.latency.session import Failed, Finished

SLACK_S = 60.0
"""seconds of silence, on top of the protocol's limit for one model, after which a measuring device
is given up"""
SILENCE_S = 60.0
"""seconds of silence after which the agent considers us gone; many times a session's BEAT_S"""
FOREIGN = (
    "wrong ELF class",
    "Exec format error",
    "invalid ELF header",
    "cannot open shared object",
    "SIGILL",
)
"""parts of error messages about a library that was built for another machine"""


@dataclasses.dataclass(frozen=True)
class ProgressLine:
    """Progress that the agent reports."""

    what: str
    done: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.done <= self.total < 1 << 31:
            raise ValueError(f"{self.done} of {self.total}")


@dataclasses.dataclass(frozen=True)
class FailedLine:
    """A job that the agent could not measure."""

    job: int
    message: str

    def __post_init__(self) -> None:
        if self.job < 0:
            raise ValueError("job is out of range")


class RemoteDevice(ShellDevice):
    """Checks and measures through the agent, which it sends to the device."""

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

    def targets(self) -> list[str]:
        """As :class:`Device` says."""
        runtimes = self._examine(self._stage(()))["runtimes"]
        return [target for target, version in runtimes.items() if version]

    def measure(
        self,
        jobs: Sequence[Job],
        protocol: Protocol | None = None,
        reference: int | None = None,
        progress: Progress | None = None,
        finished: Finished | None = None,
        failed: Failed | None = None,
        whole: bool = False,
    ) -> list[Measurement]:
        """As :class:`Device` says.

        Unless ``whole``, records that an earlier call with equal arguments received before it was
        interrupted are not measured again; ``finished`` is called with them too.
        """
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
        if not whole:
            run.resume(Journal.find(self._journals, identity))
        if run.waiting():
            self._measure(run)
        return run.close()

    def close(self) -> None:
        """As :class:`Device` says. Nothing stays open between two commands."""

    def _measure(self, run: Run) -> None:
        wanted = run.wanted()
        keys = {i: content_key(run.bundles[i])[:16] for i in wanted}
        folders = {i: f"bundles/{key}/{run.jobs[i].name}" for i, key in keys.items()}
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
        for index in run.waiting():
            run.fail(index, f"{self.url} sent no record of it: run the same command again")

    def _heed(self, line: dict[str, Any], run: Run, wanted: Sequence[int], install: str) -> None:
        if "progress" in line:
            told = from_fields(ProgressLine, line["progress"], "progress")
            run.progress(told.what, told.done, told.total)
        elif "measurement" in line:
            run.record(line["measurement"], self.url)
        elif "failed" in line:
            failed = from_fields(FailedLine, line["failed"], "failed")
            index, message = wanted[failed.job], failed.message
            run.fail(index, message + foreign_hint(message, run.bundles[index], install))

    def _check_packages(self, run: Run, facts: dict[str, Any], install: str) -> None:
        """Fail the jobs whose runtime is missing on the device.

        Raises DeviceError if NumPy or OpenCV is missing, because then nothing at all can run.
        """
        for module, distribution in (("numpy", "numpy"), ("cv2", "opencv-python-headless")):
            if not facts["packages"][module]:
                raise DeviceError(
                    f"{self.url}: {distribution} is missing on the device: run: {install}"
                    f" {distribution} ({self.check_command} has the whole list)"
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

    def _examine(self, staged: Staged) -> dict[str, Any]:
        """Facts that edgeface/latency/examine.py collects on the device."""
        for line in self._agent(staged, Request("check", python=(staged.executable,)), ANSWER_S):
            if "check" in line:
                with self._understood():
                    return read_facts(line["check"], "its facts")
        raise DeviceError(
            f"{self.url}: the agent did not say what the device has: run the same command again"
        )

    def _install(self, staged: Staged) -> str:
        """Command that installs packages where the Python in use finds them."""
        python = self.python or f"{self.folder}/venv/bin/python"
        if staged.virtual and not (self.python or staged.executable.startswith(staged.root)):
            python = staged.executable
        # Two shells read the path: the local one comes first and would expand ~ to its own home.
        return self.advice(f"{shlex.quote(quoted_path(python))} -m pip install")

    def _typed_here(self, finding: Finding, install: str) -> Finding:
        """``finding``, with its command as typed on this machine.

        Only a finding that is ok may hold a command for the device's own shell.
        """
        if not finding.ok or not finding.fix or finding.fix.startswith(install):
            return finding
        return dataclasses.replace(finding, fix=self.advice(shlex.quote(finding.fix)))

    def _missing_venv(self, staged: Staged) -> Finding:
        """Finding that a virtual environment has to be made.

        A Linux distribution's own Python takes no packages from pip, so if packages are missing,
        this comes first.
        """
        command = self.advice(f"python3 -m venv {self.folder}/venv")
        if not staged.ensurepip:
            command = f"{self.python_advice()} && {command}"
        return Finding(False, "no virtual environment to install packages into", command)


def foreign_hint(message: str, bundle: Bundle, install: str) -> str:
    """Advice if ``message`` says that a runtime was built for another machine; otherwise empty."""
    if not any(text in message for text in FOREIGN):
        return ""
    package = get_backend(bundle.manifest.target).distributions[0]
    return (
        f": {package} was built for another processor or system: run: {install} --force-reinstall"
        f" {package}"
    )
