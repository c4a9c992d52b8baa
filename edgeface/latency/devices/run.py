"""One call of ``measure`` on a remote device: which jobs are done, which failed, which still
wait."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeface.bundle import MANIFEST, Bundle
from edgeface.errors import DataError, DeviceError, EdgefaceError
from edgeface.latency.devices.journal import Journal
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.schema import short
from edgeface.types import Progress

if TYPE_CHECKING:
    from edgeface.latency.session import Failed, Finished


class Run:
    """Keeps the records as they come, in the order of the jobs, and in a journal."""

    def __init__(
        self,
        jobs: Sequence[Job],
        protocol: Protocol,
        reference: int | None,
        progress: Progress | None,
        finished: Finished | None,
        failed: Failed | None,
    ) -> None:
        """A job whose Bundle cannot be opened fails here, alone."""
        self.jobs, self.protocol, self.reference = list(jobs), protocol, reference
        self._progress, self._finished, self._failed = progress, finished, failed
        self.bundles: dict[int, Bundle] = {}
        self.done: dict[int, Measurement] = {}
        self.wrong: dict[int, str] = {}
        self._journal: Journal | None = None
        for index in range(len(self.jobs)):
            self._open(index)

    def identity(self) -> list[Any]:
        """What tells this run from another: the jobs and what they are compared with."""
        return [
            [
                self.name(i),
                content_key(self.bundles[i]) if i in self.bundles else "",
                job.threads,
                job.fast,
            ]
            for i, job in enumerate(self.jobs)
        ] + [self.reference]

    def resume(self, journal: Journal) -> None:
        """Take over what an earlier run left in ``journal``, and keep what comes in it."""
        for record in journal.read():
            self._accept(record)
        self._journal = journal

    def name(self, index: int) -> str:
        """Of the Bundle's folder, as the records have it."""
        name = self.jobs[index].name
        return name if name.strip(".") else self.bundles[index].path.resolve().name

    def waiting(self) -> list[int]:
        """Indices of the jobs that are still to be measured."""
        return [i for i in range(len(self.jobs)) if i not in self.done and i not in self.wrong]

    def wanted(self) -> list[int]:
        """Indices of the jobs to ask for: those that wait, and the reference beside them, measured
        or not."""
        waiting = self.waiting()
        again = (
            []
            if self.reference is None or not waiting or self.reference in self.wrong
            else [self.reference]
        )
        return sorted({*waiting, *again})

    def progress(self, what: str, done: int, total: int) -> None:
        """Tell the caller."""
        if self._progress:
            self._progress(what, done, total)

    def fail(self, index: int, reason: str) -> None:
        """A job that cannot be measured; the others go on."""
        if (
            index in self.done or index in self.wrong
        ):  # the reference is asked for again beside those that wait
            return
        job = str(self.jobs[index])
        self.wrong[index] = reason if reason.startswith(job) else f"{job}: {reason}"
        if self._failed:
            self._failed(index, self.wrong[index])

    def record(self, data: Any, device: str) -> None:
        """A record that ``device`` sent. Raises DataError for what is none, or of another one."""
        record = Measurement.from_json(data, "the device's record")
        if record.device != device:
            raise DataError(f"the device's record is of {short(record.device)}, not of {device}")
        if self._accept(record) and self._journal:
            self._journal.add(record)

    def close(self) -> list[Measurement]:
        """The records in the order of the jobs. Raises DeviceError for jobs that failed, unless
        someone was told."""
        if self._journal and not self.waiting():  # also of a model that failed: the run is over
            self._journal.remove()
        if self.wrong and not self._failed:
            raise DeviceError("; ".join(self.wrong.values()))
        return [self.done[i] for i in sorted(self.done)]

    def so_far(self) -> str:
        """For an error: what is not lost."""
        kept = f"{len(self.done)} of {len(self.jobs)} models were measured"
        if self.done and self._journal and self._journal.exists:
            return f"{kept} and are kept for a day: the same command goes on from there"
        return f"{kept}: run the same command again"

    def _open(self, index: int) -> None:
        try:
            self.bundles[index] = Bundle.open(self.jobs[index].bundle)
        except EdgefaceError as error:
            self.fail(index, str(error))

    def _wanted(self, index: int) -> tuple[Any, ...]:
        """:func:`_asked` of the record that the job is waiting for."""
        job, manifest = self.jobs[index], self.bundles[index].manifest
        of = (self.name(index), manifest.files, manifest.model, manifest.target, manifest.precision)
        return (*of, job.threads, job.fast, self.protocol)

    def _accept(self, record: Measurement) -> bool:
        """Is it one that was asked for and not there yet?"""
        for index in self.waiting():
            if _asked(record) == self._wanted(index):
                self.done[index] = record
                if self._finished:
                    self._finished(record)
                return True
        return False


def _asked(record: Measurement) -> tuple[Any, ...]:
    """What was known of ``record`` before it was measured."""
    of = (record.bundle, record.files, record.model, record.target, record.precision)
    return (*of, record.threads, record.fast, record.protocol)


def content_key(bundle: Bundle) -> str:
    """Hash of the manifest, which holds those of all files."""
    return hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
