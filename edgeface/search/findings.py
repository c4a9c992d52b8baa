"""What a report is about, and how its figures are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from edgeface.architecture.architecture import Architecture
from edgeface.errors import EdgefaceError
from edgeface.options import parse_size
from edgeface.pages.charts import number
from edgeface.pages.markup import Html, join, tag
from edgeface.predict.table import LatencyTable, anonymous
from edgeface.search.options import StudyOptions
from edgeface.search.results import FrontNet, Round, ScoredNetwork
from edgeface.search.selection import broken

COLOURS = 5
"""of rounds of evolution; the sixth is that of the networks measured before"""


@dataclass(frozen=True)
class Measured:
    """A network that was sent to the device."""

    evaluation: ScoredNetwork
    ms: float
    place: int
    """of its round"""
    interval_ms: tuple[float, float] | None
    """95 %, where a table has it"""

    @property
    def predicted(self) -> bool:
        """Networks measured before there was a model have no prediction."""
        return self.evaluation.predicted_ms > 0 and self.ms > 0

    def cost(self, name: str) -> float:
        """In the unit of the cost called ``name``, which is latency or that of the search."""
        return self.ms if name == "latency" else self.evaluation.cost

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured; negative: it was too low."""
        return self.evaluation.predicted_ms / self.ms - 1

    @property
    def inside(self) -> bool:
        """Did the predicted 95 % interval hold?"""
        low, high = self.evaluation.interval_ms
        return low <= self.ms <= high


@dataclass(frozen=True)
class Findings:
    """All that the page is about."""

    options: StudyOptions
    rounds: Sequence[Round]
    front: Sequence[FrontNet]
    tables: Mapping[str, LatencyTable]

    @cached_property
    def measured(self) -> list[Measured]:
        """Every network that was measured, in order. One that was too uncertain may have been
        chosen again: it belongs to the first round that chose it, and what was predicted later, by
        a model that knew it, is no prediction."""
        shares = {
            (size, anonymous(r.architecture)): (r.low / r.ratio, r.high / r.ratio)
            for size, found in self.tables.items()
            for r in found.records
        }
        networks: dict[tuple[str, Architecture], Measured] = {}
        for place, one in enumerate(self.rounds):
            for evaluation, ms in zip(one.picked, one.measured_ms, strict=True):
                key = (evaluation.size, anonymous(evaluation.architecture))
                share = shares.get(key)
                interval = (share[0] * ms, share[1] * ms) if share else None
                networks.setdefault(key, Measured(evaluation, ms, place, interval))
        return list(networks.values())

    @property
    def predicted(self) -> list[Measured]:
        """Those whose latency was predicted before."""
        return [m for m in self.measured if m.predicted]

    @property
    def winners(self) -> list[Measured]:
        """The front, as far as predicted. Its figures are the last ones, and its predictions those
        of a model that never saw it."""
        places = {one.number: place for place, one in enumerate(self.rounds)}
        found = [
            Measured(
                ScoredNetwork(
                    net.architecture,
                    net.size,
                    net.score,
                    0.0,
                    net.predicted_ms,
                    net.predicted_interval_ms,
                ),
                net.measured_ms,
                places[net.round],
                net.interval_ms,
            )
            for net in self.front
            if net.round in places
        ]
        return [m for m in found if m.predicted]

    @property
    def many_sizes(self) -> bool:
        """Must a network's input size be told?"""
        return len(self.options.sizes) > 1

    @cached_property
    def others(self) -> list[Measured]:
        """Those measured that are not of the front."""
        kept = {(net.size, anonymous(net.architecture)) for net in self.front}
        return [
            m
            for m in self.measured
            if (m.evaluation.size, anonymous(m.evaluation.architecture)) not in kept
        ]

    def smaller(self, size: str) -> bool:
        """Is ``size`` below the largest input?"""
        return _pixels(size) < max(map(_pixels, self.options.sizes))

    def over(self, network: Measured) -> float:
        """How far over the budgets, as a share of them; at most 0: it keeps them."""
        return broken(self.options, replace(network.evaluation, predicted_ms=network.ms))

    def fits(self, network: Measured) -> bool:
        """Does it keep the budgets, if there are any?"""
        return self.over(network) <= 0

    def colour(self, place: int) -> str:
        """Class of a round's colour: the later the stronger, grey before any evolution."""
        if not self.rounds[place].number:
            return "h0"
        later = [i for i, one in enumerate(self.rounds) if one.number]
        age = (later[-1] - place) / max(1, later[-1] - later[0])
        return f"h{COLOURS - round((COLOURS - 1) * age)}"


def ms_text(value: float, interval: tuple[float, float] | None) -> str:
    """Milliseconds, with their interval where it is known."""
    return f"{number(value)} ({range_text(interval)})" if interval else number(value)


def range_text(interval: tuple[float, float]) -> str:
    """Of an interval."""
    return f"{number(interval[0])} to {number(interval[1])}"


def prediction_text(value: float, interval: tuple[float, float]) -> str:
    """Of a network that was measured before there was a model, none."""
    return f"{ms_text(value, interval)} ms" if value > 0 else "not at all"


def two_lines(value: float, interval: tuple[float, float]) -> Html:
    """For a cell, which ought to be narrow."""
    return (
        join([number(value), tag("div", range_text(interval), class_="soft")])
        if value > 0
        else Html("-")
    )


def mean_of(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    found = list(values)
    return math.fsum(found) / len(found)


def duration(seconds: float) -> str:
    """Of a device, in hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def listed(values: Iterable[str]) -> str:
    """Each value once."""
    return ", ".join(dict.fromkeys(values)) or "not known"


def numbers(values: Iterable[int]) -> str:
    """Widths or depths."""
    return " ".join(map(str, values)) or "none"


def _pixels(size: str) -> int:
    try:
        return math.prod(parse_size(size))
    except EdgefaceError:  # of a record: shown as it is
        return 0
