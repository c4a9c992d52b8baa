"""Ratios in the benchmark report: INT8 beside float, and published models beside ours."""

from __future__ import annotations

import itertools

from benchmarks.report_parts import (
    Records,
    colour,
    group_of,
    group_title,
    judged,
    ratio_text,
    target_title,
)
from benchmarks.results import Context, PeerTiming
from edgeface.errors import counted
from edgeface.latency.measurement import Measurement
from edgeface.latency.statistics import TIE, Ratio, ratio_of_sessions
from edgeface.pages import charts, page
from edgeface.pages.charts import Axis
from edgeface.pages.markup import Html, join, tag
from edgeface.pages.page import card, section, strip_row

MAX_RATIO = 4.0
"""largest end of the axis of ratios"""


def float_against_int8(records: Records, context: Context) -> Html:
    """Time that INT8 gains and AP that it costs, for each runtime."""
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
        cards.append(card(group_title(key), *drawn, charts.scale(axis, "INT8 time / fp32 time")))
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
    """Ratio of network times, also of two sessions, as a resumed run may have; None without samples
    or with a time of 0."""
    if not (new.samples and old.samples) or min(old.network_ms.min, new.network_ms.min) <= 0:
        return None
    return ratio_of_sessions(new.samples["network"].rounds(), old.samples["network"].rounds())


def _int8_row(
    int8: Measurement, fp32: Measurement, found: Ratio | None, axis: Axis, context: Context
) -> Html:
    reasons = [f"{r.precision}: {reason}" for r in (fp32, int8) for reason in r.invalid_reasons]
    name = f"{target_title(int8.target)}{' fast' * int8.fast}, {int8.model}"
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
        [strip_row(name, judged(ratio_text(found, reasons), reasons), strip, bool(reasons)), *cost]
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
                f"{key[0][1]}x{key[0][2]}, {counted(key[1], 'thread')}",
                *drawn,
                charts.scale(axis, "time / ours"),
            )
        )
    return section("Beside published models", text, page.cards(cards))


def _peer_order(p: PeerTiming) -> tuple[tuple[int, int, int], int, float, str]:
    return (-p.width * p.height, p.width, p.height), p.threads, p.ratio.value, p.model


def _peer_row(p: PeerTiming, axis: Axis) -> Html:
    ours = p.ratio.verdict == "reference"
    text = "ours" if ours else ratio_text(p.ratio, p.invalid_reasons)
    strip = charts.interval(
        p.ratio.low, p.ratio.value, p.ratio.high, axis, "t0" if ours else "t4", TIE
    )
    return strip_row(p.model, judged(text, p.invalid_reasons), strip, bool(p.invalid_reasons))
