"""``python -m benchmarks.report LATENCY.json...``: one HTML report of measurements, which opens
offline.

The page loads and runs nothing, which its own policy enforces: pictures are inline SVG. Equal input
gives equal bytes. Text in records is escaped.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from benchmarks.report_parts import (
    Records,
    colour,
    figure,
    grouped,
    row,
    target_title,
)
from benchmarks.report_ratios import float_against_int8, peers
from benchmarks.report_tables import everything, validity
from benchmarks.results import CONTEXT, REPORT, Accuracy, Context, load_context, order
from edgeface.backends import BACKENDS
from edgeface.cli.flags import Argument, program_of
from edgeface.cli.output import say
from edgeface.errors import counted
from edgeface.files import write_text
from edgeface.latency.measurement import Measurement, load_measurements
from edgeface.pages import charts, page
from edgeface.pages.charts import Axis, Point
from edgeface.pages.markup import Html, tag
from edgeface.pages.page import card, section
from edgeface.search.pareto import nondominated

STAGES = ("preprocess", "network", "postprocess")
HEADROOM = 1.1
"""end of an axis, as a multiple of the largest p90: one outlier must not squeeze all others"""


def write_report(path: Path, records: Records, context: Context) -> None:
    """Write the page, whole or not at all. Raises OutputError."""
    text = document(sorted(records, key=order), context)
    write_text(path, text)


def document(records: Records, context: Context) -> str:
    """The text of the page."""
    title = (
        "Latency of " + ", ".join(dict.fromkeys(r.model for r in records))
        if records
        else "Latency: no records"
    )
    return page.document(
        title,
        summary(title, records),
        pareto(records, context),
        distributions(records),
        stages(records),
        float_against_int8(records, context),
        peers(context),
        validity(records),
        everything(records),
        left_out(context),
    )


def summary(title: str, records: Records) -> Html:
    """Head of the page: title, how many records are valid, and the devices."""
    valid = sum(r.valid for r in records)
    counts = f"{valid} of {len(records)} records are valid."
    advice = (
        ""
        if valid == len(records)
        else (
            " The others are drawn pale or hollow and name their reason: their figures must not be"
            " used."
        )
    )
    return tag(
        "header",
        tag("h1", title),
        tag("p", counts, advice),
        *(
            machine(device, list(group))
            for device, group in itertools.groupby(records, lambda r: r.device)
        ),
    )


def machine(device: str, records: Records) -> Html:
    """Facts of one device: hardware, system, and the runtimes and protocols of its records."""
    found = records[0].environment.machine
    runtimes = dict.fromkeys(r.runtime for r in records)
    protocols = dict.fromkeys(
        f"{r.protocol.rounds} rounds of {r.protocol.per_round} images, "
        f"{r.protocol.photo_width}x{r.protocol.photo_height} px photo"
        for r in records
    )
    memory = "" if found.memory_bytes is None else f", {found.memory_bytes / 1e9:.1f} GB"
    rows = {
        "device": device,
        "processor": f"{found.cpu}, {found.cores} cores ({found.architecture}){memory}",
        "instructions": ", ".join(found.flags) or "not shown",
        "governor": found.governor or "not shown",
        "system": f"{found.system}, Python {found.python}",
        "runtimes": ", ".join(runtimes),
        "protocol": "; ".join(protocols),
    }
    return page.facts(rows)


def pareto(records: Records, context: Context) -> Html:
    """AP against latency; one picture for each device and number of threads."""
    known = [
        (r, a) for r in records if (a := context.accuracy_of(r)) is not None and a.hard is not None
    ]
    if not known:
        return section(
            "Accuracy against latency",
            "No accuracy is known of these files: make bench-export or make "
            "quantize with DATA, a WIDER FACE root, measures it.",
        )
    photos = sorted({a.images for _, a in known})
    text = (
        f"AP hard on WIDER FACE validation photos ({', '.join(map(str, photos))} of them) against"
        " the median time of the network. The dashed line is the frontier: no valid file is both"
        " faster and better. Hover a mark for its figures."
    )
    if len(photos) > 1:
        text += " The files were evaluated on different numbers of photos: compare those with care."
    cards = [
        _pareto_card(key, list(group))
        for key, group in itertools.groupby(sorted(known, key=_pareto_key), _pareto_key)
    ]
    missing = dict.fromkeys(r.bundle for r in records if context.accuracy_of(r) is None)
    note = (
        [tag("p", f"Without known accuracy: {', '.join(missing)}.", class_="soft")]
        if missing
        else []
    )
    return section("Accuracy against latency", text, legend(records), page.cards(cards), *note)


def _pareto_key(item: tuple[Measurement, Accuracy]) -> tuple[str, int]:
    return item[0].device, item[0].threads


def _pareto_card(key: tuple[str, int], known: list[tuple[Measurement, Accuracy]]) -> Html:
    front = frontier([(r.network_ms.median, a.hard or 0.0) if r.valid else None for r, a in known])
    largest = max(r.width * r.height for r, _ in known)
    points, ranked = [], []
    for (r, a), rank in zip(known, front, strict=True):
        title = f"{r.bundle}: AP {100 * (a.hard or 0):.2f}, {r.figure()}"
        points.append(
            Point(
                r.network_ms.median,
                100 * (a.hard or 0),
                colour(r.target),
                r.precision,
                title,
                r.width * r.height < largest,
                r.valid,
                rank,
            )
        )
        if rank is not None:
            ranked.append((rank, title))
    steps = charts.steps([(p.x, p.y) for p in points if p.rank is not None])
    listed = tag("ol", *(tag("li", title) for _, title in sorted(ranked)))
    return card(
        f"{key[0]}, {counted(key[1], 'thread')}",
        charts.scatter(points, "network, median ms", "AP hard, points", curves=[steps]),
        listed if ranked else tag("p", "No valid record, so no frontier.", class_="reason"),
    )


def frontier(points: Sequence[tuple[float, float] | None]) -> list[int | None]:
    """1, 2, ... for the points that no other one beats, fastest first; None for the others.

    points: (cost, value), or None for one that takes no part.
    """
    there = [
        (cost, -value, i) for i, point in enumerate(points) if point for cost, value in (point,)
    ]
    best = sorted(there[k] for k in nondominated([(negative, cost) for cost, negative, _ in there]))
    ranks: list[int | None] = [None] * len(points)
    for rank, (_, _, i) in enumerate(best, 1):
        ranks[i] = rank
    return ranks


def distributions(records: Records) -> Html:
    """Strips with every sample of the network time."""
    text = (
        "Time of the network, array in to arrays out. Each dot is one image, the first round at the"
        " top of its strip and the last at the bottom, so a drift shows as a slant. Solid line:"
        " median; dashed: p90. Samples beyond the axis lie on its right end."
    )

    def rows(group: Records) -> tuple[list[Html], Axis]:
        axis = Axis.around([HEADROOM * r.network_ms.p90 for r in group], zero=True)
        return [
            row(
                r,
                charts.dots(
                    r.samples["network"].wall_ms if r.samples else (),
                    (("median", r.network_ms.median), ("p90", r.network_ms.p90)),
                    axis,
                    colour(r.target),
                ),
                figure(r),
                group,
            )
            for r in group
        ], axis

    return section("Distributions", text, page.cards(grouped(records, rows)))


def stages(records: Records) -> Html:
    """Median time of each stage of an image."""
    text = (
        "Medians of one photo's way to its faces: letterboxing, the network, decoding and NMS. To"
        " the right: all."
    )

    def rows(group: Records) -> tuple[list[Html], Axis]:
        parts = [[(name, getattr(r, f"{name}_ms").median) for name in STAGES] for r in group]
        axis = Axis.around([sum(max(0.0, value) for _, value in p) for p in parts], zero=True)
        return [
            row(r, charts.stack(p, axis), figure(r, "end_to_end"), group)
            for r, p in zip(group, parts, strict=True)
        ], axis

    key = page.legend((charts.swatch(name), name) for name in STAGES)
    return section("Stages", text, key, page.cards(grouped(records, rows)))


def left_out(context: Context) -> Html:
    """What was to be measured and is missing."""
    if not context.left_out:
        return Html("")
    return section(
        "Left out",
        "Wanted, and not measured:",
        tag("ul", *(tag("li", t) for t in context.left_out)),
    )


def legend(records: Records) -> Html:
    """Meaning of the colours and shapes of the marks."""
    targets = [t for t in BACKENDS if any(r.target == t for r in records)]
    shapes = dict.fromkeys(r.precision for r in records)
    keys = [(charts.sample_mark(colour(t)), target_title(t)) for t in targets]
    keys += [(charts.sample_mark("t4", p), p) for p in shapes]
    keys.append((charts.sample_mark("t4", valid=False), "not valid"))
    if len({(r.width, r.height) for r in records}) > 1:
        keys.append((Html(""), "smaller marks: smaller input"))
    return page.legend(keys)


@dataclass(frozen=True, kw_only=True)
class Options:
    records: Annotated[tuple[Path, ...], Argument("LATENCY.json...")]
    """files of edgeface bench --save or make bench; a context.json beside one adds accuracy and
    peers"""
    save: Path | None = None
    """output file; default: report.html beside the first file"""


def _run(o: Options) -> None:
    path = o.save or o.records[0].with_name(REPORT)
    contexts = [
        load_context(folder / CONTEXT)
        for folder in dict.fromkeys(file.parent for file in o.records)
    ]
    merged = Context(
        {k: v for c in contexts for k, v in c.accuracy.items()},
        tuple(p for c in contexts for p in c.peers),
        tuple(t for c in contexts for t in c.left_out),
    )
    write_report(path, [record for file in o.records for record in load_measurements(file)], merged)
    say(path)


main = program_of(Options, "python -m benchmarks.report", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
