"""Rank correlations with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeface.types import Doubles

RESAMPLES = 2000
Interval = tuple[float, float]


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of two series; NaN if all values of one are equal."""

    kendall: float
    """tau-b"""
    kendall_interval: Interval
    """95 %, by bootstrap over the pairs"""
    spearman: float
    spearman_interval: Interval


def correlate(x: Doubles, y: Doubles, seed: int = 0, resamples: int = RESAMPLES) -> RankCorrelation:
    """Correlate two series of equal length, 2 or more; equal seeds give equal intervals."""
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


def _interval(values: Doubles) -> Interval:
    defined = values[np.isfinite(values)]
    low, high = np.quantile(defined, (0.025, 0.975)) if len(defined) else (math.nan, math.nan)
    return float(low), float(high)


def _cosine(first: Doubles, second: Doubles) -> Doubles:
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.where(scale > 0, (first * second).sum(1) / np.where(scale > 0, scale, 1), np.nan)
