"""``python -m benchmarks.learning_curve RUN --data WIDER``: accuracy of every snapshot of a
training run.

Writes curve.csv and curve.png into the run folder and prints the table. Snapshots already in
curve.csv are not evaluated again on the same photos, so it can be run while the training goes on.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.common import Printed, environment
from benchmarks.measured_on import measured_on, validation_photos
from edgeface.cli.flags import RESUMES, Argument, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.detector import Detector
from edgeface.errors import DataError
from edgeface.evaluation import evaluate_detector, load_ground_truth
from edgeface.evaluation.predict import present_images
from edgeface.files import atomic_write
from edgeface.models import Architecture
from edgeface.pages.figures import new_figure, save_figure
from edgeface.runners.torch import TorchRunner
from edgeface.types import Progress
from edgeface.zoo import load_weights_file, network_with

SETTINGS = ("easy", "medium", "hard")
FIELDS = ("step", "samples", "epoch", *SETTINGS)
CURVE = "curve.csv"
WRITTEN = {"architecture", "options", "images", "faces"}
"""keys of a run's config that the curve or the card needs"""


def evaluate_run(run: Path, data: Path, threads: int, progress: Progress) -> list[dict[str, Any]]:
    """Evaluate the snapshots of ``run`` that curve.csv lacks; returns all rows of these photos,
    sorted by step."""
    config = config_of(run)
    architecture = Architecture.from_json(config["architecture"])
    batch, images = int(config["options"]["batch"]), int(config["images"])
    ground_truth = load_ground_truth(data)
    photos = present_images(data, ground_truth)
    wanted = measured_on(validation_photos(data))
    kept = _read(run / CURVE)
    others = [row for row in kept if row["measured_on"] != wanted]
    rows = {row["step"]: row for row in kept if row["measured_on"] == wanted}
    for path in sorted((run / "snapshots").glob("step-*.safetensors")):
        step = int(path.stem.removeprefix("step-"))
        if step in rows:
            continue
        network = network_with(architecture, load_weights_file(path))
        with Detector(TorchRunner(network, threads), score_threshold=0.02) as detector:
            report = evaluate_detector(
                detector, path.stem, ground_truth, photos, progress=progress
            ).report
        rows[step] = {
            "step": step,
            "samples": step * batch,
            "epoch": round(step * batch / images, 2),
            **{s: None if (ap := getattr(report, s)) is None else round(ap, 4) for s in SETTINGS},
            "measured_on": wanted,
        }
        _write(run / CURVE, [*others, *(rows[s] for s in sorted(rows))])
    return [rows[s] for s in sorted(rows)]


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """AP of the settings that have faces against epochs."""
    figure = new_figure(6, 3.6)
    axes = figure.add_subplot()
    for setting in SETTINGS:
        known = [r for r in rows if r[setting] is not None]
        axes.plot(
            [r["epoch"] for r in known],
            [r[setting] for r in known],
            marker=".",
            label=setting,
        )
    axes.set(xlabel="epoch", ylabel="AP", title="WIDER FACE development images, long side 640")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def rows_of(path: Path, data: Path) -> list[dict[str, Any]]:
    """Rows of curve.csv that were measured on the photos in ``data``."""
    rows = _read(path)
    wanted = measured_on(validation_photos(data)) if rows else ""
    return [row for row in rows if row["measured_on"] == wanted]


def config_of(run: Path) -> dict[str, Any]:
    """What the training run in the folder ``run`` wrote about itself. Raises DataError for another
    folder."""
    path = run / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{run} is not the folder of a training run ({error}): make one with edgeface train"
        ) from None
    if not isinstance(config, dict) or not config.keys() >= WRITTEN:
        raise DataError(
            f"{run} is not the folder of a training run: {path} is another program's: make one with"
            " edgeface train"
        )
    return config


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_row(each) for each in csv.DictReader(file)]
    except (ValueError, TypeError, KeyError):
        raise DataError(
            f"{path} is damaged, or not of benchmarks.learning_curve: remove it and run again"
        ) from None


def _row(text: dict[str, str]) -> dict[str, Any]:
    """A row of curve.csv as it was measured."""
    return {
        "step": int(text["step"]),
        "samples": int(text["samples"]),
        "epoch": float(text["epoch"]),
        **{s: None if text[s] == "" else float(text[s]) for s in SETTINGS},
        "measured_on": text.get("measured_on", ""),  # earlier versions lack it
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, (*FIELDS, "measured_on"))
        writer.writeheader()
        writer.writerows(rows)


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    run: Annotated[Path, Argument("RUN")]
    """folder of a training run"""
    data: Path
    """WIDER FACE folder with the validation images"""
    threads: int = 1
    """CPU threads"""

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files that a later run reads, or that are the result."""
        return tuple(self.run / name for name in (CURVE, "curve.png", "config.json"))


def _run(o: Options) -> None:
    with Terminal() as terminal:
        rows = evaluate_run(o.run, o.data, o.threads, terminal.tick)
    if not rows:
        raise DataError(f"{o.run}/snapshots holds no snapshot yet")
    plot(o.run / "curve.png", rows)
    text = table(FIELDS, [[r[f] for f in FIELDS] for r in rows], FIELDS)
    emit(
        {"run": o.run.name, "rows": rows, "environment": environment("torch")},
        text,
        o.format,
        o.save,
    )


main = program_of(Options, "python -m benchmarks.learning_curve", __doc__, _run, RESUMES)


if __name__ == "__main__":
    sys.exit(main())
