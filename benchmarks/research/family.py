"""``python -m benchmarks.research.family --out FOLDER``: searches the architectures that ship, by
measured latency on one target.

The reference is a network of YuNet_n's structure (Wu et al., Machine Intelligence Research 2023), a
common tiny face detector. In the same runtime and precision, and measured together with it, the
search finds the best networks that take half, one and two times its latency. FOLDER/searched.json
holds them with their record, in the format of edgeface.architecture.searched.json. A stopped run
resumes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.research.comparison import SIZE, measured
from edgeface.architecture import Architecture, PlainHeadSpec, PlainNetSpec, PyramidSpec
from edgeface.architecture.searched import Searched, SearchRecord
from edgeface.cli.flags import RESUMES, program_of
from edgeface.cli.output import table
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError
from edgeface.files import write_text
from edgeface.latency.protocol import LOCAL
from edgeface.predict.table import LatencyTable
from edgeface.schema import to_fields
from edgeface.search.options import StudyOptions
from edgeface.search.results import FrontNet
from edgeface.search.study import Study

SHARES = {"edgeface-0.5x": 0.5, "edgeface-1x": 1.0, "edgeface-2x": 2.0}
"""name -> latency, as a share of the yardstick's"""


def yunet_n() -> Architecture:
    """YuNet_n's stages in the blocks of this project: strides in place of max-pools, plain
    outputs."""
    blocks = [
        "SuperConvK3BNRELU(3,16,2,1)",
        "SuperDWK3BNRELU(16,16,1,1)",
        "SuperDWK3BNRELU(16,16,2,1)",
        "SuperDWK3BNRELU(16,64,1,1)",
        "SuperDWK3BNRELU(64,64,1,2)",
        *["SuperDWK3BNRELU(64,64,2,2)"] * 3,
    ]
    return Architecture(
        "yunet-n-like",
        PlainNetSpec("".join(blocks)),
        PyramidSpec("fpn", 64),
        PlainHeadSpec(64, 1, depthwise=True),
    )


def find(
    options: StudyOptions, folder: Path, known: LatencyTable | None, terminal: Terminal
) -> list[Searched]:
    """One network for each of :data:`SHARES`; ``known``: a latency table to begin with."""
    yardstick = yunet_n()
    known, record = measured(yardstick, options, folder / "latency.json", known, terminal)
    found, tables = [], [known]
    for name, share in SHARES.items():
        budget = round(share * known.ms(record), 4)
        terminal.line(f"{name}: at most {budget:.3f} ms, {share:g} of what {yardstick.name} takes")
        study = Study(
            dataclasses.replace(options, objective="budget", budget_ms=budget),
            folder / name,
            terminal.tick,
            terminal.note,
        )
        front = study.run(
            lambda done: terminal.line(f"round {done.number}: best {done.best_score:.4f}"), tables
        )
        tables = list(study.oracle.tables.values())  # the next search reuses them
        found.append(_searched(name, front, study, record.ratio))
    return found


def _searched(name: str, front: Sequence[FrontNet], study: Study, yardstick: float) -> Searched:
    options = study.options
    allowed = [net for net in front if net.measured_ms <= options.budget_ms]
    if not allowed:
        raise DataError(
            f"{name}: none of {len(front)} networks takes at most {options.budget_ms:.3f} ms: give"
            " more --rounds"
        )
    net = max(allowed, key=lambda n: n.score)
    timings = study.oracle.tables[net.size]
    # The machine's speed drifts from table to table; the ratio to the reference, which runs in
    # every group, does not.
    share = net.measured_ms / timings.scale_ms / yardstick
    return Searched(
        dataclasses.replace(net.architecture, name=name),
        SearchRecord(
            options.space,
            options.target,
            options.precision,
            net.size,
            options.threads,
            timings.cpu,
            options.budget_ms,
            round(share, 4),
            net.measured_ms,
            net.interval_ms,
            options.score,
            net.score,
            options.seed,
            options.rounds,
            len(study.archive),
        ),
    )


def as_table(found: Sequence[Searched]) -> str:
    """The networks that were found, compared with the yardstick."""
    return table(
        ("network", "ms", "95 %", "of YuNet_n's", "score", "structure"),
        [
            (
                s.architecture.name,
                f"{s.search.measured_ms:.3f}",
                f"{s.search.interval_ms[0]:.3f}-{s.search.interval_ms[1]:.3f}",
                f"{s.search.of_yardstick:.2f}",
                f"{s.search.score:.3f}",
                s.architecture.structure,
            )
            for s in found
        ],
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the command line."""

    out: Path
    """folder of these searches"""
    device: str = LOCAL
    """local, ssh://[user@]host[:port] or adb://serial"""
    target: str = "tflite"
    """runtime that is measured"""
    precision: str = "int8"
    """precision of the files that are measured"""
    seed: int = 0
    """seed of the searches"""
    rounds: int = 3
    """rounds of each search"""
    table: Path | None = None
    """latency table to begin with, of an earlier search"""


def _run(o: Options) -> None:
    options = StudyOptions(
        o.device, o.target, o.precision, (SIZE,), budget_ms=1.0, seed=o.seed, rounds=o.rounds
    )
    known = LatencyTable.load(o.table) if o.table else None
    o.out.mkdir(parents=True, exist_ok=True)
    with Terminal(steps=True) as terminal:
        found = find(options, o.out, known, terminal)
    write_text(o.out / "searched.json", json.dumps(to_fields(found), indent=1) + "\n")
    print(as_table(found))


main = program_of(Options, "python -m benchmarks.research.family", __doc__, _run, RESUMES)


if __name__ == "__main__":
    sys.exit(main())
