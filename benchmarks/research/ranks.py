"""Rank correlations with intervals, and what a straight line through few networks predicts of those
left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeface.types import Doubles

RESAMPLES = 2000
PENALTY = 1.0
"""of the ridge regression, on features of mean 0 and variance 1: as much as one network weighs"""
Interval = tuple[float, float]


@dataclass(frozen=True)
class RankCorrelation:
    """Of two series; NaN where all of one are equal."""

    kendall: float
    """tau-b"""
    kendall_interval: Interval
    """95 %, from pairs drawn again with replacement"""
    spearman: float
    spearman_interval: Interval


def correlate(x: Doubles, y: Doubles, seed: int = 0, resamples: int = RESAMPLES) -> RankCorrelation:
    """Of two series of one length, 2 or more; the same for the same ``seed``."""
    again = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    tau, rho = (float(measure(x[None], y[None])[0]) for measure in (kendall, spearman))
    return RankCorrelation(
        tau, _interval(kendall(x[again], y[again])), rho, _interval(spearman(x[again], y[again]))
    )


def kendall(x: Doubles, y: Doubles) -> Doubles:
    """Tau-b of each row of two arrays [rows, n]; NaN where all of a row are equal."""
    pairs = np.triu_indices(x.shape[1], 1)
    first, second = (np.sign(v[:, pairs[0]] - v[:, pairs[1]]) for v in (x, y))
    return _cosine(first, second)


def spearman(x: Doubles, y: Doubles) -> Doubles:
    """Correlation of the ranks of each row of two arrays [rows, n]; NaN where all of a row are
    equal."""
    from scipy.stats import rankdata

    first, second = (rankdata(v, axis=1) - (x.shape[1] + 1) / 2 for v in (x, y))
    return _cosine(first, second)


def ridge(features: Doubles, target: Doubles, penalty: float = PENALTY) -> Doubles:
    """Coefficients [k] in units of ``target`` [n] per standard deviation of each of the
    ``features`` [n, k]; 0 for one that is the same everywhere."""
    scaled = _scaled(features, features)
    normal = scaled.T @ scaled + penalty * np.eye(scaled.shape[1])
    return np.asarray(np.linalg.solve(normal, scaled.T @ (target - target.mean())))


def leave_one_out(features: Doubles, target: Doubles, penalty: float = PENALTY) -> Doubles:
    """What the line through all others predicts of each. Worth nothing, its predictions run against
    ``target``: the mean of the others is the lower, the higher the one left out."""
    found = np.empty(len(target))
    for i in range(len(target)):
        others = np.arange(len(target)) != i
        weights = ridge(features[others], target[others], penalty)
        found[i] = _scaled(features[i], features[others]) @ weights + target[others].mean()
    return found


def _scaled(values: Doubles, like: Doubles) -> Doubles:
    spread = like.std(0)
    return np.asarray((values - like.mean(0)) / np.where(spread > 1e-9, spread, np.inf))


def _interval(values: Doubles) -> Interval:
    defined = values[np.isfinite(values)]
    low, high = np.quantile(defined, (0.025, 0.975)) if len(defined) else (math.nan, math.nan)
    return float(low), float(high)


def _cosine(first: Doubles, second: Doubles) -> Doubles:
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.where(scale > 0, (first * second).sum(1) / np.where(scale > 0, scale, 1), np.nan)
