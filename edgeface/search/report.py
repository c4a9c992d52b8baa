"""report.html of a search: what was asked, the front, how well latency was predicted, and how the front came about.

The page loads nothing and runs nothing, and equal input gives equal bytes. What a record says is never taken for
markup.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import parts_of
from edgeface.backends import BACKENDS
from edgeface.errors import EdgefaceError
from edgeface.files import atomic_write
from edgeface.options import parse_size
from edgeface.pages import charts, page
from edgeface.pages.charts import Axis, Curve, Point, number
from edgeface.pages.markup import Html, join, tag
from edgeface.pages.page import card, section, strip_row, table
from edgeface.predict.table import LatencyTable, anonymous
from edgeface.search.options import Evaluation, FrontNet, Round, StudyOptions
from edgeface.search.pareto import nondominated
from edgeface.search.scores.ddsar import STAGES

TOLERANCE = 0.10
"""share of the measured latency that a good prediction is off at most"""
COST_UNITS = {"latency": "measured ms", "size": "parameters", "memory": "values of the largest layer"}
STRIDES = {2: "stem", 4: "c2", 8: "c3", 16: "c4", 32: "c5"}
"""stage that ends at a stride"""
PARTS = (*STAGES, "neck", "head")
LABEL = (0.06, 0.05)
"""width and height of a rank in a plot of a narrow screen, as shares of the plot"""
COLOURS = 5
"""of rounds of evolution; the sixth is that of the networks measured before"""


@dataclass(frozen=True)
class Measured:
    """A network that was sent to the device."""

    evaluation: Evaluation
    ms: float
    place: int
    """of its round"""
    interval_ms: tuple[float, float] | None
    """95 %, where a table has it"""

    @property
    def predicted(self) -> bool:
        """Networks measured before there was a model have no prediction."""
        return self.evaluation.predicted_ms > 0 and self.ms > 0

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
class Study:
    """All that the page is about."""

    options: StudyOptions
    rounds: Sequence[Round]
    front: Sequence[FrontNet]
    tables: Mapping[str, LatencyTable]

    @cached_property
    def measured(self) -> list[Measured]:
        """Every network that was measured, in order."""
        shares = {(size, anonymous(r.architecture)): (r.low / r.ratio, r.high / r.ratio)
                  for size, found in self.tables.items() for r in found.records}
        networks = []
        for place, one in enumerate(self.rounds):
            for evaluation, ms in zip(one.picked, one.measured_ms, strict=True):
                share = shares.get((evaluation.size, anonymous(evaluation.architecture)))
                networks.append(Measured(evaluation, ms, place, (share[0] * ms, share[1] * ms) if share else None))
        return networks

    @property
    def predicted(self) -> list[Measured]:
        """Those whose latency was predicted before."""
        return [m for m in self.measured if m.predicted]

    @property
    def winners(self) -> list[Measured]:
        """The front, as far as predicted. Its figures are the last ones, and its predictions those of a model that
        never saw it."""
        places = {one.number: place for place, one in enumerate(self.rounds)}
        found = [Measured(Evaluation(net.architecture, net.size, net.score, 0.0, net.predicted_ms,
                                     net.predicted_interval_ms), net.measured_ms, places[net.round], net.interval_ms)
                 for net in self.front if net.round in places]
        return [m for m in found if m.predicted]

    @property
    def many_sizes(self) -> bool:
        """Must a network's input size be told?"""
        return len(self.options.sizes) > 1

    @cached_property
    def others(self) -> list[Measured]:
        """Those measured that are not of the front."""
        kept = {(net.size, anonymous(net.architecture)) for net in self.front}
        return [m for m in self.measured if (m.evaluation.size, anonymous(m.evaluation.architecture)) not in kept]

    def smaller(self, size: str) -> bool:
        """Is ``size`` below the largest input?"""
        return _pixels(size) < max(map(_pixels, self.options.sizes))

    def fits(self, network: Measured) -> bool:
        """Does it keep the budget, if there is one?"""
        return not self.options.budget_ms or network.ms <= self.options.budget_ms

    def colour(self, place: int) -> str:
        """Class of a round's colour: the later the stronger, grey before any evolution."""
        if not self.rounds[place].number:
            return "h0"
        later = [i for i, one in enumerate(self.rounds) if one.number]
        return f"h{COLOURS - round((COLOURS - 1) * (later[-1] - place) / max(1, later[-1] - later[0]))}"


def write_report(path: Path, options: StudyOptions, rounds: Sequence[Round], front: Sequence[FrontNet],
                 tables: Mapping[str, LatencyTable]) -> None:
    """Write the page, whole or not at all. ``tables``: of each input size, WxH. Raises OutputError."""
    text = document(options, rounds, front, tables)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def document(options: StudyOptions, rounds: Sequence[Round], front: Sequence[FrontNet],
             tables: Mapping[str, LatencyTable]) -> str:
    """The text of the page."""
    study = Study(options, rounds, front, tables)
    limit = f" within {number(options.budget_ms)} ms" if options.budget_ms else ""
    title = f"Search for {_runtime(options)} networks{limit}"
    return page.document(title, _summary(title, study), _front(study), _predictions(study), _history(study),
                         _makeup(study))


def _runtime(options: StudyOptions) -> str:
    title = BACKENDS[options.target].title if options.target in BACKENDS else options.target
    return f"{title} {options.precision}"


def _summary(title: str, study: Study) -> Html:
    """What was asked, and what it took."""
    o, found = study.options, list(study.tables.values())
    busy = sum(one.device_s for one in found)
    drifts = [one.drift for one in found if one.reference_ms]
    weights = ", ".join(f"{name} {number(w)}" for name, w in itertools.zip_longest(STAGES, o.weights, fillvalue=0))
    rows = {
        "device": o.device,
        "processor": _listed(one.cpu for one in found),
        "runtime": _listed(one.runtime for one in found),
        "files": f"{_runtime(o)}, {' or '.join(o.sizes)}, {o.threads} thread{'s' * (o.threads != 1)}",
        "space": Path(o.space).name,
        "objective": _objective(o),
        "budget": f"{number(o.budget_ms)} ms" if o.budget_ms else "none",
        "score": f"{o.score}, alpha {number(o.alpha)}",
        "stage weights": weights,
        "seed": o.seed,
        "effort": f"{o.first} networks{' of each size' * study.many_sizes} measured first, then "
                  f"{_counted(o.rounds, 'round')} of {o.generations} generations of {o.population} networks, {o.picks} "
                  "measured after each",
        "networks": f"{sum(one.evaluated for one in study.rounds):,} scored, {len(study.measured):,} measured",
        "device time": _duration(busy) if found else "not known",
        "disturbance": f"the reference network took up to {max(drifts):.0%} more than at its quietest"
                       if drifts else "not known",
    }
    return tag("header", tag("h1", title), page.facts(rows))


def _objective(o: StudyOptions) -> str:
    return {"budget": "best score within the budget", "pareto": f"front of score against {o.cost}",
            "weighted": f"score minus {number(o.exchange)} times the logarithm of {o.cost}"}[o.objective]


def _front(study: Study) -> Html:
    """Score against what it costs."""
    head = "The front"
    if not study.measured and not study.front:
        return section(head, "Nothing was measured, so there is no front.")
    if not study.front:
        return section(head, "No network that was measured kept the limits. The nearest one:", _nearest(study),
                       page.cards([_front_card(study, "latency")]))
    text = ("Every network that was measured is a pale mark; those of the front are joined and have their rank beside "
            "them, where there is room. Hover a mark for its figures. A front is of measured figures only.")
    costs = dict.fromkeys((study.options.cost, "latency"))
    return section(head, text, page.legend(_front_keys(study)), page.cards(_front_card(study, c) for c in costs),
                   tag("h3", "Networks of the front, cheapest first", class_="above"), _front_table(study))


def _front_keys(study: Study) -> list[tuple[Html, str]]:
    keys = [(charts.sample_mark("t0"), "front"), (charts.sample_mark("t4 pale"), "measured")]
    if study.many_sizes:
        keys.append((Html(""), "smaller marks: smaller input"))
    return keys


def _nearest(study: Study) -> Html:
    """What an empty front leaves to say."""
    nearest, budget = min(study.measured, key=lambda m: m.ms), study.options.budget_ms
    above = f", {nearest.ms / budget - 1:.0%} above the budget of {number(budget)} ms" if budget < nearest.ms else ""
    return tag("p", tag("span", f"{_figures(study, nearest)}{above if budget else ''}", class_="reason"))


def _front_card(study: Study, against: str) -> Html:
    """One plot. The front is joined where ``against`` is what it is of."""
    pale = [Point(_cost(m, against), m.evaluation.score, "t4 pale", title=_figures(study, m),
                  small=study.smaller(m.evaluation.size)) for m in study.others]
    found = [(_cost(net, against), net.score) for net in study.front]
    limit = study.options.budget_ms if against == "latency" else 0.0
    x = Axis.around([p.x for p in pale] + [cost for cost, _ in found] + [limit] * bool(limit))
    y = Axis.around([p.y for p in pale] + [score for _, score in found])
    ranks = _room_for_ranks([(x.share(cost), y.share(score)) for cost, score in found])
    marked = [Point(cost, score, "t0", title=_net_figures(study, net, i), small=study.smaller(net.size), rank=rank)
              for i, (net, (cost, score), rank) in enumerate(zip(study.front, found, ranks, strict=True), 1)]
    curves = _budget(limit) + [charts.steps(found)] * (against == study.options.cost)
    return card(f"Score against {against}", charts.scatter([*pale, *marked], COST_UNITS[against], "score", x, y, curves,
                                                           "networks"))


def _cost(network: Measured | FrontNet, what: str) -> float:
    if isinstance(network, Measured):
        return network.ms if what == "latency" else network.evaluation.cost
    return {"latency": network.measured_ms, "size": network.params, "memory": network.memory}[what]


def _room_for_ranks(places: Sequence[tuple[float, float]]) -> list[int | None]:
    """1, 2, ..., and None for a mark so near another that their ranks would overlap; places: shares of the plot."""
    written: list[tuple[float, float]] = []
    ranks: list[int | None] = []
    for rank, (x, y) in enumerate(places, 1):
        free = all(abs(x - a) > LABEL[0] or abs(y - b) > LABEL[1] for a, b in written)
        ranks.append(rank if free else None)
        written += [(x, y)] * free
    return ranks


def _budget(limit: float) -> list[Curve]:
    """The upright line of a budget, if there is one."""
    name = f"budget {number(limit)} ms"
    return [Curve(((limit, -math.inf), (limit, math.inf)), "limit", name, name)] if limit else []


def _front_table(study: Study) -> Html:
    columns = ("rank", tag("div", "name", class_="text"), "score", "measured ms", "predicted ms", "parameters", "MACs",
               "network")
    rows = [(rank, tag("div", net.architecture.name, class_="text"), number(net.score, 5),
             _two_lines(net.measured_ms, net.interval_ms), _two_lines(net.predicted_ms, net.predicted_interval_ms),
             f"{net.params:,}", f"{net.macs / 1e6:,.0f} M", _network(net)) for rank, net in enumerate(study.front, 1)]
    return table(columns, rows, {7})


def _network(net: FrontNet) -> Html:
    """Its parts in words, and the structure string, which may be wrapped between its blocks and is copied as one."""
    backbone, neck, head = net.architecture.backbone, net.architecture.neck, net.architecture.head
    ends = (f"input {net.size}, neck {neck.kind} {neck.channels}, head {head.kind} {head.channels} x {head.stack}"
            f"{' depthwise' * head.depthwise}")
    pieces = re.findall(r"[^)]*\)|[^)]+", backbone.structure) or [
        f"{backbone.kind}, widths {_numbers(backbone.widths)}, depths {_numbers(backbone.depths)}"]
    return tag("div", tag("div", ends), *(tag("span", piece, class_="piece") for piece in pieces), class_="pieces")


def _predictions(study: Study) -> Html:
    """Predicted against measured."""
    head, winners = "Predicted against measured", study.winners
    known = study.predicted + [m for m in winners if not study.rounds[m.place].number]
    if not known:
        return section(head, "No prediction was put to the test: nothing was measured after a round of evolution.")
    text = (f"Each mark is a network whose latency was predicted before it was measured; the band is {TOLERANCE:.0%} "
            "either way of what was measured. At the end, each network of the front is predicted once more, "
            "by a model fitted to all others: those from before any evolution are drawn so, the others as they were "
            "predicted first.")
    both = Axis.around([ms for m in known for ms in (m.ms, m.evaluation.predicted_ms)])
    points = [Point(m.ms, m.evaluation.predicted_ms, study.colour(m.place), title=_figures(study, m), small=True)
              for m in known]
    plot = charts.scatter(points, "measured ms", "predicted ms", both, both, _band(both), "networks")
    found = [card("Latency of each network", plot)] + ([_errors_card(study)] if study.predicted else [])
    groups = [(f"round {one.number}", [m for m in study.predicted if m.place == place])
              for place, one in enumerate(study.rounds)]
    groups += [("all rounds", study.predicted), ("the front", winners)]
    rows = [_error_row(name, group) for name, group in groups if group]
    columns = ("networks of", "predicted", f"within {TOLERANCE:.0%}", "in the 95 % interval", "mean error",
               "largest error", "mean, signed")
    return section(head, text, page.legend(_round_keys(study, sorted({m.place for m in known}))), page.cards(found),
                   tag("h3", "Errors, as shares of the measured latency", class_="above"), table(columns, rows, set()))


def _band(axis: Axis) -> list[Curve]:
    """What is within the tolerance, where both axes are ``axis``, and the line of perfect predictions."""
    low, high = axis.low, axis.high
    corners = ((low, low), (low, low * (1 + TOLERANCE)), (high / (1 + TOLERANCE), high), (high, high),
               (high, high * (1 - TOLERANCE)), (low / (1 - TOLERANCE), low))
    return [Curve(corners, "band", f"within {TOLERANCE:.0%} of what was measured"),
            Curve(((low, low), (high, high)), "even", "predicted as measured")]


def _error_row(name: str, found: Sequence[Measured]) -> list[object]:
    errors = [m.error for m in found]
    good = sum(abs(e) <= TOLERANCE for e in errors)
    return [name, len(found), f"{good} ({good / len(found):.0%})", sum(m.inside for m in found),
            f"{_mean(map(abs, errors)):.1%}", f"{max(map(abs, errors)):.1%}", f"{_mean(errors):+.1%}"]


def _round_keys(study: Study, places: Iterable[int]) -> list[tuple[Html, str]]:
    return [(charts.sample_mark(study.colour(place)), _round_name(study.rounds[place])) for place in places]


def _round_name(one: Round) -> str:
    return f"round {one.number}" if one.number else "before evolution"


def _history(study: Study) -> Html:
    """How the front came about."""
    head = "How it came about"
    if not study.measured:
        return section(head, "Nothing was measured.")
    text = ("Colours tell when a network was measured; each stepped line is the front of all that had been measured by "
            "the end of that round.")
    return section(head, text, page.legend(_round_keys(study, range(len(study.rounds)))),
                   page.cards([_fronts_card(study), _best_card(study)]), tag("h3", "Rounds", class_="above"),
                   _rounds_table(study))


def _fronts_card(study: Study) -> Html:
    against = study.options.cost
    points = [Point(_cost(m, against), m.evaluation.score, f"{study.colour(m.place)} pale", title=_figures(study, m),
                    small=True) for m in study.measured]
    limit = study.options.budget_ms if against == "latency" else 0.0
    curves = _budget(limit)
    for place, one in enumerate(study.rounds):
        known = [(_cost(m, against), m.evaluation.score) for m in study.measured if m.place <= place]
        reached = [known[i] for i in nondominated([(-score, cost) for cost, score in known])]
        curves.append(charts.steps(reached, study.colour(place), f"front after {_round_name(one)}"))
    x = Axis.around([p.x for p in points] + [limit] * bool(limit))
    return card("Front after each round", charts.scatter(points, COST_UNITS[against], "score", x, curves=curves,
                                                         what="networks"))


def _best_so_far(study: Study) -> list[float | None]:
    """Best score, after each round, of measured networks that keep the budget."""
    best: list[float | None] = []
    for place in range(len(study.rounds)):
        scores = [m.evaluation.score for m in study.measured if m.place <= place and study.fits(m)]
        best.append(max(scores, default=None))
    return best


def _promises(one: Round) -> bool:
    """Was anything expected to keep the limits? A best score of 0 says no."""
    return one.number > 0 and one.best_score != 0 and math.isfinite(one.best_score)


def _best_card(study: Study) -> Html:
    """Measured beside what evolution promised."""
    reached = [(one.number, best) for one, best in zip(study.rounds, _best_so_far(study), strict=True)
               if best is not None]
    promised = [(one.number, one.best_score) for one in study.rounds if _promises(one)]
    points = [Point(n, best, "t4", title=f"round {n}: {number(best, 5)} expected to keep the limits", valid=False)
              for n, best in promised]
    points += [Point(n, best, "t0", title=f"round {n}: {number(best, 5)} measured to keep the budget")
               for n, best in reached]
    keys = page.legend([(charts.sample_mark("t0"), "measured so far"),
                        (charts.sample_mark("t4", valid=False), "expected in the round")])
    plot = charts.scatter(points, "round", "score", _round_axis(study), curves=[Curve(reached)], what="rounds")
    return card("Best score within the limits", plot, keys)


def _errors_card(study: Study) -> Html:
    """Of each prediction, and their mean."""
    points, means = [], []
    for place, group in itertools.groupby(study.predicted, lambda m: m.place):
        found, one = list(group), study.rounds[place]
        points += [Point(one.number, 100 * abs(m.error), f"{study.colour(place)} pale", title=_figures(study, m),
                         small=True) for m in found]
        mean = 100 * _mean(abs(m.error) for m in found)
        means.append(Point(one.number, mean, study.colour(place), "int8",
                           f"round {one.number}: {number(mean, 3)} % in the mean"))
    y = Axis.around([0.0, 100 * TOLERANCE, *(p.y for p in points)])
    good = Curve(((-math.inf, 100 * TOLERANCE), (math.inf, 100 * TOLERANCE)), "limit", f"{TOLERANCE:.0%}")
    plot = charts.scatter([*points, *means], "round", "error of the prediction, %", _round_axis(study), y,
                          [good, Curve([(p.x, p.y) for p in means])], "networks")
    keys = page.legend([(charts.sample_mark("t4", "int8"), "mean"), (charts.sample_mark("t4 pale"), "one network")])
    return card("Error in each round", plot, keys)


def _round_axis(study: Study) -> Axis:
    """Whole numbers."""
    last = max(1, *(one.number for one in study.rounds))
    step = math.ceil(last / 8)
    return Axis(0, step * math.ceil(last / step), step)


def _rounds_table(study: Study) -> Html:
    columns = ("round", "scored", "measured", "best score expected", "best score measured so far")
    rows = [[_round_name(one), f"{one.evaluated:,}", len(one.picked),
             number(one.best_score, 5) if _promises(one) else "-",
             "none keeps the budget" if best is None else number(best, 5)]
            for one, best in zip(study.rounds, _best_so_far(study), strict=True)]
    return table(columns, rows, set())


def _makeup(study: Study) -> Html:
    """What the winners are made of."""
    if not study.front:
        return Html("")
    text = ("Share of the multiply-accumulates in each stage; c2 to c5 end at strides 4 to 32. A first convolution of "
            "stride 4 is the c2 of its network.")
    axis, rows = Axis(0.0, 100.0, 25.0), []
    for rank, net in enumerate(study.front, 1):
        said = tag("span", f"{net.macs / 1e6:,.0f} M MACs, {number(net.measured_ms)} ms", class_="figure")
        shares = _shares(net)
        strip = charts.stack([(name, 100 * share) for name, share in shares.items()], axis, "% of the MACs") \
            if shares else tag("span", "its layers are not listed", class_="soft")
        rows.append(strip_row(f"{rank} {net.architecture.name}", said, strip))
    return section("What the winners are made of", text, page.legend((charts.swatch(name), name) for name in PARTS),
                   tag("div", *rows, class_="short"))


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


def _figures(study: Study, m: Measured) -> str:
    e = m.evaluation
    return (f"{_named(study, e.architecture, e.size)}: score {number(e.score, 5)}, measured {_ms(m.ms, m.interval_ms)} "
            f"ms, predicted {_prediction(e.predicted_ms, e.interval_ms)}, {_round_name(study.rounds[m.place])}")


def _net_figures(study: Study, net: FrontNet, rank: int) -> str:
    return (f"{rank}: {_named(study, net.architecture, net.size)}: score {number(net.score, 5)}, measured "
            f"{_ms(net.measured_ms, net.interval_ms)} ms, predicted "
            f"{_prediction(net.predicted_ms, net.predicted_interval_ms)}, {net.params:,} parameters, "
            f"{net.macs / 1e6:,.0f} M MACs")


def _named(study: Study, architecture: Architecture, size: str) -> str:
    return f"{architecture.name} at {size}" if study.many_sizes else architecture.name


def _ms(value: float, interval: tuple[float, float] | None) -> str:
    return f"{number(value)} ({_range(interval)})" if interval else number(value)


def _range(interval: tuple[float, float]) -> str:
    return f"{number(interval[0])} to {number(interval[1])}"


def _prediction(value: float, interval: tuple[float, float]) -> str:
    return f"{_ms(value, interval)} ms" if value > 0 else "not at all"


def _two_lines(value: float, interval: tuple[float, float]) -> Html:
    """For a cell, which ought to be narrow."""
    return join([number(value), tag("div", _range(interval), class_="soft")]) if value > 0 else Html("-")


def _pixels(size: str) -> int:
    try:
        return math.prod(parse_size(size))
    except EdgefaceError:  # of a record: shown as it is
        return 0


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values)) or "not known"


def _numbers(values: Iterable[int]) -> str:
    return " ".join(map(str, values)) or "none"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
