"""Section of a search's report on how well latency was predicted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from edgeface.pages import charts, page
from edgeface.pages.charts import Axis, Line, Point, number
from edgeface.pages.markup import Html, tag
from edgeface.pages.page import card, section, table
from edgeface.search.findings import Findings, Measured, mean_of
from edgeface.search.report_parts import (
    figures,
    round_axis,
    round_keys,
)

TOLERANCE = 0.10
"""largest error of a good prediction, as a share of the measured latency"""


def predictions(study: Findings) -> Html:
    """Section on predicted against measured latency."""
    head = "Predicted against measured"
    known = study.predicted + [m for m in study.winners if not study.rounds[m.place].number]
    if not known:
        return section(
            head,
            "No prediction was put to the test: nothing was measured after a round of evolution.",
        )
    text = (
        "Each mark is a network whose latency was predicted before it was measured; the band is"
        f" {TOLERANCE:.0%} either way of what was measured. At the end, each network of the front"
        " is predicted once more, by a model fitted to all others: those from before any evolution"
        " are drawn so, the others as they were predicted first."
    )
    found = [card("Latency of each network", _prediction_plot(study, known))]
    found += [_errors_card(study)] if study.predicted else []
    return section(
        head,
        text,
        page.legend(round_keys(study, sorted({m.place for m in known}))),
        page.cards(found),
        tag("h3", "Errors, as shares of the measured latency", class_="above"),
        _error_table(study),
    )


def _prediction_plot(study: Findings, known: Sequence[Measured]) -> Html:
    both = Axis.around([ms for m in known for ms in (m.ms, m.evaluation.predicted_ms)])
    points = [
        Point(
            m.ms,
            m.evaluation.predicted_ms,
            study.colour(m.place),
            title=figures(study, m),
            small=True,
        )
        for m in known
    ]
    return charts.scatter(
        points, "measured ms", "predicted ms", both, both, _band(both), "networks"
    )


def _error_table(study: Findings) -> Html:
    groups = [
        (f"round {one.number}", [m for m in study.predicted if m.place == place])
        for place, one in enumerate(study.rounds)
    ]
    groups += [("all rounds", study.predicted), ("the front", study.winners)]
    rows = [_error_row(name, group) for name, group in groups if group]
    columns = (
        "networks of",
        "predicted",
        f"within {TOLERANCE:.0%}",
        "in the 95 % interval",
        "mean error",
        "largest error",
        "mean, signed",
    )
    return table(columns, rows, set())


def _band(axis: Axis) -> list[Line]:
    """Area within the tolerance and line of perfect predictions, for two axes like ``axis``."""
    low, high = axis.low, axis.high
    corners = (
        (low, low),
        (low, low * (1 + TOLERANCE)),
        (high / (1 + TOLERANCE), high),
        (high, high),
        (high, high * (1 - TOLERANCE)),
        (low / (1 - TOLERANCE), low),
    )
    return [
        Line(corners, "band", f"within {TOLERANCE:.0%} of what was measured"),
        Line(((low, low), (high, high)), "even", "predicted as measured"),
    ]


def _error_row(name: str, found: Sequence[Measured]) -> list[object]:
    errors = [m.error for m in found]
    good = sum(abs(e) <= TOLERANCE for e in errors)
    return [
        name,
        len(found),
        f"{good} ({good / len(found):.0%})",
        sum(m.inside for m in found),
        f"{mean_of(map(abs, errors)):.1%}",
        f"{max(map(abs, errors)):.1%}",
        f"{mean_of(errors):+.1%}",
    ]


def _errors_card(study: Findings) -> Html:
    """Plot of each prediction's error and of the mean error of each round."""
    points, means = [], []
    for place, group in itertools.groupby(study.predicted, lambda m: m.place):
        found, one = list(group), study.rounds[place]
        points += [
            Point(
                one.number,
                100 * abs(m.error),
                f"{study.colour(place)} pale",
                title=figures(study, m),
                small=True,
            )
            for m in found
        ]
        mean = 100 * mean_of(abs(m.error) for m in found)
        means.append(
            Point(
                one.number,
                mean,
                study.colour(place),
                "int8",
                f"round {one.number}: {number(mean, 3)} % in the mean",
            )
        )
    y = Axis.around([0.0, 100 * TOLERANCE, *(p.y for p in points)])
    good = Line(
        ((-math.inf, 100 * TOLERANCE), (math.inf, 100 * TOLERANCE)), "limit", f"{TOLERANCE:.0%}"
    )
    plot = charts.scatter(
        [*points, *means],
        "round",
        "error of the prediction, %",
        round_axis(study),
        y,
        [good, Line([(p.x, p.y) for p in means])],
        "networks",
    )
    keys = page.legend(
        [(charts.sample_mark("t4", "int8"), "mean"), (charts.sample_mark("t4 pale"), "one network")]
    )
    return card("Error in each round", plot, keys)
