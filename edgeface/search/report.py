"""report.html of a search: what was asked, the front, how well latency was predicted, and how the
front came about.

The page loads nothing and runs nothing, and equal input gives equal bytes. What a record says is
never taken for markup.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import parts_of
from edgeface.backends import BACKENDS
from edgeface.errors import EdgefaceError
from edgeface.files import atomic_write
from edgeface.options import parse_size
from edgeface.pages import charts, page
from edgeface.pages.charts import Axis, Line, Point, number
from edgeface.pages.markup import Html, tag
from edgeface.pages.page import card, section, strip_row, table
from edgeface.predict.table import LatencyTable
from edgeface.search.findings import (
    Findings,
    Measured,
    counted,
    duration,
    listed,
    mean_of,
    ms_text,
    numbers,
    prediction_text,
    two_lines,
)
from edgeface.search.options import StudyOptions
from edgeface.search.pareto import nondominated
from edgeface.search.results import COSTS, FrontNet, Round
from edgeface.search.scores.ddsar import STAGES

TOLERANCE = 0.10
"""share of the measured latency that a good prediction is off at most"""
STRIDES = {2: "stem", 4: "c2", 8: "c3", 16: "c4", 32: "c5"}
"""stage that ends at a stride"""
PARTS = (*STAGES, "neck", "head")
LABEL = (0.06, 0.05)
"""width and height of a rank in a plot of a narrow screen, as shares of the plot"""


def write_report(
    path: Path,
    options: StudyOptions,
    rounds: Sequence[Round],
    front: Sequence[FrontNet],
    tables: Mapping[str, LatencyTable],
) -> None:
    """Write the page, whole or not at all. ``tables``: of each input size, WxH. Raises
    OutputError."""
    text = document(options, rounds, front, tables)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def document(
    options: StudyOptions,
    rounds: Sequence[Round],
    front: Sequence[FrontNet],
    tables: Mapping[str, LatencyTable],
) -> str:
    """The text of the page."""
    study = Findings(options, rounds, front, tables)
    limit = f" within {number(options.budget_ms)} ms" if options.budget_ms else ""
    title = f"Search for {_runtime(options)} networks{limit}"
    return page.document(
        title,
        _summary(title, study),
        _front(study),
        _predictions(study),
        _history(study),
        _makeup(study),
    )


def _runtime(options: StudyOptions) -> str:
    title = BACKENDS[options.target].title if options.target in BACKENDS else options.target
    return f"{title} {options.precision}"


def _summary(title: str, study: Findings) -> Html:
    """What was asked, and what it took."""
    o, found = study.options, list(study.tables.values())
    busy = sum(one.device_s for one in found)
    drifts = [one.drift for one in found if one.reference_ms]
    weights = ", ".join(
        f"{name} {number(w)}" for name, w in itertools.zip_longest(STAGES, o.weights, fillvalue=0)
    )
    rows = {
        "device": o.device,
        "processor": listed(one.cpu for one in found),
        "runtime": listed(one.runtime for one in found),
        "files": (
            f"{_runtime(o)}, {' or '.join(o.sizes)}, {o.threads} thread{'s' * (o.threads != 1)}"
        ),
        "space": Path(o.space).name,
        "objective": _objective(o),
        "budget": f"{number(o.budget_ms)} ms" if o.budget_ms else "none",
        "score": f"{o.score}, alpha {number(o.alpha)}",
        "stage weights": weights,
        "seed": o.seed,
        "effort": (
            f"{o.first} networks{' of each size' * study.many_sizes} measured first, then"
            f" {counted(o.rounds, 'round')} of {o.generations} generations of {o.population}"
            f" networks, {o.picks} measured after each"
        ),
        "networks": (
            f"{sum(one.evaluated for one in study.rounds):,} scored, {len(study.measured):,}"
            " measured"
        ),
        "device time": duration(busy) if found else "not known",
        "disturbance": (
            f"the reference network took up to {max(drifts):.0%} more than at its quietest"
            if drifts
            else "not known"
        ),
    }
    return tag("header", tag("h1", title), page.facts(rows))


def _objective(o: StudyOptions) -> str:
    return {
        "budget": "best score within the budget",
        "pareto": f"front of score against {o.cost}",
        "weighted": f"score minus {number(o.exchange)} times the logarithm of {o.cost}",
    }[o.objective]


def _front(study: Findings) -> Html:
    """Score against what it costs."""
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
    )


def _front_keys(study: Findings) -> list[tuple[Html, str]]:
    keys = [(charts.sample_mark("t0"), "front"), (charts.sample_mark("t4 pale"), "measured")]
    if study.many_sizes:
        keys.append((Html(""), "smaller marks: smaller input"))
    return keys


def _nearest(study: Findings) -> Html:
    """What an empty front leaves to say."""
    nearest, budget = min(study.measured, key=lambda m: m.ms), study.options.budget_ms
    above = (
        f", {nearest.ms / budget - 1:.0%} above the budget of {number(budget)} ms"
        if budget < nearest.ms
        else ""
    )
    return tag(
        "p", tag("span", f"{_figures(study, nearest)}{above if budget else ''}", class_="reason")
    )


def _front_card(study: Findings, against: str) -> Html:
    """One plot. The front is joined where ``against`` is what it is of."""
    pale = [
        Point(
            m.cost(against),
            m.evaluation.score,
            "t4 pale",
            title=_figures(study, m),
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
            title=_net_figures(study, net, i),
            small=study.smaller(net.size),
            rank=rank,
        )
        for i, (net, (cost, score), rank) in enumerate(
            zip(study.front, found, ranks, strict=True), 1
        )
    ]
    curves = _budget(limit) + [charts.steps(found)] * (against == study.options.cost)
    return card(
        f"Score against {against}",
        charts.scatter([*pale, *marked], COSTS[against].unit, "score", x, y, curves, "networks"),
    )


def _room_for_ranks(places: Sequence[tuple[float, float]]) -> list[int | None]:
    """1, 2, ..., and None for a mark so near another that their ranks would overlap; places: shares
    of the plot."""
    written: list[tuple[float, float]] = []
    ranks: list[int | None] = []
    for rank, (x, y) in enumerate(places, 1):
        free = all(abs(x - a) > LABEL[0] or abs(y - b) > LABEL[1] for a, b in written)
        ranks.append(rank if free else None)
        written += [(x, y)] * free
    return ranks


def _budget(limit: float) -> list[Line]:
    """The upright line of a budget, if there is one."""
    name = f"budget {number(limit)} ms"
    return [Line(((limit, -math.inf), (limit, math.inf)), "limit", name, name)] if limit else []


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
    """Its parts in words, and the structure string, which may be wrapped between its blocks and is
    copied as one."""
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


def _predictions(study: Findings) -> Html:
    """Predicted against measured."""
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
        page.legend(_round_keys(study, sorted({m.place for m in known}))),
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
            title=_figures(study, m),
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
    """What is within the tolerance, where both axes are ``axis``, and the line of perfect
    predictions."""
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


def _round_keys(study: Findings, places: Iterable[int]) -> list[tuple[Html, str]]:
    return [
        (charts.sample_mark(study.colour(place)), _round_name(study.rounds[place]))
        for place in places
    ]


def _round_name(one: Round) -> str:
    return f"round {one.number}" if one.number else "before evolution"


def _history(study: Findings) -> Html:
    """How the front came about."""
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
        page.legend(_round_keys(study, range(len(study.rounds)))),
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
            title=_figures(study, m),
            small=True,
        )
        for m in study.measured
    ]
    limit = study.options.budget_ms if against == "latency" else 0.0
    curves = _budget(limit)
    for place, one in enumerate(study.rounds):
        known = [(m.cost(against), m.evaluation.score) for m in study.measured if m.place <= place]
        reached = [known[i] for i in nondominated([(-score, cost) for cost, score in known])]
        curves.append(charts.steps(reached, study.colour(place), f"front after {_round_name(one)}"))
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
    """Was anything expected to keep the limits? A best score of 0 says no."""
    return one.number > 0 and one.best_score != 0 and math.isfinite(one.best_score)


def _best_card(study: Findings) -> Html:
    """Measured beside what evolution promised."""
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
        points, "round", "score", _round_axis(study), curves=[Line(reached)], what="rounds"
    )
    return card("Best score within the limits", plot, keys)


def _errors_card(study: Findings) -> Html:
    """Of each prediction, and their mean."""
    points, means = [], []
    for place, group in itertools.groupby(study.predicted, lambda m: m.place):
        found, one = list(group), study.rounds[place]
        points += [
            Point(
                one.number,
                100 * abs(m.error),
                f"{study.colour(place)} pale",
                title=_figures(study, m),
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
        _round_axis(study),
        y,
        [good, Line([(p.x, p.y) for p in means])],
        "networks",
    )
    keys = page.legend(
        [(charts.sample_mark("t4", "int8"), "mean"), (charts.sample_mark("t4 pale"), "one network")]
    )
    return card("Error in each round", plot, keys)


def _round_axis(study: Findings) -> Axis:
    """Whole numbers."""
    last = max(1, *(one.number for one in study.rounds))
    step = math.ceil(last / 8)
    return Axis(0, step * math.ceil(last / step), step)


def _rounds_table(study: Findings) -> Html:
    columns = ("round", "scored", "measured", "best score expected", "best score measured so far")
    rows = [
        [
            _round_name(one),
            f"{one.evaluated:,}",
            len(one.picked),
            number(one.best_score, 5) if _promises(one) else "-",
            "none keeps the budget" if best is None else number(best, 5),
        ]
        for one, best in zip(study.rounds, _best_so_far(study), strict=True)
    ]
    return table(columns, rows, set())


def _makeup(study: Findings) -> Html:
    """What the winners are made of."""
    if not study.front:
        return Html("")
    text = (
        "Share of the multiply-accumulates in each stage; c2 to c5 end at strides 4 to 32. A first"
        " convolution of stride 4 is the c2 of its network."
    )
    axis, rows = Axis(0.0, 100.0, 25.0), []
    for rank, net in enumerate(study.front, 1):
        said = tag(
            "span", f"{net.macs / 1e6:,.0f} M MACs, {number(net.measured_ms)} ms", class_="figure"
        )
        shares = _shares(net)
        strip = (
            charts.stack(
                [(name, 100 * share) for name, share in shares.items()], axis, "% of the MACs"
            )
            if shares
            else tag("span", "its layers are not listed", class_="soft")
        )
        rows.append(strip_row(f"{rank} {net.architecture.name}", said, strip))
    return section(
        "What the winners are made of",
        text,
        page.legend((charts.swatch(name), name) for name in PARTS),
        tag("div", *rows, class_="short"),
    )


def _shares(net: FrontNet) -> dict[str, float]:
    """Part -> share of the multiply-accumulates; empty where the layers cannot be listed."""
    try:
        parts = parts_of(net.architecture, *parse_size(net.size))
    except EdgefaceError:
        return {}
    macs, stride = dict.fromkeys(PARTS, 0), 1
    for part in parts[:-2]:
        stride *= part.stride
        macs[STRIDES.get(stride, "stem")] += part.macs
    macs["neck"], macs["head"] = parts[-2].macs, parts[-1].macs
    return {name: value / sum(macs.values()) for name, value in macs.items() if value}


def _figures(study: Findings, m: Measured) -> str:
    e = m.evaluation
    return (
        f"{_named(study, e.architecture, e.size)}: score {number(e.score, 5)}, measured"
        f" {ms_text(m.ms, m.interval_ms)} ms, predicted"
        f" {prediction_text(e.predicted_ms, e.interval_ms)}, {_round_name(study.rounds[m.place])}"
    )


def _net_figures(study: Findings, net: FrontNet, rank: int) -> str:
    return (
        f"{rank}: {_named(study, net.architecture, net.size)}: score {number(net.score, 5)},"
        f" measured {ms_text(net.measured_ms, net.interval_ms)} ms, predicted"
        f" {prediction_text(net.predicted_ms, net.predicted_interval_ms)}, {net.params:,}"
        f" parameters, {net.macs / 1e6:,.0f} M MACs"
    )


def _named(study: Findings, architecture: Architecture, size: str) -> str:
    return f"{architecture.name} at {size}" if study.many_sizes else architecture.name
