"""The tables of the benchmark report: conditions and figures of every record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.report_parts import Records, file_of, verdict
from edgeface.latency.environment import Moment
from edgeface.latency.measurement import Measurement
from edgeface.pages.charts import number
from edgeface.pages.markup import Html, tag
from edgeface.pages.page import section, table


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
            file_of(r),
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
        file_of(r),
        r.threads,
        ", ".join(map(str, e.cores)) or "not pinned",
        _range(moments, "frequency_mhz", 0),
        _range(moments, "temperature_c", 1),
        _shown(e.other_load, 2),
        _range(moments, "load", 1),
        ("yes" if any(throttled) else "no") if throttled else "not shown",
        verdict(r),
    ]


def everything(records: Records) -> Html:
    """Table with all figures of every record."""
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
            file_of(r),
            r.threads,
            verdict(r),
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
