"""Parts that several sections of the benchmark report share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from benchmarks.results import order
from edgeface.backends import BACKENDS
from edgeface.errors import counted
from edgeface.latency.measurement import Measurement, Relative
from edgeface.latency.protocol import LOCAL
from edgeface.latency.statistics import Ratio
from edgeface.pages import charts
from edgeface.pages.charts import Axis, number
from edgeface.pages.markup import Html, tag
from edgeface.pages.page import card, strip_row

Records = Sequence[Measurement]
Group = tuple[str, int, int, int]
"""device, width, height, threads: records that share them may be compared"""


def grouped(records: Records, rows: Callable[[Records], tuple[list[Html], Axis]]) -> list[Html]:
    """One card for each device, size and number of threads."""
    cards = []
    for key, group in itertools.groupby(sorted(records, key=order), group_of):
        drawn, axis = rows(list(group))
        cards.append(card(group_title(key), *drawn, charts.scale(axis, "ms")))
    return cards


def group_of(record: Measurement) -> Group:
    """The group of ``record``."""
    return record.device, record.width, record.height, record.threads


def row(record: Measurement, strip: Html, said: Html, group: Records) -> Html:
    """Label and figure above a strip; the label tells the record from the others of its
    ``group``."""
    name = label(record) + (f", {record.model}" if len({r.model for r in group}) > 1 else "")
    return strip_row(name, said, strip, bool(record.invalid_reasons))


def ratio_text(found: Ratio | Relative, reasons: Sequence[str]) -> str:
    """Ratio with its interval, and the verdict if there are no ``reasons`` against it."""
    return (
        f"{found.value:.2f} ({found.low:.2f} to"
        f" {found.high:.2f}){'' if reasons else ' ' + found.verdict}"
    )


def figure(record: Measurement, stage: str = "network") -> Html:
    """Median and p90, with the reasons if the record is invalid."""
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
    """Label of a row: runtime, precision and fast mode; the card's heading says the rest."""
    return f"{target_title(record.target)} {record.precision}{' fast' * record.fast}"


def colour(target: str) -> str:
    """CSS class of a runtime's colour."""
    names = list(BACKENDS)
    return f"t{names.index(target)}" if target in names[:4] else "t4"


def target_title(target: str) -> str:
    return BACKENDS[target].title if target in BACKENDS else target


def group_title(key: Group) -> str:
    return f"{key[1]}x{key[2]}, {counted(key[3], 'thread')}, {key[0]}"


def file_of(record: Measurement) -> str:
    return record.bundle if record.device == LOCAL else f"{record.bundle} on {record.device}"


def verdict(record: Measurement) -> Html:
    if record.valid:
        return tag("span", "valid", class_="valid")
    return tag("span", "; ".join(record.invalid_reasons), class_="reason")
