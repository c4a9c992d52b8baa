"""``python -m benchmarks.report LATENCY.json...``: one HTML file that says what was measured, and
opens offline.

The page loads nothing and runs nothing, and its own policy forbids it: pictures are inline SVG.
Equal input gives equal bytes. What a record says is never taken for markup.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.results import CONTEXT, REPORT, Accuracy, Context, PeerTiming, load_context, order
from edgeface.backends import BACKENDS
from edgeface.cli.flags import Argument, program_of
from edgeface.cli.output import say
from edgeface.files import atomic_write
from edgeface.latency.environment import Moment
from edgeface.latency.measurement import Measurement, Relative, load_measurements
from edgeface.latency.protocol import LOCAL
from edgeface.latency.statistics import TIE, Ratio, ratio_of_sessions
from edgeface.pages import charts, page
from edgeface.pages.charts import Axis, Point, number
from edgeface.pages.markup import Html, join, tag
from edgeface.pages.page import card, section, strip_row, table
from edgeface.search.pareto import nondominated

STAGES = ("preprocess", "network", "postprocess")
HEADROOM = 1.1
"""an axis ends this much beyond the largest p90: a single odd sample must not squeeze all others"""
MAX_RATIO = 4.0
"""where the axis of ratios ends at most"""
Records = Sequence[Measurement]
Group = tuple[str, int, int, int]
"""device, width, height, threads: what may be compared"""


def write_report(path: Path, records: Records, context: Context) -> None:
    """Write the page, whole or not at all. Raises OutputError."""
    text = document(sorted(records, key=order), context)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    """What this is, and how much of it can be used."""
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
    """The device, and what all its records were measured with."""
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
        f"{key[0]}, {_threads(key[1])}",
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
    """Every sample of the network."""
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
    """Where the time of an image goes."""
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


def grouped(records: Records, rows: Callable[[Records], tuple[list[Html], Axis]]) -> list[Html]:
    """One card for each device, size and number of threads."""
    cards = []
    for key, group in itertools.groupby(sorted(records, key=order), group_of):
        drawn, axis = rows(list(group))
        cards.append(card(_group_title(key), *drawn, charts.scale(axis, "ms")))
    return cards


def group_of(record: Measurement) -> Group:
    """Records of one group may be compared."""
    return record.device, record.width, record.height, record.threads


def float_against_int8(records: Records, context: Context) -> Html:
    """What INT8 gains in time and costs in AP, for each runtime."""
    pairs = [
        (r, fp32) for r in records if r.precision == "int8" and (fp32 := _float_of(r, records))
    ]
    if not pairs:
        return section(
            "Float against INT8",
            "No file was measured as both fp32 and INT8 under the same conditions.",
        )
    text = (
        "Median network time of INT8 over fp32 of the same runtime, size and threads, with its 95"
        f" % bootstrap interval; the band is a tie: less than {TIE:.0%} either way."
    )
    found = [(int8, fp32, _ratio(int8, fp32)) for int8, fp32 in pairs]
    axis = Axis.around([1 + TIE, *(min(r.high, MAX_RATIO) for *_, r in found if r)], zero=True)
    cards = []
    for key, group in itertools.groupby(found, lambda item: group_of(item[0])):
        drawn = [_int8_row(int8, fp32, ratio, axis, context) for int8, fp32, ratio in group]
        cards.append(card(_group_title(key), *drawn, charts.scale(axis, "INT8 time / fp32 time")))
    return section("Float against INT8", text, page.cards(cards))


def _float_of(int8: Measurement, records: Records) -> Measurement | None:
    return next(
        (
            r
            for r in records
            if (r.precision, r.model, r.target, r.fast, group_of(r))
            == ("fp32", int8.model, int8.target, int8.fast, group_of(int8))
        ),
        None,
    )


def _ratio(new: Measurement, old: Measurement) -> Ratio | None:
    """None without samples. Also right for records of two sessions, which a resumed run may
    have."""
    if not (new.samples and old.samples) or min(old.network_ms.min, new.network_ms.min) <= 0:
        return None
    return ratio_of_sessions(new.samples["network"].rounds(), old.samples["network"].rounds())


def _int8_row(
    int8: Measurement, fp32: Measurement, found: Ratio | None, axis: Axis, context: Context
) -> Html:
    reasons = [f"{r.precision}: {reason}" for r in (fp32, int8) for reason in r.invalid_reasons]
    name = f"{_title(int8.target)}{' fast' * int8.fast}, {int8.model}"
    if found is None:
        return strip_row(name, judged("no samples, no ratio", reasons), Html(""), bool(reasons))
    before, after = context.accuracy_of(fp32), context.accuracy_of(int8)
    cost = []
    if before and after and before.hard is not None and after.hard is not None:
        cost = [
            tag("div", f"AP hard {100 * before.hard:.2f} to {100 * after.hard:.2f}", class_="soft")
        ]
    strip = charts.interval(found.low, found.value, found.high, axis, colour(int8.target), TIE)
    return join(
        [strip_row(name, judged(_ratio_text(found, reasons), reasons), strip, bool(reasons)), *cost]
    )


def peers(context: Context) -> Html:
    """Published models beside ours."""
    if not context.peers:
        return Html("")
    text = (
        "Network time over that of our fp32 file, all in one process with ONNX Runtime, turn by"
        " turn. These models have no manifest, so the protocol's workers cannot open them: only the"
        " ratios are worth quoting, and nothing here says which one finds more faces."
    )
    axis = Axis.around([1 + TIE, *(min(p.ratio.high, MAX_RATIO) for p in context.peers)], zero=True)
    cards = []
    for key, group in itertools.groupby(
        sorted(context.peers, key=_peer_order), lambda p: _peer_order(p)[:2]
    ):
        drawn = [_peer_row(p, axis) for p in group]
        cards.append(
            card(
                f"{key[0][1]}x{key[0][2]}, {_threads(key[1])}",
                *drawn,
                charts.scale(axis, "time / ours"),
            )
        )
    return section("Beside published models", text, page.cards(cards))


def _peer_order(p: PeerTiming) -> tuple[tuple[int, int, int], int, float, str]:
    return (-p.width * p.height, p.width, p.height), p.threads, p.ratio.value, p.model


def _peer_row(p: PeerTiming, axis: Axis) -> Html:
    ours = p.ratio.verdict == "reference"
    text = "ours" if ours else _ratio_text(p.ratio, p.invalid_reasons)
    strip = charts.interval(
        p.ratio.low, p.ratio.value, p.ratio.high, axis, "t0" if ours else "t4", TIE
    )
    return strip_row(p.model, judged(text, p.invalid_reasons), strip, bool(p.invalid_reasons))


def validity(records: Records) -> Html:
    """The conditions of every record."""
    columns = (
        "file",
        "threads",
        "cores",
        "MHz",
        "°C",
        "other load",
        "load avg",
        "throttled",
        "valid",
    )
    rows = [_conditions(r) for r in records]
    details = [
        [
            _file(r),
            r.threads,
            r.runtime,
            _plain(r.environment.precision_hints),
            _plain(r.environment.delegates),
            ", ".join(f"{k} {v}" for k, v in r.environment.runtimes.items()),
        ]
        for r in records
    ]
    names = ("file", "threads", "runtime", "precision hints", "what ran where", "packages")
    return section(
        "Environment and validity",
        "What each record was measured under; ranges are over all rounds. "
        "Other load: cores that other processes kept busy meanwhile.",
        table(columns, rows, {8}),
        tag(
            "details",
            tag("summary", "Runtimes, precision hints and delegates"),
            table(names, details, {2, 3, 4, 5}),
        ),
    )


def _conditions(r: Measurement) -> list[object]:
    e = r.environment
    moments = (e.before, *e.during, e.after)
    throttled = [m.throttled for m in moments if m.throttled is not None]
    return [
        _file(r),
        r.threads,
        ", ".join(map(str, e.cores)) or "not pinned",
        _range(moments, "frequency_mhz", 0),
        _range(moments, "temperature_c", 1),
        _shown(e.other_load, 2),
        _range(moments, "load", 1),
        ("yes" if any(throttled) else "no") if throttled else "not shown",
        _verdict(r),
    ]


def everything(records: Records) -> Html:
    """All figures."""
    columns = (
        "file",
        "threads",
        "valid",
        "network ms",
        "min",
        "p90",
        "p99",
        "CPU ms",
        "preprocess",
        "decode, NMS",
        "end to end",
        "ratio",
        "load ms",
        "import ms",
        "memory MB",
        "faces",
    )
    rows = [
        [
            _file(r),
            r.threads,
            _verdict(r),
            *(t if r.valid else tag("span", t, class_="void") for t in _all_figures(r)),
        ]
        for r in records
    ]
    return section(
        "All figures",
        "Medians in ms where nothing else is said. Grey figures are of records that are not valid.",
        table(columns, rows, {2}),
    )


def _all_figures(r: Measurement) -> list[str]:
    n = r.network_ms
    medians = (r.network_cpu_ms, r.preprocess_ms, r.postprocess_ms, r.end_to_end_ms)
    if r.ratio is None:
        against = "-"
    else:
        own = r.ratio.verdict == "reference"
        against = "reference" if own else f"{r.ratio} (to {r.ratio.to})"
    memory = "not shown" if r.peak_memory_bytes is None else f"{r.peak_memory_bytes / 1e6:.0f}"
    return [
        *(number(v) for v in (n.median, n.min, n.p90, n.p99, *(stage.median for stage in medians))),
        against,
        number(r.load_ms, 3),
        number(r.import_ms, 3),
        memory,
        str(r.faces),
    ]


def left_out(context: Context) -> Html:
    """What was wanted and is not there."""
    if not context.left_out:
        return Html("")
    return section(
        "Left out",
        "Wanted, and not measured:",
        tag("ul", *(tag("li", t) for t in context.left_out)),
    )


def legend(records: Records) -> Html:
    """Colours and shapes."""
    targets = [t for t in BACKENDS if any(r.target == t for r in records)]
    shapes = dict.fromkeys(r.precision for r in records)
    keys = [(charts.sample_mark(colour(t)), _title(t)) for t in targets]
    keys += [(charts.sample_mark("t4", p), p) for p in shapes]
    keys.append((charts.sample_mark("t4", valid=False), "not valid"))
    if len({(r.width, r.height) for r in records}) > 1:
        keys.append((Html(""), "smaller marks: smaller input"))
    return page.legend(keys)


def row(record: Measurement, strip: Html, said: Html, group: Records) -> Html:
    """Label and figure above a strip; the label tells the record from the others of its
    ``group``."""
    name = label(record) + (f", {record.model}" if len({r.model for r in group}) > 1 else "")
    return strip_row(name, said, strip, bool(record.invalid_reasons))


def _ratio_text(found: Ratio | Relative, reasons: Sequence[str]) -> str:
    """A verdict only where there is nothing to object."""
    return (
        f"{found.value:.2f} ({found.low:.2f} to"
        f" {found.high:.2f}){'' if reasons else ' ' + found.verdict}"
    )


def figure(record: Measurement, stage: str = "network") -> Html:
    """Median and p90; of an invalid record never without the reasons."""
    found = getattr(record, f"{stage}_ms")
    return judged(f"{number(found.median)} ms [p90 {number(found.p90)}]", record.invalid_reasons)


def judged(text: str, reasons: Iterable[str]) -> Html:
    """``text``, in grey and with the reasons if there are any."""
    said = "; ".join(reasons)
    if not said:
        return tag("span", text, class_="figure")
    return tag(
        "span",
        tag("span", text, class_="void"),
        " ",
        tag("span", said, class_="reason"),
        class_="figure",
    )


def label(record: Measurement) -> str:
    """Of a row in a card whose heading says the rest."""
    return f"{_title(record.target)} {record.precision}{' fast' * record.fast}"


def colour(target: str) -> str:
    """Class of a runtime's colour."""
    names = list(BACKENDS)
    return f"t{names.index(target)}" if target in names[:4] else "t4"


def _title(target: str) -> str:
    return BACKENDS[target].title if target in BACKENDS else target


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _group_title(key: Group) -> str:
    return f"{key[1]}x{key[2]}, {_threads(key[3])}, {key[0]}"


def _file(record: Measurement) -> str:
    return record.bundle if record.device == LOCAL else f"{record.bundle} on {record.device}"


def _verdict(record: Measurement) -> Html:
    if record.valid:
        return tag("span", "valid", class_="valid")
    return tag("span", "; ".join(record.invalid_reasons), class_="reason")


def _shown(value: float | None, digits: int) -> str:
    return "not shown" if value is None else f"{value:.{digits}f}"


def _range(moments: Iterable[Moment], name: str, digits: int) -> str:
    values = [value for m in moments if (value := getattr(m, name)) is not None]
    if not values:
        return "not shown"
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def _plain(value: Any) -> str:
    """JSON-like content as words."""
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return "not told" if value is None else str(value)


@dataclass(frozen=True, kw_only=True)
class Options:
    records: Annotated[tuple[Path, ...], Argument("LATENCY.json...")]
    """files of edgeface bench --save or make bench; a context.json beside one adds accuracy and
    peers"""
    save: Path | None = None
    """the page; default: report.html beside the first file"""


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
