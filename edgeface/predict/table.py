"""Measured latency of many Architectures in one setting: what :mod:`edgeface.predict.model` learns
from.

Networks are measured in groups by the protocol of every other figure
(:mod:`edgeface.latency.session`), two runs of each a round and many rounds, so that a round is over
in a fraction of a second: what slows a shared machine lasts about as long, and slows the networks
of a round alike. A run is therefore taken apart into what its network takes and what its round did,
by Tukey's median polish over the logarithms (Exploratory Data Analysis, 1977, chapter 11)::

    log ms[network, round] = own[network] + disturbance[round] + rest

and a record keeps own[network] - own[reference], where the reference is a network of the zoo that
is in every group. In an hour in which medians of the same network differed by 16 %, these ratios
differed by 2.4 %.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.registry import get_architecture
from edgeface.backends import check_combination, load_candidate_maker
from edgeface.errors import DataError, DeviceError, EdgefaceError, OptionError
from edgeface.files import atomic_write
from edgeface.latency.devices import Device
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.options import parse_size
from edgeface.schema import from_fields, short, to_fields
from edgeface.types import Doubles, Progress

FORMAT_VERSION = 1
MAX_TABLE_BYTES = 64 << 20
AGAIN = "measure it with: python -m benchmarks.latency_model --measure"
REFERENCE = "edgeface-n"
"""the network of the zoo that every group is measured beside"""
PROTOCOL = Protocol(
    rounds=30, per_round=2, warm_up_s=0.5, photo_width=640, photo_height=480, time_limit_s=120.0
)
"""eleven networks and the reference are loaded at once"""
MAX_INTERVAL = 0.10
"""width of the 95 % interval of a ratio that may be quoted"""
MAX_TEACHING = 0.30
"""and that a model may learn from"""
MEDIAN_REASONS = ("interval too wide", "too few samples")
"""how a record of the protocol says that its own median is uncertain, which does not matter here"""
LEAST_NETWORKS = 20
"""that a latency model is fitted to"""
POLISHES = 20
RESAMPLES = 1000

Dropped = Callable[[Architecture, str], None]
"""(Architecture, why it has no record)"""


@dataclass(frozen=True)
class Setting:
    """What a latency depends on beside the Architecture. Raises OptionError for a combination that
    is off."""

    device: str = "local"
    target: str = "openvino"
    precision: str = "fp32"
    width: int = 640
    """px"""
    height: int = 480
    """px"""
    threads: int = 1

    def __post_init__(self) -> None:
        check_combination(self.target, self.precision)
        parse_size(f"{self.width}x{self.height}")
        if self.threads < 1:
            raise OptionError(f"--threads must be 1 or more, got {self.threads}")

    def __str__(self) -> str:
        return (
            f"{self.target} {self.precision}, {self.width}x{self.height}, {self.threads} "
            f"thread{'s' * (self.threads > 1)}, {self.device}"
        )


@dataclass(frozen=True)
class Record:
    """Network time of one Architecture."""

    architecture: Architecture
    ratio: float
    """to the reference, what disturbed both taken out"""
    low: float
    high: float
    """bounds of the 95 % bootstrap interval of the ratio"""
    median_ms: float
    """of all runs of the last session, as the protocol reports it"""
    wrong: tuple[str, ...] = ()
    """why the last session must not be used"""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.ratio <= self.high:
            raise ValueError(
                f"the ratio {self.ratio} does not lie between its bounds {self.low} and"
                f" {self.high}, or is not positive"
            )

    @property
    def width(self) -> float:
        """Of the interval, as a share of the ratio."""
        return (self.high - self.low) / self.ratio

    @property
    def invalid_reasons(self) -> tuple[str, ...]:
        """Why the figure must not be quoted; empty: it may."""
        if self.width <= MAX_INTERVAL:
            return self.wrong
        return (
            *self.wrong,
            f"interval too wide: {self.width:.0%} of the ratio (at most {MAX_INTERVAL:.0%})",
        )

    @property
    def valid(self) -> bool:
        """May the figure be quoted?"""
        return not self.invalid_reasons

    @property
    def teaches(self) -> bool:
        """May a model learn from it? A wide interval counts for less there, so it does not forbid
        that."""
        return not self.wrong and self.width <= MAX_TEACHING

    def with_session(self, other: Record) -> Record:
        """This network, measured once more: logarithms of the ratios are averaged, weighted by
        their precision."""
        if self.wrong or other.wrong:
            return self if other.wrong else other
        spreads = [max(math.log(r.high / r.low) / 2, 1e-6) for r in (self, other)]
        weights = [spread**-2 for spread in spreads]
        mean = math.fsum(
            w * math.log(r.ratio) for w, r in zip(weights, (self, other), strict=True)
        ) / sum(weights)
        spread = sum(weights) ** -0.5
        return dataclasses.replace(
            other, ratio=math.exp(mean), low=math.exp(mean - spread), high=math.exp(mean + spread)
        )


@dataclass(frozen=True)
class LatencyTable:
    """The records of one setting."""

    setting: Setting
    cpu: str
    """processor model, as the device shows it"""
    runtime: str
    """package and version"""
    records: tuple[Record, ...] = ()
    reference_ms: tuple[float, ...] = ()
    """median of :data:`REFERENCE` in each group, in the order they were measured"""
    device_s: float = 0.0
    """that measuring them kept the device busy, starts and warm-ups included"""
    format_version: int = FORMAT_VERSION

    @property
    def valid(self) -> tuple[Record, ...]:
        """Records that may be quoted."""
        return tuple(record for record in self.records if record.valid)

    @property
    def scale_ms(self) -> float:
        """What the reference takes on the machine at its quietest: turns ratios into ms."""
        return min(self.reference_ms)

    @property
    def drift(self) -> float:
        """How much slower than that the reference was in the slowest group, as a share."""
        return max(self.reference_ms) / self.scale_ms - 1

    def ms(self, record: Record) -> float:
        """Network time of ``record``."""
        return record.ratio * self.scale_ms

    def find(self, architecture: Architecture) -> Record | None:
        """The valid record of an equal network; names do not count."""
        wanted = anonymous(architecture)
        return next((r for r in self.valid if anonymous(r.architecture) == wanted), None)

    def with_records(self, records: Sequence[Record]) -> LatencyTable:
        """A table with ``records`` added; those of equal networks become one."""
        kept = {anonymous(r.architecture): r for r in self.records}
        for new in records:
            key = anonymous(new.architecture)
            kept[key] = kept[key].with_session(new) if key in kept else new
        return dataclasses.replace(self, records=tuple(kept.values()))

    def joined(self, other: LatencyTable) -> LatencyTable:
        """Both tables in one. Raises DataError unless they are of one setting, processor and
        runtime."""
        if (self.setting, self.cpu, self.runtime) != (other.setting, other.cpu, other.runtime):
            raise DataError(
                f"the table was measured on {self.cpu} with {self.runtime} ({self.setting}), this"
                f" is {other.cpu} with {other.runtime} ({other.setting}): begin another table"
            )
        return dataclasses.replace(
            self.with_records(other.records),
            reference_ms=self.reference_ms + other.reference_ms,
            device_s=round(self.device_s + other.device_s, 1),
        )

    def to_text(self) -> str:
        """JSON, one record a line."""
        data = to_fields(self)
        records = ",\n".join(
            json.dumps(record, separators=(",", ":")) for record in data.pop("records")
        )
        return f'{json.dumps(data)[:-1]}, "records": [\n{records}\n]}}\n'

    @classmethod
    def from_text(cls, text: str, where: str = "latency table") -> LatencyTable:
        """Read :meth:`to_text` output. Raises DataError."""
        try:
            table = from_fields(cls, json.loads(text), where)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not valid JSON: {short(str(error))}; {AGAIN}") from None
        except EdgefaceError as error:
            raise DataError(f"{where} is not a latency table: {error}; {AGAIN}") from None
        if table.format_version != FORMAT_VERSION:
            raise DataError(
                f"{where}: format_version {table.format_version} is not one this edgeface reads "
                f"({FORMAT_VERSION}); {AGAIN}"
            )
        return table

    def save(self, path: Path | str) -> None:
        """Write :meth:`to_text`, whole or not at all. Raises OutputError."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_text(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> LatencyTable:
        """Read :meth:`save` output. Raises DataError."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_TABLE_BYTES:
                raise DataError(
                    f"{path} is larger than {MAX_TABLE_BYTES >> 20} MiB: not a latency table"
                )
            text = path.read_bytes().decode("utf-8")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}; {AGAIN}") from None
        except UnicodeDecodeError:
            raise DataError(f"{path} is not valid JSON: not UTF-8; {AGAIN}") from None
        return cls.from_text(text, str(path))


def anonymous(architecture: Architecture) -> Architecture:
    """Without its name: what two networks of equal latency have in common."""
    return dataclasses.replace(architecture, name="")


def measure(
    setting: Setting,
    architectures: Sequence[Architecture],
    device: Device,
    bundles: Path,
    table: LatencyTable | None = None,
    again: bool = False,
    progress: Progress | None = None,
    grown: Callable[[LatencyTable], None] | None = None,
    dropped: Dropped | None = None,
    protocol: Protocol = PROTOCOL,
) -> LatencyTable:
    """Measure what ``table`` has no valid record of; return it with the new records.

    bundles: folder where files are made, and kept for the next time. again: measure what has a
    record, too. grown: called after each group with the table so far, to save it; whoever is
    interrupted then loses one group. dropped: called for a network that cannot be made or measured;
    without it, the first one raises. Raises DeviceError where there is nothing to return, DataError
    where device or runtime are not those of ``table``.
    """
    todo = [a for a in architectures if again or table is None or table.find(a) is None]
    if not todo:
        assert table is not None
        return table
    reference = get_architecture(REFERENCE)
    paths = _make_files([reference, *todo], setting, bundles, progress, dropped)
    if reference not in paths:
        raise DeviceError(
            f"the reference network {REFERENCE} cannot be made for {setting.target}"
            f" {setting.precision}"
        )
    ready = [a for a in todo if a in paths]
    size = protocol.together - 1
    for start in range(0, len(ready), size):
        group = [reference, *ready[start : start + size]]
        if progress:
            progress(f"measuring {setting}", start, len(ready))
        begun = time.monotonic()
        records = _measure_group(
            device, group, [paths[a] for a in group], setting, protocol, dropped
        )
        table = _extended(table, setting, group, records, time.monotonic() - begun)
        if grown:
            grown(table)
    if progress:
        progress(f"measuring {setting}", len(ready), len(ready))
    if table is None:
        raise none_measured(setting, len(todo))
    return table


def none_measured(setting: Setting, count: int) -> DeviceError:
    """The error where there is no table after ``count`` networks, and each one's reason was
    told."""
    return DeviceError(
        f"none of {count} networks could be measured ({setting}): the first line above says why"
    )


def _make_files(
    architectures: Sequence[Architecture],
    setting: Setting,
    bundles: Path,
    progress: Progress | None,
    dropped: Dropped | None,
) -> dict[Architecture, Path]:
    """Bundle of each network that one can be made of."""
    make, kind = load_candidate_maker(), (setting.target, setting.precision)
    made = make(architectures, [kind], setting.width, setting.height, bundles, progress)
    paths = {}
    for architecture, outcome in zip(architectures, made, strict=True):
        if isinstance(outcome, str):
            _drop(architecture, outcome, dropped)
        else:
            paths[architecture] = outcome[0]
    return paths


def _drop(architecture: Architecture, why: str, dropped: Dropped | None) -> None:
    if dropped is None:
        raise DeviceError(f"{architecture.name}: {why}")
    dropped(architecture, why)


def _measure_group(
    device: Device,
    group: Sequence[Architecture],
    paths: Sequence[Path],
    setting: Setting,
    protocol: Protocol,
    dropped: Dropped | None,
) -> dict[int, Measurement]:
    """Index in the group -> its record."""
    failures: dict[int, str] = {}

    def failed(index: int, why: str) -> None:
        failures[index] = why

    jobs = [Job(str(path), setting.threads) for path in paths]
    found = device.measure(jobs, protocol, failed=failed)
    if 0 in failures:
        raise DeviceError(f"the reference network could not be measured: {failures[0]}")
    for index, why in failures.items():
        _drop(group[index], why, dropped)
    return dict(zip((i for i in range(len(group)) if i not in failures), found, strict=True))


def _extended(
    table: LatencyTable | None,
    setting: Setting,
    group: Sequence[Architecture],
    measured: dict[int, Measurement],
    device_s: float,
) -> LatencyTable:
    first = next(iter(measured.values()))
    found = LatencyTable(
        setting,
        first.environment.machine.cpu,
        first.runtime,
        tuple(_records(group, measured)),
        (measured[0].network_ms.median,),
        round(device_s, 1),
    )
    return table.joined(found) if table else found


def _records(group: Sequence[Architecture], measured: dict[int, Measurement]) -> list[Record]:
    """Of all but the reference, which is the first."""
    logs = np.log(
        [[samples.min() for samples in m.samples["network"].rounds()] for m in measured.values()]
    )
    own, disturbance = polish(logs)
    picks = np.random.default_rng(0).integers(0, logs.shape[1], (RESAMPLES, logs.shape[1]))
    calm = logs - disturbance
    drawn = np.median(calm[:, picks], axis=2)  # the same rounds of all
    records = []
    for row, (index, m) in enumerate(measured.items()):
        if index > 0:
            ratio = float(np.exp(own[row] - own[0]))
            low, high = (
                float(v) for v in np.exp(np.quantile(drawn[row] - drawn[0], (0.025, 0.975)))
            )
            wrong = tuple(
                reason for reason in m.invalid_reasons if not reason.startswith(MEDIAN_REASONS)
            )
            records.append(
                Record(
                    group[index],
                    round(ratio, 5),
                    round(min(low, ratio), 5),
                    round(max(high, ratio), 5),
                    m.network_ms.median,
                    wrong,
                )
            )
    return records


def polish(values: Doubles) -> tuple[Doubles, Doubles]:
    """Median polish: (one value a row, one a column), of which the columns' have the median 0."""
    own: Doubles = np.median(values, axis=1)
    for _ in range(POLISHES):
        disturbance: Doubles = np.median(values - own[:, None], axis=0)
        own = np.median(values - disturbance, axis=1)
    level = float(np.median(disturbance))
    return own + level, disturbance - level
