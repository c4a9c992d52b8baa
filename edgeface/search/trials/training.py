"""Short trainings, all by the same recipe, and their evaluation, which compare networks.

A short training says nothing about what a network could reach, but much about which of two reaches
more. It resumes where it was interrupted, and ends with AP on photos that it was not trained on, by
the protocol of ``edgeface eval``: official WIDER FACE figures, or those of a user's own
annotations.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.architecture.architecture import Architecture
from edgeface.bundle import PLAIN_NAME
from edgeface.errors import DataError, ImageError, TrainingError, counted
from edgeface.schema import from_fields, short
from edgeface.training.options import LOG_EVERY, TrainOptions
from edgeface.types import Progress, unseen

if TYPE_CHECKING:
    from edgeface.images.reading import OnError

SAMPLES = 19_200
BATCH = 16
SIZE_PX = 256


def recipe(
    samples: int = SAMPLES,
    batch: int = BATCH,
    size: int = SIZE_PX,
    seed: int = 0,
    compile: bool = True,
) -> TrainOptions:
    """The options of a short training: the averages follow faster and the warm-up is shorter than
    in a long one.

    size: side of the crops, px, from the first to the last. Raises OptionError.
    """
    steps = -(-samples // batch)
    return TrainOptions(
        samples=samples,
        batch=batch,
        size=size,
        late_size=size,
        late_share=0.0,
        seed=seed,
        warmup=max(1, steps // 10),
        decay_share=0.5,
        ema=0.98,
        compile=compile,
        checkpoint_every=max(1, steps // 8),
        snapshot_every=steps,
    )


@dataclass(frozen=True)
class Plan:
    """Recipe of a short training, and the places of its files. Paths are text, because a plan is
    sent to other processes and machines as JSON."""

    options: TrainOptions
    data: str
    """WIDER FACE folder, or a folder of photos with :attr:`annotations`"""
    annotations: str | None
    cache: str
    """folder of the decoded photos"""
    runs: str
    """folder of run folders, each named after its network and seed"""
    validation: str
    """WIDER FACE folder with validation photos and ground truth, or with :attr:`kept` a folder of
    photos"""
    threads: int = 1
    kept: str | None = None
    """annotations of the photos that AP is measured on, where they are the user's own"""

    @property
    def half(self) -> int:
        """Step at which the learning rate begins to fall and hopeless trials end: a step with a
        line in the log, or the last step."""
        steps = self.options.steps
        return steps // 2 // LOG_EVERY * LOG_EVERY or steps

    def run_of(self, architecture: Architecture) -> Path:
        """Run folder of the training of ``architecture``. Raises DataError for a name that is no
        name of a file: the folder of a search may be somebody else's, and holds such names."""
        if not PLAIN_NAME.fullmatch(architecture.name):
            raise DataError(
                f"{short(architecture.name)} cannot be trained, its files are named after it;"
                " accepted: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
            )
        return Path(self.runs) / f"{architecture.name}-seed{self.options.seed}"

    def item(self, architecture: Architecture) -> dict[str, Any]:
        """Argument of :func:`train_item` and :func:`train_half_item`."""
        return {"plan": dataclasses.asdict(self), "architecture": architecture.to_json()}

    @classmethod
    def of_item(cls, item: dict[str, Any]) -> tuple[Plan, Architecture]:
        """Inverse of :meth:`item`."""
        return from_fields(cls, item["plan"], "plan"), Architecture.from_json(item["architecture"])


@dataclass(frozen=True)
class Trained:
    """Result of a short training."""

    name: str
    easy: float
    medium: float
    hard: float
    """this and the two above: AP, 0 to 1"""
    cls_loss: float
    box_loss: float
    """both losses: of the last steps, from the run's log"""
    protocol: str
    """evaluation protocol, in words"""


def train_item(item: dict[str, Any]) -> dict[str, Any] | None:
    """:func:`train_briefly` as a task of :mod:`edgeface.workers`, with JSON-ready data in and out.
    A training that diverged returns only its error message, as ``failed``."""
    try:
        found = train_briefly(*Plan.of_item(item))
    except TrainingError as error:
        return {"failed": str(error)}
    return dataclasses.asdict(found) if found else None


def train_half_item(item: dict[str, Any]) -> dict[str, Any] | None:
    """Like :func:`train_item`, but only to the middle; returns the ``loss`` (:func:`half_loss`)."""
    plan, architecture = Plan.of_item(item)
    try:
        _train(plan, architecture, plan.half)
    except TrainingError as error:
        return {"failed": str(error)}
    loss = half_loss(plan, architecture)
    return None if loss is None else {"loss": loss}


def train_briefly(plan: Plan, architecture: Architecture) -> Trained | None:
    """Train ``architecture`` to the end, resuming its run, and evaluate it; None if it was stopped.

    Raises an EdgefaceError: see :func:`edgeface.training.train_model` and
    :func:`edgeface.evaluation.evaluate_model`.
    """
    done = _train(plan, architecture)
    return _evaluated(plan, architecture, plan.run_of(architecture)) if done else None


def _train(plan: Plan, architecture: Architecture, until: int | None = None) -> bool:
    from edgeface.training import train_model

    run = plan.run_of(architecture)
    run.mkdir(parents=True, exist_ok=True)
    annotations = Path(plan.annotations) if plan.annotations else None
    with (run / "messages.txt").open("a") as messages, contextlib.redirect_stderr(messages):
        # several trainings at once: their progress bars would overwrite each other
        return train_model(
            architecture,
            plan.options,
            Path(plan.data),
            run,
            annotations,
            Path(plan.cache),
            threads=plan.threads,
            until=until,
            on_error=_known,
        )


def half_loss(plan: Plan, architecture: Architecture) -> float | None:
    """Classification plus box loss, mean of the second quarter of the steps; None if the run has
    not come so far. All trials see the same crops, so that losses can be compared."""
    rows = _rows(plan.run_of(architecture) / "log.csv")
    steps = [int(row["step"]) for row in rows]
    losses = [
        float(row["cls_loss"]) + float(row["box_loss"])
        for step, row in zip(steps, rows, strict=True)
        if plan.half // 2 <= step <= plan.half
    ]
    return sum(losses) / len(losses) if losses and steps[-1] >= plan.half else None


def _known(error: ImageError) -> None:
    """Ignore a photo that cannot be read: :func:`prepare` has reported it."""


def prepare(plan: Plan, on_error: OnError | None = None, progress: Progress = unseen) -> None:
    """Decode the photos, and check that there are photos to evaluate on.

    Otherwise all trainings that start together would decode the photos, and would notice only at
    their end that there is nothing to evaluate on. Raises DataError, and ImageError for a photo
    that cannot be read; with ``on_error`` that is called instead, and all trials leave it out.
    """
    from edgeface.evaluation.own import check_inside
    from edgeface.evaluation.predict import annotated_photos
    from edgeface.training import open_photos

    check_inside(*annotated_photos(plan.validation, plan.kept), on_error, progress)
    annotations = Path(plan.annotations) if plan.annotations else None
    open_photos(
        Path(plan.data), annotations, Path(plan.cache), progress=progress, on_error=on_error
    )


def _evaluated(plan: Plan, architecture: Architecture, run: Path) -> Trained:
    from edgeface.detector import Detector
    from edgeface.evaluation.predict import (
        NMS_IOU,
        SCORE_THRESHOLD,
        annotated_photos,
        evaluate_detector,
    )
    from edgeface.runners.torch import TorchRunner
    from edgeface.zoo import load_weights_file, network_with

    ground_truth, photos = annotated_photos(plan.validation, plan.kept)
    network = network_with(architecture, load_weights_file(run / "weights.safetensors"))
    with Detector(TorchRunner(network, plan.threads), SCORE_THRESHOLD, NMS_IOU) as detector:
        report = evaluate_detector(
            detector, architecture.name, ground_truth, photos, on_error=_known
        ).report
    log = _rows(run / "log.csv")[-1]
    return Trained(
        architecture.name,
        report.easy or 0.0,
        report.medium or 0.0,
        report.hard or 0.0,
        float(log["cls_loss"]),
        float(log["box_loss"]),
        f"{counted(report.images, 'photo')}, {report.protocol}",
    )


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        rows = []
    if not rows:
        raise DataError(f"{path} holds no step of the training: delete {path.parent} and run again")
    return rows
