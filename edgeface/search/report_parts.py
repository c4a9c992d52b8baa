"""Parts that several sections of a search's report share."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgeface.architecture.architecture import Architecture
from edgeface.pages import charts
from edgeface.pages.charts import Axis, Line, number
from edgeface.pages.markup import Html
from edgeface.search.findings import Findings, Measured, ms_text, prediction_text
from edgeface.search.results import FrontNet, Round


def budget(limit: float) -> list[Line]:
    """Vertical line at a latency budget in ms; no line for 0."""
    name = f"budget {number(limit)} ms"
    return [Line(((limit, -math.inf), (limit, math.inf)), "limit", name, name)] if limit else []


def round_keys(study: Findings, places: Iterable[int]) -> list[tuple[Html, str]]:
    """Legend of the colours of rounds."""
    return [
        (charts.sample_mark(study.colour(place)), round_name(study.rounds[place]))
        for place in places
    ]


def round_name(one: Round) -> str:
    """Name of a round, in words."""
    return f"round {one.number}" if one.number else "before evolution"


def round_axis(study: Findings) -> Axis:
    """Axis of round numbers, with whole-number ticks."""
    last = max(1, *(one.number for one in study.rounds))
    step = math.ceil(last / 8)
    return Axis(0, step * math.ceil(last / step), step)


def figures(study: Findings, m: Measured) -> str:
    """One line about a network that was measured."""
    e = m.evaluation
    return (
        f"{_named(study, e.architecture, e.size)}: score {number(e.score, 5)}, measured"
        f" {ms_text(m.ms, m.interval_ms)} ms, predicted"
        f" {prediction_text(e.predicted_ms, e.interval_ms)}, {round_name(study.rounds[m.place])}"
    )


def net_figures(study: Findings, net: FrontNet, rank: int) -> str:
    """One line about a network of the front."""
    return (
        f"{rank}: {_named(study, net.architecture, net.size)}: score {number(net.score, 5)},"
        f" measured {ms_text(net.measured_ms, net.interval_ms)} ms, predicted"
        f" {prediction_text(net.predicted_ms, net.predicted_interval_ms)}, {net.params:,}"
        f" parameters, {net.macs / 1e6:,.0f} M MACs"
    )


def _named(study: Findings, architecture: Architecture, size: str) -> str:
    return f"{architecture.name} at {size}" if study.many_sizes else architecture.name
