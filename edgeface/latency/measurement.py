"""Measurement: what one model took on one device, with all that the figure depends on, and whether
it can be used."""

from __future__ import annotations

import dataclasses
import json
import math
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
"""photo to network input; network, array in to arrays out; decode and NMS; all of it, as
``Detector.detect`` does it"""

MIN_ROUNDS = 5
MIN_SAMPLES = 100
MAX_INTERVAL = 0.10
"""width of the 95 % interval of the median network time, as a share of it"""
MAX_FREQUENCY_SPREAD = 0.10
MAX_RECORD_BYTES = 512 << 20


@dataclass(frozen=True)
class Stage:
    """Raw samples of one stage: one list a round, in the order they were taken. Nothing is
    dropped."""

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
        """One array a round of ``wall`` or ``cpu`` time."""
        return [
            np.array(samples, np.float64)
            for samples in (self.wall_ms if clock == "wall" else self.cpu_ms)
        ]

    def summary(self, clock: str = "wall") -> Summary:
        """Of all samples, rounded as a record holds it."""
        return Summary(**Summary.of(np.concatenate(self.rounds(clock))).to_json())


@dataclass(frozen=True)
class Relative:
    """Median network time over that of the reference, measured in the same rounds."""

    to: str
    """name of the reference's Bundle"""
    threads: int
    """of the reference"""
    value: float
    low: float
    high: float
    """bounds of the 95 % bootstrap interval"""
    verdict: str
    """faster, slower, tie, or reference: this is the reference itself"""

    def __str__(self) -> str:
        if self.verdict == "reference":
            return "reference"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}) {self.verdict}"


@dataclass(frozen=True)
class Environment:
    """Where and under what circumstances. A Moment is read by the worker, on its cores, right after
    it computed: idle cores show a clock that says nothing."""

    machine: Machine
    before: Moment
    """after the warm-up"""
    during: tuple[Moment, ...]
    """after each slice"""
    after: Moment
    """after the last round"""
    other_load: float | None
    """cores that other processes kept busy while the rounds ran; None where the system does not
    show it"""
    runtimes: dict[str, str]
    """pip name -> version of what took part on the device"""
    cores: tuple[int, ...]
    """processors that the worker was pinned to; empty: the system cannot pin"""
    precision_hints: dict[str, Any]
    """settings of the runtime that decide what it computes in"""
    delegates: dict[str, Any] | None = None
    """what ran where, as far as the runtime tells"""


@dataclass(frozen=True)
class Measurement:
    """One record. Times are in ms."""

    bundle: str
    """name of its folder"""
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
    """wall time, as all without ``cpu`` in their name"""
    network_cpu_ms: Summary
    preprocess_ms: Summary
    postprocess_ms: Summary
    end_to_end_ms: Summary
    load_ms: float
    """opening the Bundle: hashes, parsing, what the runtime compiles"""
    import_ms: float
    """importing NumPy, OpenCV and the runtime"""
    peak_memory_bytes: int | None
    """of the whole worker: Python, libraries, photo and model"""
    faces: int
    """found in the photo"""
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
        """What makes two records comparable: bundle, device, threads, fast."""
        return (self.bundle, self.device, self.threads, self.fast)

    def figure(self, stage: str = "network") -> str:
        """``12.34 ms [13.10]``, median and p90 of ``stage``. Of an invalid record never without the
        reasons."""
        summary: Summary = getattr(self, f"{stage}_ms")
        text = f"{summary.median:.2f} ms [{summary.p90:.2f}]"
        return text if self.valid else f"{text} (invalid: {'; '.join(self.invalid_reasons)})"

    def to_json(self, samples: bool = True) -> dict[str, Any]:
        """All fields, the raw samples only if asked for; :meth:`from_json` gives back an equal
        record."""
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
        except EdgefaceError as error:  # an option out of range does not say where it stands
            text = str(error)
            raise DataError(text if text.startswith(where) else f"{where}: {text}") from None


def save_measurements(path: Path | str, records: Iterable[Measurement]) -> None:
    """Write the records with their samples as a JSON list, whole or not at all. Raises
    OutputError."""
    write_text(path, json.dumps([record.to_json() for record in records]) + "\n")


def load_measurements(path: Path | str) -> list[Measurement]:
    """Read :func:`save_measurements` output. Raises DataError."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_RECORD_BYTES >> 20} MiB: not a file of measurements"
            )
        data = json.loads(read_regular(path).decode("utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; write it with: edgeface bench BUNDLE "
            f"--save {path}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {short(str(error))}") from None
    if not isinstance(data, list):
        raise DataError(
            f"{path}: expected a list of measurements, got {short(data)}; write one with: edgeface"
            f" bench BUNDLE --save {path}"
        )
    return [Measurement.from_json(item, f"{path}[{i}]") for i, item in enumerate(data)]


def invalid_reasons(
    protocol: Protocol, environment: Environment, samples: Mapping[str, Stage], threads: int
) -> tuple[str, ...]:
    """Why the figures of these samples must not be used; empty: they may."""
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
    """``ratio`` as a record holds it."""
    return Relative(to, threads, **ratio.to_json())
