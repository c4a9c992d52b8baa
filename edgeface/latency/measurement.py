"""Measurement: the latency of one model on one device, its circumstances and its validity."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeface.errors import DataError, EdgefaceError, counted
from edgeface.files import read_regular, write_text
from edgeface.latency.environment import Machine, Moment
from edgeface.latency.protocol import Protocol
from edgeface.latency.statistics import Ratio, Summary, relative_interval
from edgeface.schema import from_fields, short
from edgeface.types import Doubles

FORMAT_VERSION = 1
STAGES = ("preprocess", "network", "postprocess", "end_to_end")
"""in this order: photo to network input; input array to output arrays; decoding and NMS; all three,
as in ``Detector.detect``"""

MIN_ROUNDS = 5
MIN_SAMPLES = 100
MAX_INTERVAL = 0.10
"""width of the 95 % interval of the median network time, as a share of that median"""
MAX_FREQUENCY_SPREAD = 0.10
MAX_RECORD_BYTES = 512 << 20


@dataclass(frozen=True)
class Stage:
    """Raw samples of one stage: one list per round, in the order taken, none dropped."""

    wall_ms: tuple[tuple[float, ...], ...]
    cpu_ms: tuple[tuple[float, ...], ...]
    """CPU time of the process, all threads together"""

    def __post_init__(self) -> None:
        every = [sample for rounds in (self.wall_ms, self.cpu_ms) for r in rounds for sample in r]
        if not all(0 <= sample < math.inf for sample in every):
            raise ValueError("samples must be times from 0 ms on")
        if not self.wall_ms or not all(r and float(np.median(r)) > 0 for r in self.wall_ms):
            raise ValueError("samples must have rounds, each with a median time above 0 ms")
        if [len(r) for r in self.cpu_ms] != [len(r) for r in self.wall_ms]:
            raise ValueError("samples must be of as much wall time as CPU time")

    def rounds(self, clock: str = "wall") -> list[Doubles]:
        """Samples of ``clock``, ``wall`` or ``cpu``, in ms: one array per round."""
        return [
            np.array(samples, np.float64)
            for samples in (self.wall_ms if clock == "wall" else self.cpu_ms)
        ]

    def summary(self, clock: str = "wall") -> Summary:
        """Summary of all samples of ``clock``, rounded as in a record."""
        return Summary(**Summary.of(np.concatenate(self.rounds(clock))).to_json())


@dataclass(frozen=True)
class Relative:
    """Median network time divided by that of the reference, measured in the same rounds."""

    to: str
    """name of the reference's Bundle"""
    threads: int
    """threads of the reference"""
    value: float
    low: float
    high: float
    """bounds of the 95 % bootstrap interval"""
    verdict: str
    """``faster``, ``slower``, ``tie``, or ``reference`` if this is the reference itself"""

    def __str__(self) -> str:
        if self.verdict == "reference":
            return "reference"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}) {self.verdict}"


@dataclass(frozen=True)
class Environment:
    """Machine and circumstances of a measurement.

    The worker reads each Moment, on its own cores, right after it computed: the clock of an idle
    core says nothing.
    """

    machine: Machine
    before: Moment
    """after the warm-up"""
    during: tuple[Moment, ...]
    """after each slice"""
    after: Moment
    """after the last round"""
    other_load: float | None
    """cores that other processes kept busy while the rounds ran; None if the system does not show
    it"""
    runtimes: dict[str, str]
    """pip name -> version of the runtime, NumPy and OpenCV on the device"""
    cores: tuple[int, ...]
    """processors that the worker was pinned to; empty if it could not be pinned"""
    precision_hints: dict[str, Any]
    """runtime settings that decide the precision it computes in"""
    delegates: dict[str, Any] | None = None
    """which engine ran how many operators; None if the runtime does not say"""


@dataclass(frozen=True)
class Measurement:
    """Record of one model on one device. Times are in ms."""

    bundle: str
    """name of the Bundle's folder, or the label of its Job"""
    files: dict[str, str]
    """model file -> SHA-256"""
    model: str
    device: str
    """``local``, ``ssh://...`` or ``adb://...``"""
    target: str
    precision: str
    runtime: str
    """package and version"""
    threads: int
    fast: bool
    width: int
    """px, of the network input"""
    height: int
    network_ms: Summary
    """wall time, like all summaries without ``cpu`` in their name"""
    network_cpu_ms: Summary
    preprocess_ms: Summary
    postprocess_ms: Summary
    end_to_end_ms: Summary
    load_ms: float
    """time to open the Bundle: hashing, parsing, compilation by the runtime"""
    import_ms: float
    """time to import NumPy, OpenCV and the runtime"""
    peak_memory_bytes: int | None
    """of the whole worker: Python, libraries, photo and model"""
    faces: int
    """number of faces found in the photo"""
    ratio: Relative | None
    """None: no reference was named, or it failed"""
    protocol: Protocol
    environment: Environment
    valid: bool
    invalid_reasons: tuple[str, ...]
    samples: dict[str, Stage] = field(default_factory=dict)
    """stage -> raw samples; empty in a record that was printed without them"""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.valid != (not self.invalid_reasons):
            raise ValueError("a record is valid exactly when it has no invalid_reasons")
        if self.samples and set(self.samples) != set(STAGES):
            raise ValueError(f"samples must be of {', '.join(STAGES)}")

    @property
    def key(self) -> tuple[str, str, int, bool]:
        """(bundle, device, threads, fast), which two records to be compared have in common."""
        return (self.bundle, self.device, self.threads, self.fast)

    def figure(self, stage: str = "network") -> str:
        """``12.34 ms [13.10]``: median and p90 of ``stage``; if invalid, the reasons follow."""
        summary: Summary = getattr(self, f"{stage}_ms")
        text = f"{summary.median:.2f} ms [{summary.p90:.2f}]"
        return text if self.valid else f"{text} (invalid: {'; '.join(self.invalid_reasons)})"

    def to_json(self, samples: bool = True) -> dict[str, Any]:
        """All fields, the raw samples only if asked for; :meth:`from_json` restores the record."""
        data = {"format_version": self.format_version, **dataclasses.asdict(self)}
        if not samples:
            del data["samples"]
        return data

    @classmethod
    def from_json(cls, data: Any, where: str = "measurement") -> Measurement:
        """Read :meth:`to_json` output. Raises DataError on anything missing, unknown, ill-typed or
        contradictory."""
        version = (
            data.get("format_version", FORMAT_VERSION) if isinstance(data, dict) else FORMAT_VERSION
        )
        if version != FORMAT_VERSION:
            raise DataError(
                f"{where}: format_version {short(version)} is not one this edgeface reads "
                f"({FORMAT_VERSION}): measure again, or install a newer edgeface"
            )
        try:
            return from_fields(cls, data, where)
        except EdgefaceError as error:  # that of an option out of range does not name the record
            text = str(error)
            raise DataError(text if text.startswith(where) else f"{where}: {text}") from None


def save_measurements(path: Path | str, records: Iterable[Measurement]) -> None:
    """Write the records with their samples as a JSON list, atomically. Raises OutputError."""
    write_text(path, json.dumps([record.to_json() for record in records]) + "\n")


def load_measurements(path: Path | str) -> list[Measurement]:
    """Read :func:`save_measurements` output. Raises DataError."""
    path = Path(path)
    command = f"edgeface bench BUNDLE --save {shlex.quote(str(path))}"
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_RECORD_BYTES >> 20} MiB: not a file of measurements"
            )
        data = json.loads(read_regular(path).decode("utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; write it with: {command}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {short(str(error))}") from None
    if not isinstance(data, list):
        raise DataError(
            f"{path}: expected a list of measurements, got {short(data)}; write one with: {command}"
        )
    return [Measurement.from_json(item, f"{path}[{i}]") for i, item in enumerate(data)]


def invalid_reasons(
    protocol: Protocol, environment: Environment, samples: Mapping[str, Stage], threads: int
) -> tuple[str, ...]:
    """Reasons why the figures of these samples must not be used; empty if they may."""
    moments = (environment.before, *environment.during, environment.after)
    found = (
        _load(protocol, environment, threads),
        _throttled(moments),
        _frequency(moments),
        _too_few(samples["network"]),
        _too_wide(samples["network"]),
    )
    return tuple(reason for reason in found if reason)


def _load(protocol: Protocol, environment: Environment, threads: int) -> str | None:
    cores = len(environment.cores) or environment.machine.cores
    if threads > cores:
        return f"load too high: {threads} threads share {counted(cores, 'core')}"
    load = environment.other_load
    if load is not None and load > protocol.max_load:
        return (
            f"load too high: other processes used {load:.2g} cores (at most {protocol.max_load:g})"
        )
    return None


def _throttled(moments: tuple[Moment, ...]) -> str | None:
    if any(moment.throttled for moment in moments):
        return "throttled: the firmware slowed the processor down"
    counts = [m.throttle_count for m in moments if m.throttle_count is not None]
    if counts and max(counts) > counts[0]:
        events = counted(max(counts) - counts[0], "thermal throttle event")
        return f"throttled: {events}"
    return None


def _frequency(moments: tuple[Moment, ...]) -> str | None:
    shown = [m.frequency_mhz for m in moments if m.frequency_mhz]
    if shown and max(shown) > min(shown) * (1 + MAX_FREQUENCY_SPREAD):
        return f"frequency moved: {min(shown):.0f} to {max(shown):.0f} MHz"
    return None


def _too_few(network: Stage) -> str | None:
    rounds, count = len(network.wall_ms), sum(map(len, network.wall_ms))
    if rounds < MIN_ROUNDS or count < MIN_SAMPLES:
        return (
            f"too few samples: {count} in {rounds} rounds (at least {MIN_SAMPLES} in {MIN_ROUNDS})"
        )
    return None


def _too_wide(network: Stage) -> str | None:
    width = relative_interval(network.rounds())
    if not math.isfinite(width) or width > MAX_INTERVAL:
        return f"interval too wide: {width:.0%} of the median (at most {MAX_INTERVAL:.0%})"
    return None


def relative(ratio: Ratio, to: str, threads: int) -> Relative:
    """``ratio`` as a record holds it; ``to``, ``threads``: name and threads of the reference."""
    return Relative(to, threads, **ratio.to_json())
