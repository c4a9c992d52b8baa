"""Accuracy: the official WIDER FACE protocol, by setting and by face height, on any runner.

evaluation = evaluate_model("edgeface-n", "WIDER_ROOT", scale="640")
print(evaluation.report.to_json())
"""

from __future__ import annotations

from edgeface.evaluation.landmarks import LandmarkAccuracy, labelled_photos, measure_landmarks
from edgeface.evaluation.multiscale import MultiScaleDetector, box_vote
from edgeface.evaluation.plots import plot_curves
from edgeface.evaluation.predict import (
    Evaluation,
    Predictions,
    evaluate_detector,
    evaluate_model,
    present_images,
)
from edgeface.evaluation.predictions import (
    check_predictions,
    load_predictions,
    save_predictions,
)
from edgeface.evaluation.report import EvaluationProtocol, Report
from edgeface.evaluation.wider import GroundTruth, WiderResult, evaluate, load_ground_truth

__all__ = [
    "Evaluation",
    "EvaluationProtocol",
    "GroundTruth",
    "LandmarkAccuracy",
    "MultiScaleDetector",
    "Predictions",
    "Report",
    "WiderResult",
    "box_vote",
    "check_predictions",
    "evaluate",
    "evaluate_detector",
    "evaluate_model",
    "labelled_photos",
    "load_ground_truth",
    "load_predictions",
    "measure_landmarks",
    "plot_curves",
    "present_images",
    "save_predictions",
]
