"""``python -m benchmarks.training_speed``: training images per second of CPU time, and where the
time goes.

Runs the parts of the real loop, crops, forward, loss, backward, optimiser and average, on photos
that come with the project's own packages, or on WIDER FACE with --data. CPU time of all threads is
counted, which other programs disturb less than elapsed time; they still disturb it, through shared
caches and memory.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from benchmarks.common import Printed, environment
from edgeface.architecture import get_architecture
from edgeface.cli.flags import DEFAULT_MODEL, program_of
from edgeface.cli.output import emit, table
from edgeface.errors import OptionError
from edgeface.training import TrainOptions, open_photos, prepare_torch

SIZES = (320, 640)
PRECISIONS = ("fp32", "bf16")
PARTS = ("crops", "forward", "loss", "backward", "update", "average")
"""methods of :class:`edgeface.training.loop.Trainer`"""
CROPS_LIMIT = 0.10
"""the project's bound on the share of time spent waiting for data"""
WARM_UP = 3
"""steps before those that are timed"""


def package_photos(folder: Path, copies: int = 24) -> Path:
    """Write public-domain portraits (scikit-image) into ``folder``, with their faces; returns the
    annotations."""
    from skimage import data

    portrait = data.astronaut()  # type: ignore[no-untyped-call]
    lines = ["image,x1,y1,x2,y2"]
    for i in range(copies):
        scale = 0.5 + 0.75 * i / copies
        photo = cv2.resize(cv2.cvtColor(portrait, cv2.COLOR_RGB2BGR), None, fx=scale, fy=scale)
        cv2.imwrite(str(folder / f"{i}.png"), photo)
        lines.append(f"{i}.png," + ",".join(f"{v * scale:.1f}" for v in (172, 68, 274, 196)))
    (folder / "faces.csv").write_text("\n".join(lines) + "\n")
    return folder / "faces.csv"


def measure(trainer: Any, steps: int) -> dict[str, Any]:
    """Train ``steps`` steps after the warm-up; returns images per CPU second and CPU ms of each
    part, from medians over the steps."""
    spent: dict[str, list[float]] = {name: [] for name in (*PARTS, "step")}

    def timed(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            start = time.process_time()
            result = part(*arguments)
            spent[name].append(time.process_time() - start)
            return result

        return run

    for name in PARTS:
        setattr(trainer, name, timed(name, getattr(trainer, name)))
    step = timed("step", lambda: trainer.optimise(trainer.crops(trainer.step)))
    for _ in range(WARM_UP + steps):
        step()
        trainer.step += 1
    medians = {name: statistics.median(seconds[WARM_UP:]) for name, seconds in spent.items()}
    whole = medians.pop("step")
    return {
        "size": trainer.options.size,
        "precision": trainer.options.precision,
        "images_per_cpu_s": trainer.options.batch / whole,
        "parts_ms": {k: 1e3 * v for k, v in medians.items()},
        "crops_share": medians["crops"] / whole,
    }


def _rows(o: Options, folder: Path) -> list[dict[str, Any]]:
    from edgeface.training.loop import Trainer
    from edgeface.training.process import hold_freed_memory, make_deterministic

    prepare_torch(o.threads, "cpu")
    make_deterministic()
    hold_freed_memory()
    annotations = None if o.data else package_photos(folder)
    cache = open_photos(o.data or folder, annotations, o.cache or folder / "cache")
    rows = []
    for precision in o.precision:
        for size in o.size:
            options = TrainOptions(
                samples=10**9,
                batch=o.batch,
                size=size,
                late_share=0.0,
                precision=precision,
                compile=o.compile,
            )
            rows.append(
                measure(Trainer(get_architecture(o.model), options, cache, folder / "run"), o.steps)
            )
    return rows


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    model: str = DEFAULT_MODEL
    """network to train"""
    data: Path | None = None
    """WIDER FACE folder; default: photos of the installed packages"""
    cache: Path | None = None
    """folder of decoded photos of --data; default: decode them for this run only"""
    steps: int = 50
    """optimiser steps per row, at least 5"""
    batch: int = 32
    """images per step"""
    size: tuple[int, ...] = SIZES
    """sides of the crops, px"""
    precision: tuple[str, ...] = PRECISIONS
    """fp32, bf16 or both"""
    threads: int = 1
    """CPU threads; figures count the time on all of them"""
    compile: bool = True
    """as for edgeface train"""

    def __post_init__(self) -> None:
        if self.steps < 5:
            raise OptionError(
                f"--steps must be at least 5, not {self.steps}: the figures are medians"
            )


def _run(o: Options) -> int:
    """Returns 1 when crops take more than the bound."""
    with tempfile.TemporaryDirectory() as name:
        rows = _rows(o, Path(name))
    result = {
        "model": o.model,
        "batch": o.batch,
        "threads": o.threads,
        "compile": o.compile,
        "data": "WIDER FACE" if o.data else "package photos",
        "rows": rows,
        "environment": environment("torch"),
    }
    lines = table(
        ("crop px", "precision", "img/s of CPU", *(f"{part} ms" for part in PARTS)),
        [
            (
                r["size"],
                r["precision"],
                f"{r['images_per_cpu_s']:.1f}",
                *(f"{r['parts_ms'][part]:.1f}" for part in PARTS),
            )
            for r in rows
        ],
    )
    worst = max(r["crops_share"] for r in rows)
    held = "held" if worst < CROPS_LIMIT else "NOT held"
    verdict = f"crops take at most {worst:.1%}, limit {CROPS_LIMIT:.0%}: {held}"
    emit(
        result,
        f"training {o.model}, batch {o.batch}, threads {o.threads}\n{lines}\n{verdict}",
        o.format,
        o.save,
    )
    return 0 if worst < CROPS_LIMIT else 1


main = program_of(Options, "python -m benchmarks.training_speed", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
