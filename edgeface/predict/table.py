"""Table of the measured latency of many Architectures in one setting.

:mod:`edgeface.predict.measure` fills it, :mod:`edgeface.predict.model` learns from it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeface.architecture.architecture import Architecture
from edgeface.backends import check_combination
from edgeface.errors import DataError, EdgefaceError, OptionError, counted
from edgeface.files import read_regular, write_text
from edgeface.latency.devices.address import without_options
from edgeface.latency.statistics import CONFIDENT
from edgeface.options import parse_size
from edgeface.schema import from_fields, short, to_fields

FORMAT_VERSION = 1
MAX_TABLE_BYTES = 64 << 20
ACCEPTED = (
    "accepted: a table that edgeface search or python -m benchmarks.latency_model --measure wrote;"
    " one that is deleted is measured again"
)
MAX_INTERVAL = 0.10
"""greatest width of the 95 % interval, as a share of the ratio, of a ratio that may be quoted"""
MAX_TEACHING = 0.30
"""the same of a ratio that a model may learn from"""
LEAST_NETWORKS = 20
"""least number of networks that a latency model is fitted to"""


@dataclass(frozen=True)
class Setting:
    """What a latency depends on besides the Architecture.

    Raises OptionError for an unsupported combination of target and precision, or a value out of
    range.
    """

    device: str = "local"
    """URL without its options, as in records"""
    target: str = "openvino"
    precision: str = "fp32"
    width: int = 640
    """px"""
    height: int = 480
    """px"""
    threads: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", without_options(self.device))
        check_combination(self.target, self.precision)
        parse_size(f"{self.width}x{self.height}")
        if self.threads < 1:
            raise OptionError(f"--threads must be 1 or more, got {self.threads}")

    def __str__(self) -> str:
        return (
            f"{self.target} {self.precision}, {self.width}x{self.height},"
            f" {counted(self.threads, 'thread')}, {self.device}"
        )


@dataclass(frozen=True)
class Record:
    """Network time of one Architecture."""

    architecture: Architecture
    ratio: float
    """network time divided by that of the reference, with the disturbances of both removed"""
    low: float
    high: float
    """bounds of the 95 % bootstrap interval of the ratio"""
    median_ms: float
    """median of all runs of the last session, as the protocol reports it"""
    wrong: tuple[str, ...] = ()
    """reasons why the last session must not be used"""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.ratio <= self.high:
            raise ValueError(
                f"the ratio {self.ratio} does not lie between its bounds {self.low} and"
                f" {self.high}, or is not positive"
            )

    @property
    def width(self) -> float:
        """Width of the interval, as a share of the ratio."""
        return (self.high - self.low) / self.ratio

    @property
    def invalid_reasons(self) -> tuple[str, ...]:
        """Reasons why the figure must not be quoted; empty if it may."""
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
        """May a model learn from it?

        A wide interval only lowers the weight of the record, unless it exceeds MAX_TEACHING.
        """
        return not self.wrong and self.width <= MAX_TEACHING

    def with_session(self, other: Record) -> Record:
        """This record combined with ``other``, a later one of an equal network.

        Logarithms of the ratios are averaged, weighted by their precision. If they lie further
        apart than their standard deviations allow, the interval of the mean is widened accordingly
        (Birge ratio, R. T. Birge, Phys. Rev. 40, 1932). If one session must not be used, the result
        is the other record; if both must not, this one.
        """
        if self.wrong or other.wrong:
            return self if other.wrong else other
        deviations = [max(math.log(r.high / r.low) / (2 * CONFIDENT), 1e-6) for r in (self, other)]
        weights = [deviation**-2 for deviation in deviations]
        logs = [math.log(r.ratio) for r in (self, other)]
        mean = math.fsum(w * x for w, x in zip(weights, logs, strict=True)) / sum(weights)
        apart = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, logs, strict=True)) ** 0.5
        spread = CONFIDENT * max(1.0, apart) * sum(weights) ** -0.5
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
    """median of :data:`edgeface.predict.measure.REFERENCE` in each group, in the order measured"""
    device_s: float = 0.0
    """seconds that the device was busy measuring them, including starts and warm-ups"""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not all(0 < ms < math.inf for ms in self.reference_ms):
            raise DataError("its reference_ms are not all above 0 ms")
        if self.records and not self.reference_ms:
            raise DataError("it has records and no reference_ms, which turns their ratios into ms")

    @property
    def valid(self) -> tuple[Record, ...]:
        """Records that may be quoted."""
        return tuple(record for record in self.records if record.valid)

    @property
    def scale_ms(self) -> float:
        """Median over the groups of the reference's time: turns ratios into ms.

        The time in the quietest group would fall with every quieter one, and all networks with it.
        """
        return statistics.median(self.reference_ms)

    @property
    def drift(self) -> float:
        """How much longer the reference took in the slowest group than in the fastest, as a
        share."""
        return max(self.reference_ms) / min(self.reference_ms) - 1

    def ms(self, record: Record) -> float:
        """Network time of ``record`` in ms."""
        return record.ratio * self.scale_ms

    def find(self, architecture: Architecture) -> Record | None:
        """The valid record of an equal network, whatever its name; None if there is none."""
        wanted = anonymous(architecture)
        return next((r for r in self.valid if anonymous(r.architecture) == wanted), None)

    def with_records(self, records: Sequence[Record]) -> LatencyTable:
        """A table with ``records`` added; records of equal networks are combined into one."""
        kept = {anonymous(r.architecture): r for r in self.records}
        for new in records:
            key = anonymous(new.architecture)
            kept[key] = kept[key].with_session(new) if key in kept else new
        return dataclasses.replace(self, records=tuple(kept.values()))

    def joined(self, other: LatencyTable) -> LatencyTable:
        """Both tables in one. Raises DataError unless setting, processor and runtime are equal."""
        if (self.setting, self.cpu, self.runtime) != (other.setting, other.cpu, other.runtime):
            raise DataError(
                f"the table was measured on {self.cpu} with {self.runtime} ({self.setting}), this"
                f" is {other.cpu} with {other.runtime} ({other.setting}): begin another table,"
                " in a folder of its own"
            )
        return dataclasses.replace(
            self.with_records(other.records),
            reference_ms=self.reference_ms + other.reference_ms,
            device_s=round(self.device_s + other.device_s, 1),
        )

    def to_text(self) -> str:
        """JSON with one record per line."""
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
            raise DataError(f"{where} is not valid JSON: {short(str(error))}; {ACCEPTED}") from None
        except EdgefaceError as error:
            raise DataError(f"{where} is not a latency table: {error}; {ACCEPTED}") from None
        if table.format_version != FORMAT_VERSION:
            raise DataError(
                f"{where}: format_version {table.format_version} is not one this edgeface reads "
                f"({FORMAT_VERSION}); {ACCEPTED}"
            )
        return table

    def save(self, path: Path | str) -> None:
        """Write :meth:`to_text` atomically. Raises OutputError."""
        write_text(path, self.to_text())

    @classmethod
    def load(cls, path: Path | str) -> LatencyTable:
        """Read :meth:`save` output. Raises DataError."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_TABLE_BYTES:
                raise DataError(
                    f"{path} is larger than {MAX_TABLE_BYTES >> 20} MiB: not a latency table"
                )
            text = read_regular(path).decode("utf-8")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}; {ACCEPTED}") from None
        except UnicodeDecodeError:
            raise DataError(f"{path} is not valid JSON: not UTF-8; {ACCEPTED}") from None
        return cls.from_text(text, str(path))


def anonymous(architecture: Architecture) -> Architecture:
    """The Architecture without its name, so that networks of equal latency compare equal."""
    return dataclasses.replace(architecture, name="")
