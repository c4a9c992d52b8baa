"""``python -m benchmarks.research.first_networks``: how much the choice of a search's first
networks improves its latency model.

A latency model is fitted to a few networks of a latency table and predicts all others: once with
the networks that edgeface.predict.first_networks chooses, and several times with as many random
networks, whose errors are averaged.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from benchmarks.common import Printed
from benchmarks.latency_model import KINDS, TABLES
from benchmarks.prediction import Score
from edgeface.cli.flags import program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.errors import OptionError
from edgeface.options import Range, check_choice, check_ranges
from edgeface.predict.first_networks import first_networks
from edgeface.predict.model import LatencyModel
from edgeface.predict.table import LEAST_NETWORKS, LatencyTable
from edgeface.search.options import StudyOptions

SIZE = (640, 480)


def compare(kind: str, count: int, draws: int) -> dict[str, Any]:
    """Figures of the latency table ``kind`` (target-precision), learned from ``count`` chosen
    networks, and ``draws`` times from as many random ones.

    Raises OptionError if ``count`` is too small or too large for the table.
    """
    latencies = LatencyTable.load(TABLES / f"{kind}-{SIZE[0]}x{SIZE[1]}-1t.json")
    records = [r for r in latencies.records if r.teaches]
    if not LEAST_NETWORKS <= count < len(records):
        raise OptionError(
            f"--count must be {LEAST_NETWORKS} to {len(records) - 1} for {kind}, got {count}"
        )

    def score(learned: Sequence[int]) -> Score:
        model = LatencyModel(
            dataclasses.replace(latencies, records=tuple(records[i] for i in learned))
        )
        rest = [r for i, r in enumerate(records) if i not in set(learned)]
        predicted = model.predict([r.architecture for r in rest])
        return Score.of(
            np.array([p.ms for p in predicted]), np.array([latencies.ms(r) for r in rest])
        )

    chosen = score(
        first_networks([r.architecture for r in records], SIZE, latencies.setting.target, count)
    )
    draw = random.Random(0)
    by_chance = [score(draw.sample(range(len(records)), count)) for _ in range(draws)]
    return {
        "kind": kind,
        "learned": count,
        "asked": len(records) - count,
        "chosen": dataclasses.asdict(chosen),
        "random": [dataclasses.asdict(each) for each in by_chance],
    }


def as_table(results: Sequence[dict[str, Any]]) -> str:
    """Shares that are predicted within 10 %, and median errors."""
    rows = []
    for r in results:
        means = {
            key: float(np.mean([each[key] for each in r["random"]]))
            for key in ("within_10", "median_error")
        }
        rows.append(
            (
                r["kind"],
                f"{r['learned']}/{r['asked']}",
                f"{r['chosen']['within_10']:.1%}",
                f"{means['within_10']:.1%}",
                f"{r['chosen']['median_error']:.1%}",
                f"{means['median_error']:.1%}",
            )
        )
    return table(
        (
            "table",
            "learned/asked",
            "within 10 %, chosen",
            "random",
            "median error, chosen",
            "random",
        ),
        rows,
    )


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    kinds: tuple[str, ...] = KINDS
    """latency tables, TARGET-PRECISION"""
    count: int = StudyOptions.first
    """networks that each model is fitted to"""
    draws: int = 5
    """number of random draws"""
    ranges: ClassVar[dict[str, Range]] = {"draws": Range(1, 1000)}

    def __post_init__(self) -> None:
        check_ranges(self)
        check_choice("kinds", self.kinds, KINDS)


def _run(o: Options) -> None:
    with Terminal(steps=True) as terminal:
        results = []
        for done, kind in enumerate(o.kinds):
            terminal.tick("fitting", done, len(o.kinds))
            results.append(compare(kind, o.count, o.draws))
    emit({"results": results}, as_table(results), o.format, o.save)


main = program_of(Options, "python -m benchmarks.research.first_networks", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
