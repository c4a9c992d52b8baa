"""report.html of a search: its options, its front, errors of predicted latency, and its history.

The page loads nothing and runs nothing, and equal input gives equal bytes. Text from records is
never interpreted as markup.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeface.architecture.layers import parts_of
from edgeface.backends import BACKENDS
from edgeface.errors import EdgefaceError, counted
from edgeface.files import write_text
from edgeface.options import parse_size
from edgeface.pages import charts, page
from edgeface.pages.charts import Axis, number
from edgeface.pages.markup import Html, tag
from edgeface.pages.page import section, strip_row
from edgeface.predict.table import LatencyTable
from edgeface.search.findings import Findings, duration, listed
from edgeface.search.options import StudyOptions
from edgeface.search.report_front import front_section
from edgeface.search.report_history import history
from edgeface.search.report_predictions import predictions
from edgeface.search.results import FrontNet, Round
from edgeface.search.scores.ddsar import STAGES

STRIDES = {2: "stem", 4: "c2", 8: "c3", 16: "c4", 32: "c5"}
"""stride -> stage that ends at it"""
PARTS = (*STAGES, "neck", "head")


def write_report(
    path: Path,
    options: StudyOptions,
    rounds: Sequence[Round],
    front: Sequence[FrontNet],
    tables: Mapping[str, LatencyTable],
) -> None:
    """Write the page, whole or not at all. ``tables``: latency table of each input size, WxH.
    Raises OutputError."""
    write_text(path, document(options, rounds, front, tables))


def document(
    options: StudyOptions,
    rounds: Sequence[Round],
    front: Sequence[FrontNet],
    tables: Mapping[str, LatencyTable],
) -> str:
    """The text of the page."""
    study = Findings(options, rounds, front, tables)
    limit = f" within {options.limits}" if options.limits else ""
    title = f"Search for {_runtime(options)} networks{limit}"
    return page.document(
        title,
        _summary(title, study),
        front_section(study),
        predictions(study),
        history(study),
        _makeup(study),
    )


def _runtime(options: StudyOptions) -> str:
    title = BACKENDS[options.target].title if options.target in BACKENDS else options.target
    return f"{title} {options.precision}"


def _summary(title: str, study: Findings) -> Html:
    """Header with the search's options and its effort."""
    o, found = study.options, list(study.tables.values())
    busy = sum(one.device_s for one in found)
    drifts = [one.drift for one in found if one.reference_ms]
    weights = ", ".join(
        f"{name} {number(w)}" for name, w in itertools.zip_longest(STAGES, o.weights, fillvalue=0)
    )
    rows = {
        "device": o.written.device,
        "processor": listed(one.cpu for one in found),
        "runtime": listed(one.runtime for one in found),
        "files": (f"{_runtime(o)}, {' or '.join(o.sizes)}, {counted(o.threads, 'thread')}"),
        "space": Path(o.space).name,
        "objective": _objective(o),
        "budget": o.limits or "none",
        "score": f"{o.score}, alpha {number(o.alpha)}",
        "stage weights": weights,
        "trials": f"{o.trials} of {o.trial_samples:,} crops" if o.trials else "none",
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


def _makeup(study: Findings) -> Html:
    """Section with the share of each stage in the networks of the front."""
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
    """Part -> share of the multiply-accumulates; empty if the layers cannot be listed."""
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
