"""Section of a search's report on its front: score against cost."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeface.pages import charts, page
from edgeface.pages.charts import Axis, Point, number
from edgeface.pages.markup import Html, tag
from edgeface.pages.page import card, section, table
from edgeface.search.commands import export_command, train_command
from edgeface.search.findings import Findings, numbers, two_lines
from edgeface.search.options import FRONT
from edgeface.search.report_parts import (
    budget,
    figures,
    net_figures,
)
from edgeface.search.results import COSTS, FrontNet

LABEL = (0.06, 0.05)
"""width and height of a rank's label, as shares of the plot on a narrow screen"""


def front_section(study: Findings) -> Html:
    """Section with plots and a table of the front, score against cost."""
    head = "The front"
    if not study.measured and not study.front:
        return section(head, "Nothing was measured, so there is no front.")
    if not study.front:
        return section(
            head,
            "No network that was measured kept the limits. The nearest one:",
            _nearest(study),
            page.cards([_front_card(study, "latency")]),
        )
    text = (
        "Every network that was measured is a pale mark; those of the front are joined and have"
        " their rank beside them, where there is room. Hover a mark for its figures. A front is of"
        " measured figures only."
    )
    costs = dict.fromkeys((study.options.cost, "latency"))
    return section(
        head,
        text,
        page.legend(_front_keys(study)),
        page.cards(_front_card(study, c) for c in costs),
        tag("h3", "Networks of the front, cheapest first", class_="above"),
        _front_table(study),
        tag("h3", "From here to a file", class_="above"),
        tag("p", "In the folder of this page, with PHOTOS and FACES.csv of your own:"),
        tag("pre", _commands(study)),
    )


def _commands(study: Findings) -> str:
    """Commands that train each network of the front and make a file of it."""
    return "\n".join(
        train_command(f"{FRONT}#{rank}", net.architecture)
        + f"\n{export_command(net, study.options)}"
        for rank, net in enumerate(study.front, 1)
    )


def _front_keys(study: Findings) -> list[tuple[Html, str]]:
    keys = [(charts.sample_mark("t0"), "front"), (charts.sample_mark("t4 pale"), "measured")]
    if study.many_sizes:
        keys.append((Html(""), "smaller marks: smaller input"))
    return keys


def _nearest(study: Findings) -> Html:
    """The measured network nearest to the limits, shown if the front is empty."""
    nearest = min(study.measured, key=lambda m: (study.over(m), m.ms))
    over = study.over(nearest)
    above = f", {over:.0%} above the budget of {study.options.limits}" if over > 0 else ""
    return tag("p", tag("span", f"{figures(study, nearest)}{above}", class_="reason"))


def _front_card(study: Findings, against: str) -> Html:
    """Plot of score against the cost ``against``; a line joins the front if that is its cost."""
    pale = [
        Point(
            m.cost(against),
            m.evaluation.score,
            "t4 pale",
            title=figures(study, m),
            small=study.smaller(m.evaluation.size),
        )
        for m in study.others
    ]
    found = [(net.cost(against), net.score) for net in study.front]
    limit = study.options.budget_ms if against == "latency" else 0.0
    x = Axis.around([p.x for p in pale] + [cost for cost, _ in found] + [limit] * bool(limit))
    y = Axis.around([p.y for p in pale] + [score for _, score in found])
    ranks = _room_for_ranks([(x.share(cost), y.share(score)) for cost, score in found])
    marked = [
        Point(
            cost,
            score,
            "t0",
            title=net_figures(study, net, i),
            small=study.smaller(net.size),
            rank=rank,
        )
        for i, (net, (cost, score), rank) in enumerate(
            zip(study.front, found, ranks, strict=True), 1
        )
    ]
    curves = budget(limit) + [charts.steps(found)] * (against == study.options.cost)
    return card(
        f"Score against {against}",
        charts.scatter([*pale, *marked], COSTS[against].unit, "score", x, y, curves, "networks"),
    )


def _room_for_ranks(places: Sequence[tuple[float, float]]) -> list[int | None]:
    """Ranks 1, 2, ... of the marks; None where a rank would overlap an earlier one. ``places``:
    positions of the marks, as shares of the plot."""
    written: list[tuple[float, float]] = []
    ranks: list[int | None] = []
    for rank, (x, y) in enumerate(places, 1):
        free = all(abs(x - a) > LABEL[0] or abs(y - b) > LABEL[1] for a, b in written)
        ranks.append(rank if free else None)
        written += [(x, y)] * free
    return ranks


def _front_table(study: Findings) -> Html:
    columns = (
        "rank",
        tag("div", "name", class_="text"),
        "score",
        "measured ms",
        "predicted ms",
        "parameters",
        "MACs",
        "network",
    )
    rows = [
        (
            rank,
            tag("div", net.architecture.name, class_="text"),
            number(net.score, 5),
            two_lines(net.measured_ms, net.interval_ms),
            two_lines(net.predicted_ms, net.predicted_interval_ms),
            f"{net.params:,}",
            f"{net.macs / 1e6:,.0f} M",
            _network(net),
        )
        for rank, net in enumerate(study.front, 1)
    ]
    return table(columns, rows, {7})


def _network(net: FrontNet) -> Html:
    """Input, neck and head in words, and the structure string, which may wrap between its blocks
    but is copied as one piece."""
    backbone, neck, head = net.architecture.backbone, net.architecture.neck, net.architecture.head
    ends = (
        f"input {net.size}, neck {neck.kind} {neck.channels}, head {head.kind} {head.channels} x"
        f" {head.stack}{' depthwise' * head.depthwise}"
    )
    pieces = re.findall(r"[^)]*\)|[^)]+", net.architecture.structure) or [
        f"{backbone.kind}, widths {numbers(getattr(backbone, 'widths', ()))}, "
        f"depths {numbers(getattr(backbone, 'depths', ()))}"
    ]
    return tag(
        "div",
        tag("div", ends),
        *(tag("span", piece, class_="piece") for piece in pieces),
        class_="pieces",
    )
