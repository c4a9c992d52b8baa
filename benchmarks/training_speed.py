"""``python -m benchmarks.training_speed``: images per second of the training loop, and its share of waiting for data.

Runs the real loop, with cropping, assignment, loss, optimiser and moving average, on photos that come with the
project's own packages, or on WIDER FACE with --data. Figures hold for a machine with nothing else to do.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from benchmarks.common import Printed, environment
from edgeface.cli.flags import DEFAULT_MODEL, program_of
from edgeface.cli.output import emit, table
from edgeface.errors import OptionError
from edgeface.models import get_architecture
from edgeface.training import TrainOptions, train_model

SIZES = (320, 640)
WAIT_LIMIT = 0.10
"""the project's bound on the share of time spent waiting for data"""


def package_photos(folder: Path, copies: int = 24) -> Path:
    """Write public-domain portraits (scikit-image) into ``folder``, with their faces; returns the annotations."""
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


def measure(model: str, size: int, steps: int, batch: int, precision: str, compiled: bool, data: Path,
            annotations: Path | None, folder: Path) -> dict[str, Any]:
    """Train ``steps`` steps and return the medians of the log's lines after the first, which holds the warm-up."""
    options = TrainOptions(samples=steps * batch, batch=batch, size=size, late_share=0.0, precision=precision,
                           compile=compiled, checkpoint_every=10**9, snapshot_every=10**9)
    run = folder / f"{model}-{size}"
    train_model(get_architecture(model), options, data, run, annotations, folder / "cache")
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[1:]
    return {"size": size, "images_per_s": statistics.median(float(r["images_per_s"]) for r in rows),
            "wait_share": statistics.median(float(r["wait_share"]) for r in rows)}


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Of the command line."""

    model: str = DEFAULT_MODEL
    """network that is trained"""
    data: Path | None = None
    """WIDER FACE folder; default: photos of the installed packages"""
    steps: int = 100
    """optimiser steps at each size, at least 50"""
    batch: int = 32
    """images per step"""
    precision: str = "fp32"
    """fp32 or bf16"""
    compile: bool = True
    """as of edgeface train"""

    def __post_init__(self) -> None:
        if self.steps < 50:
            raise OptionError("--steps must be at least 50: the log has a line every 25 steps and the first is warm-up")


def _run(o: Options) -> int:
    """Returns 1 when more time than the bound is spent waiting for data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        annotations = None if o.data else package_photos(folder)
        rows = [measure(o.model, size, o.steps, o.batch, o.precision, o.compile, o.data or folder, annotations, folder)
                for size in SIZES]
    result = {"model": o.model, "batch": o.batch, "precision": o.precision, "compile": o.compile,
              "data": "WIDER FACE" if o.data else "package photos", "rows": rows, "environment": environment("torch")}
    lines = table(("crop px", "img/s", "waiting for data"),
                  [(r["size"], f"{r['images_per_s']:.1f}", f"{r['wait_share']:.1%}") for r in rows])
    worst = max(float(r["wait_share"]) for r in rows)
    verdict = f"waiting at most {worst:.1%}, limit {WAIT_LIMIT:.0%}: {'held' if worst < WAIT_LIMIT else 'NOT held'}"
    emit(result, f"training {o.model}, batch {o.batch}, {o.precision}\n{lines}\n{verdict}", o.format, o.save)
    return 0 if worst < WAIT_LIMIT else 1


main = program_of(Options, "python -m benchmarks.training_speed", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
