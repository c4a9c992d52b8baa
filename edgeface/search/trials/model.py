"""Accuracy model: predicts a network's AP after a short training from trainings of other networks.

Gaussian process regression (Rasmussen and Williams 2006, section 2.7) of the logit of AP over a
network's layers and zero-cost scores (:func:`features`), all standardised, with one RBF kernel and
noise. On the 31 networks of ``benchmarks/evidence``, each predicted from the others, it ranks with
Kendall's tau .70, where the best single score has .57.

Trainings by another recipe reach another level of AP. A model fitted to these alone predicts the
search's own trials; how much higher the trials are on average, in logits, is added to these
trainings.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, params_of, parts_of
from edgeface.errors import DataError, MissingExtraError
from edgeface.latency.statistics import CONFIDENT
from edgeface.search.scores.macs import (
    by_stage,
    depth,
    stage_macs_score,
    trainable,
    unbypassed,
)
from edgeface.types import Doubles

try:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from threadpoolctl import threadpool_limits
except ImportError:
    raise MissingExtraError("scikit-learn", "search", "predicting accuracy") from None

LEAST_TRAININGS = 8
"""fewest trainings that a model is fitted to"""
STRIDES = (2, 4, 8, 16, 32)
LEAST_AP = 1e-3
"""lower bound on AP, that of a network that has learned nothing: the logit needs more than 0"""


@dataclass(frozen=True)
class Training:
    """Result of one short training of a network."""

    architecture: Architecture
    ap: float
    """0 to 1"""
    deviation: float = 0.0
    """standard deviation of the logit of :attr:`ap` if that is an estimate; 0: it was measured"""


@dataclass(frozen=True)
class Expected:
    """Predicted AP of a network."""

    ap: float
    """0 to 1"""
    low: float
    high: float
    """bounds of the 95 % interval"""
    hopeful: float
    """AP one standard deviation above: networks worth a trial are good or uncertain"""


class AccuracyModel:
    """Fitted on construction; the same trainings give the same model.

    own: trainings by the recipe that is predicted. known: trainings by another recipe. Raises
    DataError for fewer than :data:`LEAST_TRAININGS` in all."""

    def __init__(self, own: Sequence[Training], known: Sequence[Training] = ()) -> None:
        if len(own) + len(known) < LEAST_TRAININGS:
            raise DataError(
                f"an accuracy model needs {LEAST_TRAININGS} trainings at least, there are"
                f" {len(own) + len(known)}: give more --trials"
            )
        trainings = [*own, *known]
        rows = np.array([features(t.architecture) for t in trainings])
        # A property that all trainings share keeps its unit. Divided by its spread of 0, a network
        # that differs in it would be infinitely far from all others.
        spread = rows.std(axis=0)
        self._middle, self._spread = rows.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)
        x = (rows - self._middle) / self._spread
        y = np.array([logit(t.ap) for t in trainings])
        noise = np.array([t.deviation**2 for t in trainings]) + 1e-6
        split = len(own)
        if split and len(known) >= LEAST_TRAININGS:
            elsewhere = _fitted(x[split:], y[split:], noise[split:])
            y[split:] += float(np.mean(y[:split] - elsewhere.predict(x[:split])))
        self._process = _fitted(x, y, noise)

    def predict(self, architectures: Sequence[Architecture]) -> list[Expected]:
        """One prediction for each network."""
        if not architectures:
            return []
        rows = np.array([features(a) for a in architectures])
        with threadpool_limits(1):
            mean, deviation = self._process.predict(
                (rows - self._middle) / self._spread, return_std=True
            )
        return [
            Expected(*(_ap(m + share * d) for share in (0, -CONFIDENT, CONFIDENT, 1)))
            for m, d in zip(mean.tolist(), deviation.tolist(), strict=True)
        ]


def left_out(trainings: Sequence[Training]) -> list[Expected]:
    """Prediction for each network by a model fitted to all others."""
    found = []
    for place, one in enumerate(trainings):
        model = AccuracyModel([*trainings[:place], *trainings[place + 1 :]])
        found += model.predict([one.architecture])
    return found


def features(architecture: Architecture) -> Doubles:
    """Properties that may decide how well a network learns: multiply-accumulates and width of each
    stage, neck and head, size, and zero-cost scores. Raises ModelError for a network of another
    kind than searches produce."""
    stages = by_stage(architecture, *COUNTED_AT, lambda part: part.layers)
    neck, head = parts_of(architecture, *COUNTED_AT)[-2:]
    macs = [math.log(sum(layer.macs for layer in stages.get(s, ())) + 1e5) for s in STRIDES]
    widths = [
        math.log2(1 + max((layer.out_channels for layer in stages.get(s, ())), default=0))
        for s in STRIDES
    ]
    ends = [
        math.log(neck.macs),
        math.log(head.macs),
        math.log2(architecture.neck.channels),
        math.log2(architecture.head.channels),
        float(architecture.head.stack),
        float(architecture.head.depthwise),
    ]
    total = sum(layer.macs for layers in stages.values() for layer in layers)
    size = [math.log(total), math.log(params_of(architecture))]
    scores = [
        trainable(architecture),
        float(unbypassed(architecture)),
        stage_macs_score(architecture),
        float(depth(architecture)),
    ]
    return np.array([*macs, *widths, *ends, *size, *scores])


def logit(ap: float) -> float:
    """Logarithm of the odds, in which differences between good and between bad networks count
    alike."""
    kept = min(max(ap, LEAST_AP), 1 - LEAST_AP)
    return math.log(kept / (1 - kept))


def _ap(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _fitted(x: Doubles, y: Doubles, noise: Doubles) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0) * RBF(5.0, (1.0, 100.0)) + WhiteKernel(0.1, (1e-2, 1.0))
    process = GaussianProcessRegressor(
        kernel, alpha=noise / max(float(np.var(y)), 1e-9), normalize_y=True, random_state=0
    )
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter may end at its bound
        return process.fit(x, y)
