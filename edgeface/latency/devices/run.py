"""One call of ``measure`` on a remote device: which jobs are done, failed or still waiting."""

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
    """Collects the records of the jobs as they arrive, and keeps them in a journal."""

    def __init__(
        self,
        jobs: Sequence[Job],
        protocol: Protocol,
        reference: int | None,
        progress: Progress | None,
        finished: Finished | None,
        failed: Failed | None,
    ) -> None:
        """Open the Bundles; a job whose Bundle cannot be opened fails alone."""
        self.jobs, self.protocol, self.reference = list(jobs), protocol, reference
        self._progress, self._finished, self._failed = progress, finished, failed
        self.bundles: dict[int, Bundle] = {}
        self.done: dict[int, Measurement] = {}
        self.wrong: dict[int, str] = {}
        self._journal: Journal | None = None
        for index in range(len(self.jobs)):
            self._open(index)

    def identity(self) -> list[Any]:
        """What distinguishes this run from others: the jobs and the index of the reference."""
        return [
            [
                job.name,
                content_key(self.bundles[i]) if i in self.bundles else "",
                job.threads,
                job.fast,
            ]
            for i, job in enumerate(self.jobs)
        ] + [self.reference]

    def resume(self, journal: Journal) -> None:
        """Take over the records that an earlier run left in ``journal``; add new ones to it."""
        for record in journal.read():
            self._accept(record)
        self._journal = journal

    def waiting(self) -> list[int]:
        """Indices of the jobs that are still to be measured."""
        return [i for i in range(len(self.jobs)) if i not in self.done and i not in self.wrong]

    def wanted(self) -> list[int]:
        """Indices of the jobs to send to the device: those that wait, and the reference.

        The reference is among them even if it is measured, unless it failed or no job waits.
        """
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
        """Mark a job as failed; the others go on."""
        # The reference is sent again with jobs that wait: its first result counts.
        if index in self.done or index in self.wrong:
            return
        job = str(self.jobs[index])
        self.wrong[index] = reason if reason.startswith(job) else f"{job}: {reason}"
        if self._failed:
            self._failed(index, self.wrong[index])

    def record(self, data: Any, device: str) -> None:
        """Accept a record. Raises DataError if it is malformed or not of ``device``."""
        record = Measurement.from_json(data, "the device's record")
        if record.device != device:
            raise DataError(f"the device's record is of {short(record.device)}, not of {device}")
        if self._accept(record) and self._journal:
            self._journal.add(record)

    def close(self) -> list[Measurement]:
        """The records in the order of the jobs.

        Raises DeviceError if jobs failed and the caller gave no ``failed`` to report them to.
        """
        if self._journal and not self.waiting():  # failed jobs do not wait: the run is over
            self._journal.remove()
        if self.wrong and not self._failed:
            raise DeviceError("; ".join(self.wrong.values()))
        return [self.done[i] for i in sorted(self.done)]

    def so_far(self) -> str:
        """Text for an error message: how many models were measured, and whether they are kept."""
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
        """The value of :func:`_asked` for the record that the job waits for."""
        job, manifest = self.jobs[index], self.bundles[index].manifest
        of = (job.name, manifest.files, manifest.model, manifest.target, manifest.precision)
        return (*of, job.threads, job.fast, self.protocol)

    def _accept(self, record: Measurement) -> bool:
        """Store ``record`` if a job waits for it; returns whether one does."""
        for index in self.waiting():
            if _asked(record) == self._wanted(index):
                self.done[index] = record
                if self._finished:
                    self._finished(record)
                return True
        return False


def _asked(record: Measurement) -> tuple[Any, ...]:
    """The fields of ``record`` that are known before it is measured."""
    of = (record.bundle, record.files, record.model, record.target, record.precision)
    return (*of, record.threads, record.fast, record.protocol)


def content_key(bundle: Bundle) -> str:
    """Hash of the manifest, which holds the hashes of all files."""
    return hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
