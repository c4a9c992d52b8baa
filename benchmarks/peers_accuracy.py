"""``python -m benchmarks.peers_accuracy --data WIDER --peers PEERS``: ours beside published ones.

AP by the official WIDER FACE protocol on the validation photos that are there, with their long side
at 640 px, and, with --landmarks, the error of the five points where a model finds them. Every model
looks at the same photos, prepared and decoded as its authors do it (:mod:`benchmarks.peer_models`).
AP on part of the photos compares the models of one run with each other, not with published figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import emit, environment, exit_code, table
from benchmarks.peer_models import open_all
from edgeface.detector import Detector
from edgeface.evaluation import (
    evaluate_detector,
    labelled_photos,
    load_ground_truth,
    measure_landmarks,
    present_images,
)
from edgeface.evaluation.landmarks import LandmarkAccuracy
from edgeface.evaluation.predict import SCORE_THRESHOLD, Evaluation

SETTINGS = ("easy", "medium", "hard")


def measure(o: argparse.Namespace) -> list[Evaluation]:
    """One evaluation for each model, ours first."""
    ground_truth = load_ground_truth(o.data)
    images = present_images(o.data, ground_truth)
    labelled = labelled_photos(o.landmarks, o.data) if o.landmarks else []

    def evaluate(name: str, detector: Detector) -> Evaluation:
        print(f"{name}: AP on {len(images)} photos ...", file=sys.stderr, flush=True)
        done = evaluate_detector(detector, name, ground_truth, images, progress=True)
        if not labelled or not detector.runner.layout.landmarks:
            return done
        print(f"{name}: landmarks on {len(labelled)} photos ...", file=sys.stderr, flush=True)
        return replace(done, landmarks=measure_landmarks(detector, labelled))

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
                *(_figure(getattr(each.report, s)) for s in SETTINGS),
                _figure(points.nme),
                _figure(points.failures),
                f"{points.matched}/{points.annotated}" if points.annotated else "-",
            )
        )
    below = f"{done[0].report.images} photos; {done[0].report.protocol.evaluator}"
    return table(("model", *SETTINGS, "landmark error", "above .1", "faces"), rows) + f"\n{below}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers_accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="WIDER FACE folder with the validation photos"
    )
    parser.add_argument(
        "--peers", type=Path, help="folder of the peers' .onnx files; default: ours alone"
    )
    parser.add_argument(
        "--landmarks", type=Path, help="labels of five points; their photos lie below --data"
    )
    parser.add_argument(
        "--models", nargs="+", default=["edgeface-n"], metavar="NAME_OR_BUNDLE", help="ours"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--save", type=Path, help="also write the JSON to this file")
    o = parser.parse_args(arguments)
    return exit_code(lambda: _run(o))


def _run(o: argparse.Namespace) -> int:
    done = measure(o)
    emit(as_json(done), as_table(done), o.format, o.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
