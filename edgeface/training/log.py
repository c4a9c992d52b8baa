"""The log of a run: log.csv and curves.png."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeface.backends import has_module
from edgeface.files import atomic_write
from edgeface.pages.figures import new_figure, save_figure
from edgeface.training.options import LOG_EVERY, TrainOptions

LOG_FIELDS = (
    "step",
    "samples",
    "epoch",
    "size",
    "lr",
    "cls_loss",
    "box_loss",
    "landmark_loss",
    "positives",
    "images_per_s",
    "wait_share",
)
FIGURES = ("cls_loss", "box_loss", "landmark_loss", "positives", "gradient")
"""figures of a step; the norm of the gradient is not logged"""


def _is_whole(row: dict[str, Any], step: int) -> bool:
    """Is ``row`` a complete line of a log up to ``step``? A crash can cut lines short."""
    if not {"step"} <= row.keys() <= set(LOG_FIELDS) or None in row.values():  # too many, too few
        return False
    try:
        return int(row["step"]) <= step and all(
            float(value or 0) < math.inf for value in row.values()
        )
    except ValueError:
        return False


class Log:
    """Appends a line to log.csv every few steps.

    After a resume, lines past the checkpoint are dropped first.
    """

    def __init__(self, run: Path, step: int, images: int, enabled: bool) -> None:
        self.path, self.images, self.enabled, self.note = run / "log.csv", images, enabled, ""
        self.figures, self.since, self.waited = (
            torch.zeros(0, len(FIGURES)),
            time.perf_counter(),
            0.0,
        )
        if not enabled:
            return
        kept: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="", errors="replace") as file:
                # After a power loss there may be zero bytes, at which csv of Python 3.10 fails.
                rows = csv.DictReader(line.replace("\0", "") for line in file)
                kept = [row for row in rows if _is_whole(row, step)]
        with atomic_write(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            writer.writeheader()
            writer.writerows(kept)

    def add(self, step: int, o: TrainOptions, figures: Tensor) -> None:
        """Add FIGURES [steps, 5] of the steps up to ``step``.

        Their means are written when a line is due.
        """
        if not self.enabled:
            return
        self.figures = torch.cat([self.figures, figures])
        if step % LOG_EVERY and step != o.steps:
            return
        elapsed, steps = time.perf_counter() - self.since, len(self.figures)
        means = self.figures.double().mean(0).tolist()
        row: dict[str, Any] = {
            k: f"{v:.5g}" for k, v in zip(FIGURES, means, strict=True) if k in LOG_FIELDS
        }
        row |= {
            "step": step,
            "samples": step * o.batch,
            "epoch": f"{step * o.batch / self.images:.3f}",
            "size": o.size_at(step - 1),
            "lr": f"{o.lr_at(step - 1):.4g}",
            "images_per_s": f"{steps * o.batch / elapsed:.1f}",
            "wait_share": f"{self.waited / elapsed:.3f}",
        }
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, LOG_FIELDS).writerow(row)
        self.note = f"{row['images_per_s']} img/s  cls {row['cls_loss']}  box {row['box_loss']}"
        self.figures, self.since, self.waited = (
            torch.zeros(0, len(FIGURES)),
            time.perf_counter(),
            0.0,
        )

    def plot(self) -> None:
        """Draw the losses and the learning rate, if matplotlib is installed."""
        if not has_module("matplotlib"):
            return
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            return
        figure = new_figure(9, 3.2)
        for axis, name in zip(figure.subplots(1, 3), ("cls_loss", "box_loss", "lr"), strict=True):
            # An empty cell makes a gap.
            x, y = ([float(row[key] or "nan") for row in rows] for key in ("epoch", name))
            axis.plot(x, y, linewidth=1)
            axis.set(xlabel="epoch", title=name)
        save_figure(figure, self.path.with_name("curves.png"))
