"""Measured latency of many Architectures in one setting: what :mod:`edgeface.search.latency_model` learns from.

Networks are measured in groups, the reference network in each, by the protocol of every other figure
(:mod:`edgeface.latency.protocol`). What a record keeps is the ratio to the reference in the same rounds: so a machine
that is a little slower for some minutes does not make the networks of those minutes look slow.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeface.backends import check_combination, load_candidate_maker
from edgeface.errors import DataError, DeviceError, EdgefaceError
from edgeface.files import atomic_write
from edgeface.latency.devices import Device
from edgeface.latency.jobs import Job, Protocol
from edgeface.latency.measurement import Measurement
from edgeface.models.architecture import Architecture
from edgeface.models.registry import get_architecture
from edgeface.options import parse_size
from edgeface.records import from_fields, short

FORMAT_VERSION = 1
MAX_TABLE_BYTES = 64 << 20
AGAIN = "measure it with: python -m benchmarks.latency_model --measure"
REFERENCE = "edgeface-n"
"""the network of the zoo that every group is measured beside"""
PROTOCOL = Protocol(rounds=10, per_round=10, warm_up_s=2.0, photo_width=640, photo_height=480, time_limit_s=120.0)
"""Least that a valid record takes (100 samples in 5 rounds); ten networks and the reference are loaded at once."""

Tick = Callable[[str, int, int], None]
Dropped = Callable[[Architecture, str], None]
"""(Architecture, why it has no record)"""


@dataclass(frozen=True)
class Setting:
    """What a latency depends on beside the Architecture. Raises OptionError for a combination that is off."""

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

    def __str__(self) -> str:
        return (f"{self.target} {self.precision}, {self.width}x{self.height}, {self.threads} "
                f"thread{'s' * (self.threads > 1)}, {self.device}")


@dataclass(frozen=True)
class Record:
    """Network time of one Architecture."""

    architecture: Architecture
    ms: float
    """median of all samples"""
    ratio: float
    """of medians, to the reference in the same rounds"""
    ratio_low: float
    ratio_high: float
    """bounds of the 95 % bootstrap interval"""
    invalid_reasons: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """May the figure be used?"""
        return not self.invalid_reasons


@dataclass(frozen=True)
class LatencyTable:
    """The records of one setting."""

    setting: Setting
    cpu: str
    """processor model, as the device shows it"""
    runtime: str
    """package and version"""
    records: tuple[Record, ...] = ()
    device_s: float = 0.0
    """that measuring them kept the device busy, starts and warm-ups included"""
    format_version: int = FORMAT_VERSION

    @property
    def valid(self) -> tuple[Record, ...]:
        """Records that may be used."""
        return tuple(record for record in self.records if record.valid)

    @property
    def reference_ms(self) -> float:
        """What the reference took: the median over all groups it was measured in."""
        return statistics.median(record.ms / record.ratio for record in self.valid or self.records)

    def ms(self, record: Record) -> float:
        """What ``record`` would have taken while the reference took :attr:`reference_ms`."""
        return record.ratio * self.reference_ms

    def find(self, architecture: Architecture) -> Record | None:
        """The valid record of an equal network; names do not count."""
        wanted = anonymous(architecture)
        return next((r for r in self.valid if anonymous(r.architecture) == wanted), None)

    def with_records(self, records: Sequence[Record]) -> LatencyTable:
        """A table with ``records`` added; they replace those of equal networks."""
        new = {anonymous(r.architecture) for r in records}
        kept = tuple(r for r in self.records if anonymous(r.architecture) not in new)
        return dataclasses.replace(self, records=(*kept, *records))

    def to_text(self) -> str:
        """JSON, one record a line."""
        data = dataclasses.asdict(self)
        records = ",\n".join(json.dumps(record, separators=(",", ":")) for record in data.pop("records"))
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
            raise DataError(f"{where}: format_version {table.format_version} is not one this edgeface reads "
                            f"({FORMAT_VERSION}); {AGAIN}")
        bad = next((r for r in table.records if not (0 < r.ratio_low <= r.ratio <= r.ratio_high and r.ms > 0)), None)
        if bad:
            raise DataError(f"{where}: the record of {short(bad.architecture.name)} has no positive time inside its "
                            f"interval; {AGAIN}")
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
                raise DataError(f"{path} is larger than {MAX_TABLE_BYTES >> 20} MiB: not a latency table")
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
    tick: Tick | None = None,
    grown: Callable[[LatencyTable], None] | None = None,
    dropped: Dropped | None = None,
    protocol: Protocol = PROTOCOL,
) -> LatencyTable:
    """Measure what ``table`` has no valid record of; return it with the new records.

    bundles: folder where files are made, and kept for the next time. grown: called after each group with the table so
    far, to save it; whoever is interrupted then loses one group. dropped: called for a network that cannot be made or
    measured; without it, the first one raises. Raises DataError where device or runtime are not those of ``table``.
    """
    todo = [a for a in architectures if table is None or table.find(a) is None]
    if not todo:
        assert table is not None
        return table
    reference, paths = get_architecture(REFERENCE), {}
    made = load_candidate_maker()([reference, *todo], [(setting.target, setting.precision)], setting.width,
                                  setting.height, bundles, tick)
    for architecture, outcome in zip([reference, *todo], made, strict=True):
        if isinstance(outcome, str):
            _drop(architecture, outcome, dropped)
        else:
            paths[architecture] = outcome[0]
    if reference not in paths:
        raise DeviceError(f"the reference network {REFERENCE} cannot be made for {setting.target} {setting.precision}")
    ready = [a for a in todo if a in paths]
    size = protocol.together - 1
    for start in range(0, len(ready), size):
        group = [reference, *ready[start : start + size]]
        if tick:
            tick(f"measuring {setting}", start, len(ready))
        begun = time.monotonic()
        records = _measure_group(device, group, [paths[a] for a in group], setting, protocol, dropped)
        table = _extended(table, setting, group, records, time.monotonic() - begun)
        if grown:
            grown(table)
    if tick:
        tick(f"measuring {setting}", len(ready), len(ready))
    assert table is not None
    return table


def _drop(architecture: Architecture, why: str, dropped: Dropped | None) -> None:
    if dropped is None:
        raise DeviceError(f"{architecture.name}: {why}")
    dropped(architecture, why)


def _measure_group(device: Device, group: Sequence[Architecture], paths: Sequence[Path], setting: Setting,
                   protocol: Protocol, dropped: Dropped | None) -> dict[int, Measurement]:
    """Index in the group -> its record."""
    failures: dict[int, str] = {}

    def failed(index: int, why: str) -> None:
        failures[index] = why

    jobs = [Job(str(path), setting.threads) for path in paths]
    found = device.measure(jobs, protocol, reference=0, failed=failed)
    if 0 in failures:
        raise DeviceError(f"the reference network could not be measured: {failures[0]}")
    for index, why in failures.items():
        _drop(group[index], why, dropped)
    return dict(zip((i for i in range(len(group)) if i not in failures), found, strict=True))


def _extended(table: LatencyTable | None, setting: Setting, group: Sequence[Architecture],
              measured: dict[int, Measurement], device_s: float) -> LatencyTable:
    first = next(iter(measured.values()))
    found = LatencyTable(setting, first.environment.machine.cpu, first.runtime)
    table = table or found
    if (table.setting, table.cpu, table.runtime) != (found.setting, found.cpu, found.runtime):
        raise DataError(f"the table was measured on {table.cpu} with {table.runtime} ({table.setting}), this is "
                        f"{found.cpu} with {found.runtime} ({found.setting}): begin another table")
    records = []
    for index, m in measured.items():
        assert m.ratio is not None
        records.append(Record(group[index], m.network_ms.median, m.ratio.value, m.ratio.low, m.ratio.high,
                              m.invalid_reasons))
    grown = table.with_records([r for r in records if r.architecture != group[0]])
    return dataclasses.replace(grown, device_s=round(table.device_s + device_s, 1))
