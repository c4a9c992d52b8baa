"""``python -m benchmarks.peers_accuracy --data WIDER --peers PEERS``: accuracy of ours and
published models.

AP by the official WIDER FACE protocol on the validation photos that are there, with their long side
at 640 px, and, with --landmarks, the error of the five points where a model finds them. Every model
looks at the same photos, prepared and decoded as its authors do it (:mod:`benchmarks.peer_models`).
AP on part of the photos compares the models of one run with each other, not with published figures.
With --annotations, once of photos that a network was trained on and once of others, it tells how
much of a lead over a peer that saw neither is learned by heart.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import Printed, environment, left_out, shown
from benchmarks.peer_models import open_all
from edgeface.cli.failures import Failures
from edgeface.cli.flags import DEFAULT_MODEL, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.detector import Detector
from edgeface.errors import counted
from edgeface.evaluation import (
    evaluate_detector,
    labelled_photos,
    load_ground_truth,
    measure_landmarks,
    present_images,
)
from edgeface.evaluation.landmarks import LandmarkAccuracy
from edgeface.evaluation.own import own_photos
from edgeface.evaluation.predict import SCORE_THRESHOLD, Evaluation

SETTINGS = ("easy", "medium", "hard")


KEPT = "nothing is kept, the same command begins again"


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    data: Path
    """WIDER FACE folder with the validation photos"""
    peers: Path | None = None
    """folder of the peers' .onnx files; default: only ours"""
    annotations: Path | None = None
    """face boxes for other photos below --data: one AP over all, reported as hard"""
    landmarks: Path | None = None
    """landmark labels for photos below --data"""
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    """our models: names, weights files or Bundles"""
    threads: int = 1
    """CPU threads of each model"""


def measure(o: Options, failures: Failures) -> list[Evaluation]:
    """One evaluation for each model, ours first. Photos that cannot be read are reported, and left
    out for all models."""
    if o.annotations:
        ground_truth, images = own_photos(o.annotations, o.data)
    else:
        ground_truth = load_ground_truth(o.data)
        images = present_images(o.data, ground_truth)
    labelled = labelled_photos(o.landmarks, o.data) if o.landmarks else []

    terminal = failures.terminal

    def evaluate(name: str, detector: Detector) -> Evaluation:
        terminal.line(f"{name} ...")
        done = evaluate_detector(
            detector, name, ground_truth, images, progress=terminal.tick, on_error=failures
        )
        if not labelled or not detector.runner.layout.landmarks:
            return done
        points = measure_landmarks(detector, labelled, terminal.tick, failures)
        return replace(done, landmarks=points)

    with open_all(o.models, o.peers, SCORE_THRESHOLD, o.threads) as detectors:
        return [evaluate(name, detector) for name, detector in detectors.items()]


def as_json(done: Sequence[Evaluation]) -> dict[str, Any]:
    """What ``--format json`` prints: the report of each model with its landmark figures.

    They are null where a model has no landmarks.
    """
    without = LandmarkAccuracy(None, None, 0, 0)
    return {
        "rows": [each.report.to_json() | (each.landmarks or without).to_json() for each in done],
        "environment": environment("onnxruntime", "numpy"),
    }


def as_table(done: Sequence[Evaluation]) -> str:
    """Plain text, AP and errors as fractions."""
    rows = []
    for each in done:
        points = each.landmarks or LandmarkAccuracy(None, None, 0, 0)
        rows.append(
            (
                each.report.model,
                *(shown(getattr(each.report, s)) for s in SETTINGS),
                shown(points.nme),
                shown(points.failures),
                f"{points.matched}/{points.annotated}" if points.annotated else "-",
            )
        )
    below = f"{counted(done[0].report.images, 'photo')}; {done[0].report.protocol.evaluator}"
    return table(("model", *SETTINGS, "landmark error", "above .1", "faces"), rows) + f"\n{below}"


def _run(o: Options) -> int:
    with Terminal() as terminal:
        failures = Failures(terminal)
        done = measure(o, failures)
    emit(as_json(done), as_table(done), o.format, o.save)
    return left_out(failures)


main = program_of(Options, "python -m benchmarks.peers_accuracy", __doc__, _run, KEPT)


if __name__ == "__main__":
    sys.exit(main())
