"""Data of a search's report, and how its figures are written."""

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
"""number of colours for rounds of evolution; a sixth marks networks measured before"""


@dataclass(frozen=True)
class Measured:
    """A network that was sent to the device."""

    evaluation: ScoredNetwork
    ms: float
    place: int
    """index of its round in :attr:`Findings.rounds`"""
    interval_ms: tuple[float, float] | None
    """95 % interval of the measurement, if a table has it"""

    @property
    def predicted(self) -> bool:
        """Does it have a prediction? Networks measured before there was a model have none."""
        return self.evaluation.predicted_ms > 0 and self.ms > 0

    def cost(self, name: str) -> float:
        """Its cost called ``name``, which is latency or the cost that the search uses."""
        return self.ms if name == "latency" else self.evaluation.cost

    @property
    def error(self) -> float:
        """Error of the prediction, as a share of the measurement; negative: it was too low."""
        return self.evaluation.predicted_ms / self.ms - 1

    @property
    def inside(self) -> bool:
        """Does the predicted 95 % interval contain the measurement?"""
        low, high = self.evaluation.interval_ms
        return low <= self.ms <= high


@dataclass(frozen=True)
class Findings:
    """All data of the page."""

    options: StudyOptions
    rounds: Sequence[Round]
    front: Sequence[FrontNet]
    tables: Mapping[str, LatencyTable]

    @cached_property
    def measured(self) -> list[Measured]:
        """Every measured network, in the order of the rounds. One whose measurement was too
        uncertain may have been chosen again: it belongs to the first round that chose it, and later
        predictions do not count, because their model had seen it."""
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
        """Measured networks whose latency was predicted before."""
        return [m for m in self.measured if m.predicted]

    @property
    def winners(self) -> list[Measured]:
        """Networks of the front that have a prediction. Their latencies are the final ones, and
        each prediction is by a model that never saw the network."""
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
        """Does the search have several input sizes?"""
        return len(self.options.sizes) > 1

    @cached_property
    def others(self) -> list[Measured]:
        """Measured networks that are not in the front."""
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
        """Largest excess over a budget, as a share of it; 0 or less: it keeps the budgets."""
        return broken(self.options, replace(network.evaluation, predicted_ms=network.ms))

    def fits(self, network: Measured) -> bool:
        """Does it keep the budgets, if there are any?"""
        return self.over(network) <= 0

    def colour(self, place: int) -> str:
        """CSS class of a round's colour: the later the stronger, grey before any evolution."""
        if not self.rounds[place].number:
            return "h0"
        later = [i for i, one in enumerate(self.rounds) if one.number]
        age = (later[-1] - place) / max(1, later[-1] - later[0])
        return f"h{COLOURS - round((COLOURS - 1) * age)}"


def ms_text(value: float, interval: tuple[float, float] | None) -> str:
    """Milliseconds as text, with their interval if it is known."""
    return f"{number(value)} ({range_text(interval)})" if interval else number(value)


def range_text(interval: tuple[float, float]) -> str:
    """An interval as text."""
    return f"{number(interval[0])} to {number(interval[1])}"


def prediction_text(value: float, interval: tuple[float, float]) -> str:
    """Predicted latency as text; networks measured before there was a model have none."""
    return f"{ms_text(value, interval)} ms" if value > 0 else "not at all"


def two_lines(value: float, interval: tuple[float, float]) -> Html:
    """A figure above its interval, for a narrow table cell; "-" without a figure."""
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
    """A duration in hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def listed(values: Iterable[str]) -> str:
    """The values separated by commas, each once."""
    return ", ".join(dict.fromkeys(values)) or "not known"


def numbers(values: Iterable[int]) -> str:
    """Widths or depths separated by spaces."""
    return " ".join(map(str, values)) or "none"


def _pixels(size: str) -> int:
    try:
        return math.prod(parse_size(size))
    except EdgefaceError:  # a record may hold any text, which is shown as it is
        return 0
