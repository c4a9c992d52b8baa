"""``python -m benchmarks.research.comparison {find,table}``: does a search by measured latency find
better networks than a search by multiply-accumulates?

find: on one target and precision, the measured latency of DamoFD-0.5G's backbone (with our neck and
head, in its published widths) is the budget. Two searches within the budget use the same space,
score and effort: one limits measured latency; the other limits multiply-accumulates, at several
limits, and keeps the winner whose measured latency is nearest to the budget. The result is a JSON
list of networks, which ``python -m benchmarks.research.evidence train`` trains in the same way;
table then shows their AP beside their latency.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.research.selection import save_networks
from benchmarks.research.trainings import matching
from edgeface.architecture import Architecture, PlainHeadSpec, PyramidSpec
from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.architecture.registry import get_architecture
from edgeface.cli.flags import RESUMES, program_of_steps
from edgeface.cli.output import table
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError
from edgeface.files import write_text
from edgeface.latency.devices import open_device
from edgeface.latency.protocol import LOCAL
from edgeface.predict.measure import measure
from edgeface.predict.table import LatencyTable, Record, Setting
from edgeface.schema import from_fields
from edgeface.search.options import StudyOptions
from edgeface.search.results import FrontNet, Round
from edgeface.search.study import Study
from edgeface.search.trials.known import read_rows

LIMITS = tuple(1 + step / 5 for step in range(19))
"""limits of the searches by multiply-accumulates, as multiples of DamoFD-0.5G's"""
MEASURED = 5
"""networks that each search by multiply-accumulates measures"""
RIVALS = "rivals.json"
SIZE = "x".join(map(str, COUNTED_AT))


@dataclass(frozen=True)
class Rival:
    """One network of a comparison."""

    role: str
    """clock (searched by latency), macs (searched by multiply-accumulates) or damofd"""
    architecture: Architecture
    score: float
    ms: float
    low_ms: float
    high_ms: float


def damofd() -> Architecture:
    """DamoFD-0.5G's backbone with neck fpn 16 and the plain head of its published widths."""
    return Architecture(
        "damofd-0.5g-plain",
        get_architecture("damofd-0.5g").backbone,
        PyramidSpec("fpn", 16),
        PlainHeadSpec(64, 2, depthwise=True),
    )


def find(options: StudyOptions, folder: Path, terminal: Terminal) -> list[Rival]:
    """The three networks of the comparison; a stopped run resumes."""
    rival = damofd()
    known, record = measured(rival, options, folder / "damofd.json", None, terminal)
    budget = known.ms(record)
    terminal.line(f"budget: {budget:.3f} ms, what {rival.name} takes")
    timed = Study(
        dataclasses.replace(options, objective="budget", budget_ms=round(budget, 4)),
        folder / "clock",
        terminal.tick,
        terminal.note,
    )
    front = timed.run(_told(terminal, "by the clock"), [known])
    ms = timed.oracle.tables[SIZE].ms(timed.oracle.tables[SIZE].find(rival) or record)
    return [
        _best("clock", front, ms),
        _best("macs", _counted(options, rival, budget, timed, folder, terminal), ms),
        Rival(
            "damofd",
            rival,
            timed.scorer.proxy(rival),
            ms,
            ms * record.low / record.ratio,
            ms * record.high / record.ratio,
        ),
    ]


def measured(
    network: Architecture,
    options: StudyOptions,
    path: Path,
    known: LatencyTable | None,
    terminal: Terminal,
) -> tuple[LatencyTable, Record]:
    """The latency table in ``path``, else ``known``, with ``network`` measured, and its record.
    Raises DataError if the measurement was too noisy."""
    setting = Setting(
        options.device, options.target, options.precision, *COUNTED_AT, options.threads
    )
    known = LatencyTable.load(path) if path.is_file() else known
    with open_device(options.device) as device:
        known = measure(
            setting,
            [network],
            device,
            path.with_name("candidates"),
            known,
            progress=terminal.tick,
            grown=lambda t: t.save(path),
        )
    record = known.find(network)
    if record is None:
        raise DataError(
            f"{network.name} could not be measured well enough: run again when the machine is quiet"
        )
    return known, record


def _counted(
    options: StudyOptions,
    rival: Architecture,
    budget: float,
    timed: Study,
    folder: Path,
    terminal: Terminal,
) -> list[FrontNet]:
    """Networks that the searches by multiply-accumulates find; they start from the latency tables
    of ``timed``."""
    counted: list[FrontNet] = []
    low, high = (
        0,
        len(LIMITS),
    )  # bisect for the largest limit that fits: more MACs score higher and take longer
    while low < high:
        middle = (low + high) // 2
        mmacs = round(LIMITS[middle] * macs_of(rival, *COUNTED_AT) / 1e6, 1)
        # This search learns nothing between rounds, so one round has all generations.
        study = Study(
            dataclasses.replace(
                options,
                objective="budget",
                budget_mmacs=mmacs,
                rounds=1,
                picks=MEASURED,
                generations=options.rounds * options.generations,
            ),
            folder / f"macs-{LIMITS[middle]}",
            terminal.tick,
            terminal.note,
        )
        nets = study.run(
            _told(terminal, f"by {mmacs:g} million multiply-accumulates"),
            timed.oracle.tables.values(),
        )
        counted += nets
        fits = max(nets, key=lambda net: net.score).measured_ms <= budget
        low, high = (middle + 1, high) if fits else (low, middle)
    return counted


def _told(terminal: Terminal, how: str) -> Callable[[Round], None]:
    def told(done: Round) -> None:
        terminal.line(
            f"{how}: round {done.number}, {done.evaluated} scored, best {done.best_score:.4f}"
        )

    return told


def _best(role: str, found: Sequence[FrontNet], budget: float) -> Rival:
    allowed = [net for net in found if net.measured_ms <= budget]
    if not allowed:
        raise DataError(f"{role}: none of {len(found)} networks takes at most {budget:.3f} ms")
    net = max(allowed, key=lambda n: n.score)
    return Rival(role, net.architecture, net.score, net.measured_ms, *net.interval_ms)


def as_table(found: Sequence[Rival], trainings: Path | None) -> str:
    """Latency of each network and, if it was trained, AP."""
    rows = {row["name"]: row for row in read_rows(trainings)} if trainings else {}
    if trainings:
        matching(list(rows.values()), [rival.architecture for rival in found], trainings)
    lines = []
    for rival in found:
        row = rows.get(rival.architecture.name)
        lines.append(
            (
                rival.role,
                f"{rival.ms:.3f}",
                f"{rival.low_ms:.3f}-{rival.high_ms:.3f}",
                f"{rival.score:.3f}",
                f"{macs_of(rival.architecture, *COUNTED_AT) / 1e6:.0f} M",
                f"{params_of(rival.architecture) / 1e3:.0f} k",
                (
                    " ".join(row[name] for name in ("easy", "medium", "hard"))
                    if row
                    else "not trained"
                ),
                rival.architecture.structure,
            )
        )
    return table(
        (
            "network",
            "ms",
            "95 %",
            "score",
            "MACs",
            "parameters",
            "AP easy medium hard",
            "structure",
        ),
        lines,
    )


def _load(path: Path) -> list[Rival]:
    try:
        return [
            from_fields(Rival, item, f"{path}: network {i}")
            for i, item in enumerate(json.loads(path.read_text()))
        ]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"cannot read {path} ({type(error).__name__}): python -m benchmarks.research.comparison"
            " find makes it"
        ) from None


@dataclass(frozen=True, kw_only=True)
class Find:
    """Search by latency and by multiply-accumulates, at equal latency."""

    out: Path
    """folder of this comparison"""
    device: str = LOCAL
    """local, ssh://[user@]host[:port] or adb://serial"""
    target: str = "openvino"
    """runtime that is measured"""
    precision: str = "int8"
    """precision of the files that are measured"""
    score: str = StudyOptions.score
    """what stands for accuracy in both searches"""
    alpha: float = StudyOptions.alpha
    """weight of the kernel sizes in the score"""
    seed: int = 0
    """seed of both searches"""
    rounds: int = StudyOptions.rounds
    """rounds of each search"""


@dataclass(frozen=True, kw_only=True)
class ComparisonTable:
    """Print latency and AP of what was found."""

    out: Path
    """folder of this comparison"""
    csv: Path | None = None
    """what benchmarks.research.evidence train wrote"""


def _find(o: Find) -> None:
    options = StudyOptions(
        o.device,
        o.target,
        o.precision,
        (SIZE,),
        score=o.score,
        alpha=o.alpha,
        seed=o.seed,
        rounds=o.rounds,
    )
    with Terminal(steps=True) as terminal:
        found = find(options, o.out, terminal)
    write_text(o.out / RIVALS, json.dumps([dataclasses.asdict(r) for r in found], indent=1) + "\n")
    different = {r.architecture.name: r.architecture for r in found}  # both may find the same one
    save_networks(o.out / "networks.json", list(different.values()))
    print(as_table(_load(o.out / RIVALS), None))


def _table(o: ComparisonTable) -> None:
    print(as_table(_load(o.out / RIVALS), o.csv))


main = program_of_steps(
    {"find": (Find, _find), "table": (ComparisonTable, _table)},
    "python -m benchmarks.research.comparison",
    __doc__,
    RESUMES,
)


if __name__ == "__main__":
    sys.exit(main())
