"""``python -m benchmarks.research.evidence``: do zero-cost scores rank trained detectors?

Three steps. ``select`` draws networks of equal multiply-accumulates, spread over the detector
score. ``train`` gives each the same short training and evaluates it. ``table`` shows how well each
zero-cost score of :mod:`edgeface.search.scores.registry`, at every alpha, ranks the trained
networks; scores are computed anew, only AP comes from the trainings. A stopped ``train`` resumes,
and ``table`` also works on unfinished results.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Printed
from benchmarks.research.ranking import (
    Correlation,
    Evidence,
    as_table,
    correlations,
    draw,
    read_evidence,
)
from benchmarks.research.selection import (
    SPREAD_ALPHA,
    SPREAD_OVER,
    load_networks,
    save_networks,
    select,
)
from benchmarks.research.trainings import train
from edgeface.architecture.layers import COUNTED_AT, macs_of
from edgeface.cli.flags import program_of_steps
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.errors import OptionError
from edgeface.options import check_choice
from edgeface.search.scores.registry import proxy
from edgeface.search.space import get_space
from edgeface.search.trials.known import SETTINGS
from edgeface.search.trials.training import BATCH, SAMPLES, SIZE_PX, Plan, recipe
from edgeface.workers import open_workers

FOLDER = Path(__file__).parents[1] / "evidence"
NETWORKS = FOLDER / "networks.json"
"""what ``select`` writes with its default options"""
TRAININGS = FOLDER / "trainings.csv"
ALPHAS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.25)


@dataclass(frozen=True, kw_only=True)
class Select:
    """Select networks of equal multiply-accumulates, spread over the score."""

    space: str = "edge"
    """name, or a .json file of a space"""
    count: int = 24
    """networks"""
    macs: float = 0.2e9
    """multiply-accumulates at 640x480"""
    tolerance: float = 0.03
    """share by which they may differ"""
    seed: int = 0
    """seed of what is drawn"""
    networks: Path = NETWORKS
    """JSON list; default: ours"""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Give each the same short training, then evaluate it."""

    data: Path
    """WIDER FACE folder, validation photos included"""
    annotations: Path | None = None
    """boxes of the training photos; default: the official list"""
    photos: Path | None = None
    """folder of the training photos; default: --data"""
    cache: Path = Path("runs/evidence/cache")
    """folder of the decoded photos"""
    runs: Path = Path("runs/evidence")
    """folder of the run folders"""
    samples: int = SAMPLES
    """photos seen by each network"""
    batch: int = BATCH
    """photos per step"""
    size: int = SIZE_PX
    """side of the crops, px"""
    seed: int = 0
    """seed of weights, order and crops"""
    compile: bool = True
    """compile the sampling of crops; without a C++ compiler it is slower"""
    threads: int = 1
    """CPU threads of each training"""
    processes: int = 2
    """trainings at a time, on this machine"""
    ray: str | None = None
    """train on a Ray cluster: HOST:PORT, or auto; paths must be on storage that all its machines
    share"""
    networks: Path = NETWORKS
    """JSON list; default: ours"""
    csv: Path = TRAININGS
    """one row a network; default: ours"""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise OptionError("--threads must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Table(Printed):
    """Print how well each score ranks what was trained."""

    plot: Path | None = None
    """draw the scatter plots to this .png or .svg"""
    alphas: str = ",".join(f"{alpha:g}" for alpha in ALPHAS)
    """weights of the kernel sizes, separated by commas"""
    settings: tuple[str, ...] = ("hard",)
    """which AP"""
    networks: Path = NETWORKS
    """JSON list; default: ours"""
    csv: Path = TRAININGS
    """one row a network; default: ours"""

    def __post_init__(self) -> None:
        check_choice("settings", self.settings, SETTINGS)


def _alphas(text: str) -> tuple[float, ...]:
    """Parse ``--alphas``. Raises OptionError if one is not a number of 0 or more."""
    try:
        alphas = tuple(float(item) for item in text.split(","))
    except ValueError:
        alphas = (math.nan,)
    if not all(math.isfinite(alpha) and alpha >= 0 for alpha in alphas):
        raise OptionError(
            f"--alphas {text!r} is not a list of numbers of 0 or more, such as 0,0.05"
        )
    return alphas


def command_of(o: Train) -> str:
    """The training command that reproduces the figures, with only the last part of each path."""
    words = ["python", "-m", "benchmarks.research.evidence", "train", "--networks", o.networks.name]
    for name in ("data", "annotations", "photos"):
        if getattr(o, name):
            words += [f"--{name}", getattr(o, name).name]
    for name in ("samples", "batch", "size", "seed", "threads"):
        words += [f"--{name}", str(getattr(o, name))]
    return shlex.join(words + ["--no-compile"] * (not o.compile))


def _select(o: Select) -> None:
    networks = select(get_space(o.space), o.count, o.macs, o.tolerance, o.seed)
    save_networks(o.networks, networks)
    print(
        table(
            ("network", f"{SPREAD_OVER}@{SPREAD_ALPHA:g}", "million MACs"),
            [
                (
                    a.name,
                    f"{proxy(SPREAD_OVER, a, SPREAD_ALPHA):.3f}",
                    f"{macs_of(a, *COUNTED_AT) / 1e6:.1f}",
                )
                for a in networks
            ],
        )
    )


def _train(o: Train) -> None:
    options = recipe(o.samples, o.batch, o.size, o.seed, o.compile)
    # Absolute, because the tasks of a cluster start in another folder.
    data, cache, runs = (str(path.resolve()) for path in (o.data, o.cache, o.runs))
    photos, annotations = (
        str(path.resolve()) if path else None for path in (o.photos, o.annotations)
    )
    plan = Plan(options, photos or data, annotations, cache, runs, data, o.threads)
    networks = load_networks(o.networks)
    with Terminal(steps=True) as terminal, open_workers(o.ray, o.processes) as workers:
        train(networks, plan, o.csv, command_of(o), workers, terminal)


def _table(o: Table) -> None:
    alphas = _alphas(o.alphas)
    evidence = read_evidence(o.networks, o.csv)
    found = list(
        correlations(evidence, tuple(dict.fromkeys(o.settings)), tuple(dict.fromkeys(alphas)))
    )
    if o.plot:
        draw(evidence, o.plot)
    emit(_json(found, evidence), as_table(found, evidence), o.format, o.save)


def _json(found: Sequence[Correlation], evidence: Evidence) -> dict[str, Any]:
    return {
        "trained": len(evidence.networks),
        "planned": evidence.planned,
        "samples": int(evidence.rows[0]["samples"]),
        "correlations": [c.to_json() for c in found],
    }


main = program_of_steps(
    {"select": (Select, _select), "train": (Train, _train), "table": (Table, _table)},
    "python -m benchmarks.research.evidence",
    __doc__,
    "finished trainings are kept: run the same command again to continue",
)


if __name__ == "__main__":
    sys.exit(main())
