"""The protocol that every latency figure of the project comes from.

::

    worker A  load  warm-up             slice             slice   ...
    worker B        load  warm-up              slice  slice       ...
                                  |  round 1       | round 2      |

Each model has its own process, pinned to processors chosen for it, so that models do not disturb
each other's memory, threads or settings. All models are loaded and warmed up before the first
round. In a round, each model runs one slice of images, in a newly shuffled order, so that whatever
slows the machine slows all models alike; ratios compare the same rounds. Only one process works at
a time. All raw samples are kept.

A worker that dies, hangs or cannot load its model fails alone: the other models are still measured.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeface.bundle import Bundle
from edgeface.errors import DeviceError, EdgefaceError
from edgeface.latency import cores
from edgeface.latency.environment import Machine, Moment, other_load
from edgeface.latency.measurement import (
    STAGES,
    Environment,
    Measurement,
    Relative,
    Stage,
    invalid_reasons,
    relative,
)
from edgeface.latency.protocol import LOCAL, Job, Protocol
from edgeface.latency.statistics import ratio
from edgeface.latency.worker_process import PYTHON, WorkerProcess
from edgeface.types import Progress

__all__ = ["Failed", "Finished", "Job", "Progress", "Protocol", "measure"]

STEADY = 0.05
"""the warm-up ends when the medians of two consecutive slices differ by at most this share"""

Finished = Callable[[Measurement], None]
Failed = Callable[[int, str], None]
"""(index of the job, why)"""


def measure(
    jobs: Sequence[Job],
    protocol: Protocol | None = None,
    reference: int | None = None,
    progress: Progress | None = None,
    finished: Finished | None = None,
    failed: Failed | None = None,
    device: str = LOCAL,
    python: Sequence[str] = PYTHON,
) -> list[Measurement]:
    """Time ``jobs`` on this machine; return the records in the order of the jobs.

    reference: index of the job that the others are compared with. finished: called with each record
    as soon as it is complete. failed: called for each job that could not be measured; without it,
    DeviceError is raised at the end, after all others were measured. device: name of this machine
    in the records. python: the command that starts a worker.
    """
    if not jobs:
        raise DeviceError("nothing to measure: name at least one Bundle")
    protocol = protocol or Protocol()
    done: dict[int, Measurement] = {}
    wrong: dict[int, str] = {}
    steps = _Steps(progress, protocol, len(jobs))
    for group in _groups(len(jobs), reference, protocol.together):
        session = _Session(
            [_Subject(i, jobs[i]) for i in group], protocol, reference, device, python, steps
        )
        records, errors = session.run()
        for index, message in errors.items():
            if index not in done and index not in wrong:
                wrong[index] = message
                if failed:
                    failed(index, message)
        for index, record in records.items():
            # The reference is in every group: its first result counts.
            if index not in done and index not in wrong:
                done[index] = record
                if finished:
                    finished(record)
    if wrong and not failed:
        raise DeviceError("; ".join(wrong.values()))
    return [done[i] for i in sorted(done)]


def _groups(count: int, reference: int | None, together: int) -> Iterator[list[int]]:
    """Groups of at most ``together`` job indices, each with the reference."""
    if count <= together:
        yield list(range(count))
        return
    extra = [] if reference is None else [reference]
    others = [i for i in range(count) if i != reference]
    size = together - len(extra)
    for start in range(0, len(others), size):
        yield sorted(extra + others[start : start + size])


class _Steps:
    """Progress over all groups; steps of the reference in later groups raise the total."""

    def __init__(self, progress: Progress | None, protocol: Protocol, jobs: int) -> None:
        self.progress, self.done, self.total = progress, 0, jobs * (protocol.rounds + 2)

    def __call__(self, what: str) -> None:
        self.done += 1
        self.total = max(self.total, self.done)
        if self.progress:
            self.progress(what, self.done, self.total)


@dataclass
class _Subject:
    """One job while it is measured."""

    index: int
    job: Job
    worker: WorkerProcess | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """the worker's answer to ``open``"""
    bundle: Bundle | None = None
    slices: list[dict[str, Any]] = field(default_factory=list)
    """the worker's answer to each round"""
    before: Moment | None = None
    after: Moment | None = None
    faces: int = 0
    cpu_s: float = 0.0
    """CPU time of the worker so far"""
    error: str | None = None


class _Session:
    """One group of jobs, measured together."""

    def __init__(
        self,
        subjects: list[_Subject],
        protocol: Protocol,
        reference: int | None,
        device: str,
        python: Sequence[str],
        steps: _Steps,
    ) -> None:
        self.subjects, self.protocol, self.reference = subjects, protocol, reference
        self.device, self.python, self.steps = device, python, steps
        self.other_load: float | None = None

    def run(self) -> tuple[dict[int, Measurement], dict[int, str]]:
        """Measure the group: ({index: record}, {index: error message})."""
        with contextlib.ExitStack() as stack:
            for subject in self.subjects:
                with self._alone(subject):
                    self._open(subject, stack)
                self.steps("loading")
            for subject in self._alive():
                with self._alone(subject):
                    self._warm_up(subject)
                self.steps("warming up")
            self._rounds()
            for subject in self._alive():
                with self._alone(subject):
                    subject.after = Moment(**self._slice(subject, 1)["moment"])
        return self._records(), {s.index: s.error for s in self.subjects if s.error is not None}

    def _alive(self) -> list[_Subject]:
        return [s for s in self.subjects if s.error is None]

    @contextlib.contextmanager
    def _alone(self, subject: _Subject) -> Iterator[None]:
        """Assign an error in the block to ``subject`` and end its worker; the other jobs go on."""
        try:
            yield
        except EdgefaceError as error:
            text = str(error)
            subject.error = text if text.startswith(str(subject.job)) else f"{subject.job}: {text}"
            if subject.worker:
                subject.worker.kill()

    def _open(self, subject: _Subject, stack: contextlib.ExitStack) -> None:
        job, protocol = subject.job, self.protocol
        subject.bundle = Bundle.open(job.bundle, verify=False)
        subject.worker = stack.enter_context(
            WorkerProcess(str(job), protocol.time_limit_s, self.python)
        )
        subject.facts = subject.worker.ask(
            "open",
            bundle=job.bundle,
            threads=job.threads,
            fast=job.fast,
            cores=cores.pick(job.threads),
            photo=(protocol.photo_width, protocol.photo_height),
            seed=protocol.seed,
        )

    def _slice(self, subject: _Subject, images: int) -> dict[str, Any]:
        assert subject.worker
        answer = subject.worker.ask("run", images=images)
        subject.cpu_s = answer["cpu_s"]
        return answer

    def _warm_up(self, subject: _Subject) -> None:
        last, start = 0.0, time.monotonic()
        while True:
            answer = self._slice(subject, self.protocol.per_round)
            median = float(np.median(answer["stages"]["network"]["wall_ms"]))
            if (
                abs(median - last) <= STEADY * last
                or time.monotonic() - start >= self.protocol.warm_up_s
            ):
                subject.before = Moment(**answer["moment"])
                return
            last = median

    def _rounds(self) -> None:
        random = np.random.default_rng(self.protocol.seed)
        first, own_s, start = Moment.read(), self._own_s(), time.monotonic()
        for _ in range(self.protocol.rounds):
            for pick in random.permutation(len(self.subjects)):
                subject = self.subjects[pick]
                if subject.error is None:
                    with self._alone(subject):
                        subject.slices.append(self._slice(subject, self.protocol.per_round))
                self.steps("measuring")
        self.other_load = other_load(
            first, Moment.read(), self._own_s() - own_s, time.monotonic() - start
        )

    def _own_s(self) -> float:
        """CPU time of this process and its workers so far."""
        return time.process_time() + sum(subject.cpu_s for subject in self.subjects)

    def _records(self) -> dict[int, Measurement]:
        whole = {s.index: s for s in self._alive()}
        samples = {s.index: _samples(s.slices) for s in whole.values()}
        other = None if self.reference is None else samples.get(self.reference)
        records = {}
        for index, subject in whole.items():
            against = None
            if other and self.reference is not None:
                against = self._relative(index, samples[index], whole[self.reference].job, other)
            records[index] = self._record(subject, samples[index], against)
        return records

    def _relative(
        self, index: int, own: dict[str, Stage], job: Job, other: dict[str, Stage]
    ) -> Relative:
        if index == self.reference:
            return Relative(job.name, job.threads, 1.0, 1.0, 1.0, "reference")
        found = ratio(own["network"].rounds(), other["network"].rounds(), self.protocol.seed)
        return relative(found, job.name, job.threads)

    def _record(
        self, subject: _Subject, samples: dict[str, Stage], against: Relative | None
    ) -> Measurement:
        job, facts, last = subject.job, subject.facts, subject.slices[-1]
        assert subject.bundle and subject.before and subject.after
        manifest = subject.bundle.manifest
        environment = Environment(
            Machine.read(),
            subject.before,
            tuple(Moment(**s["moment"]) for s in subject.slices),
            subject.after,
            self.other_load,
            facts["runtimes"],
            tuple(facts["cores"]),
            facts["precision_hints"],
            facts["delegates"],
        )
        reasons = invalid_reasons(self.protocol, environment, samples, job.threads)
        return Measurement(
            bundle=job.name,
            files=dict(manifest.files),
            model=manifest.model,
            device=self.device,
            target=manifest.target,
            precision=manifest.precision,
            runtime=facts["runtime"],
            threads=job.threads,
            fast=job.fast,
            width=facts["width"],
            height=facts["height"],
            network_ms=samples["network"].summary(),
            network_cpu_ms=samples["network"].summary("cpu"),
            preprocess_ms=samples["preprocess"].summary(),
            postprocess_ms=samples["postprocess"].summary(),
            end_to_end_ms=samples["end_to_end"].summary(),
            load_ms=facts["load_ms"],
            import_ms=facts["import_ms"],
            peak_memory_bytes=last["peak_memory_bytes"],
            faces=last["faces"],
            ratio=against,
            protocol=self.protocol,
            environment=environment,
            valid=not reasons,
            invalid_reasons=reasons,
            samples=samples,
        )


def _samples(slices: list[dict[str, Any]]) -> dict[str, Stage]:
    return {
        name: Stage(
            *(
                tuple(tuple(s["stages"][name][clock]) for s in slices)
                for clock in ("wall_ms", "cpu_ms")
            )
        )
        for name in STAGES
    }
