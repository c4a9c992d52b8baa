"""Section of a search's report on how the front came about."""

from __future__ import annotations

import math

from edgeface.pages import charts, page
from edgeface.pages.charts import Axis, Line, Point, number
from edgeface.pages.markup import Html, tag
from edgeface.pages.page import card, section, table
from edgeface.search.findings import Findings
from edgeface.search.pareto import nondominated
from edgeface.search.report_parts import (
    budget,
    figures,
    round_axis,
    round_keys,
    round_name,
)
from edgeface.search.results import COSTS, Round


def history(study: Findings) -> Html:
    """Section with the fronts, best scores and figures of the rounds."""
    head = "How it came about"
    if not study.measured:
        return section(head, "Nothing was measured.")
    text = (
        "Colours tell when a network was measured; each stepped line is the front of all that had"
        " been measured by the end of that round."
    )
    return section(
        head,
        text,
        page.legend(round_keys(study, range(len(study.rounds)))),
        page.cards([_fronts_card(study), _best_card(study)]),
        tag("h3", "Rounds", class_="above"),
        _rounds_table(study),
    )


def _fronts_card(study: Findings) -> Html:
    against = study.options.cost
    points = [
        Point(
            m.cost(against),
            m.evaluation.score,
            f"{study.colour(m.place)} pale",
            title=figures(study, m),
            small=True,
        )
        for m in study.measured
    ]
    limit = study.options.budget_ms if against == "latency" else 0.0
    curves = budget(limit)
    for place, one in enumerate(study.rounds):
        known = [(m.cost(against), m.evaluation.score) for m in study.measured if m.place <= place]
        reached = [known[i] for i in nondominated([(-score, cost) for cost, score in known])]
        curves.append(charts.steps(reached, study.colour(place), f"front after {round_name(one)}"))
    x = Axis.around([p.x for p in points] + [limit] * bool(limit))
    return card(
        "Front after each round",
        charts.scatter(points, COSTS[against].unit, "score", x, curves=curves, what="networks"),
    )


def _best_so_far(study: Findings) -> list[float | None]:
    """Best score, after each round, of measured networks that keep the budget."""
    best: list[float | None] = []
    for place in range(len(study.rounds)):
        scores = [m.evaluation.score for m in study.measured if m.place <= place and study.fits(m)]
        best.append(max(scores, default=None))
    return best


def _promises(one: Round) -> bool:
    """Did the round expect any network to keep the limits? A best score of 0 means no."""
    return one.number > 0 and one.best_score != 0 and math.isfinite(one.best_score)


def _best_card(study: Findings) -> Html:
    """Plot of the best measured scores beside those that evolution expected."""
    reached = [
        (one.number, best)
        for one, best in zip(study.rounds, _best_so_far(study), strict=True)
        if best is not None
    ]
    promised = [(one.number, one.best_score) for one in study.rounds if _promises(one)]
    points = [
        Point(
            n,
            best,
            "t4",
            title=f"round {n}: {number(best, 5)} expected to keep the limits",
            valid=False,
        )
        for n, best in promised
    ]
    points += [
        Point(n, best, "t0", title=f"round {n}: {number(best, 5)} measured to keep the budget")
        for n, best in reached
    ]
    keys = page.legend(
        [
            (charts.sample_mark("t0"), "measured so far"),
            (charts.sample_mark("t4", valid=False), "expected in the round"),
        ]
    )
    plot = charts.scatter(
        points, "round", "score", round_axis(study), curves=[Line(reached)], what="rounds"
    )
    return card("Best score within the limits", plot, keys)


def _rounds_table(study: Findings) -> Html:
    columns = ("round", "scored", "measured", "best score expected", "best score measured so far")
    rows = [
        [
            round_name(one),
            f"{one.evaluated:,}",
            len(one.picked),
            number(one.best_score, 5) if _promises(one) else "-",
            "none keeps the budget" if best is None else number(best, 5),
        ]
        for one, best in zip(study.rounds, _best_so_far(study), strict=True)
    ]
    return table(columns, rows, set())
