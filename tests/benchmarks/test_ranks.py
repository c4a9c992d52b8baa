"""Rank correlations, against SciPy and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.research.ranks import correlate, kendall, spearman

stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")


def test_by_hand() -> None:
    """One of the six pairs is in the wrong order; two of the ranks are off by one."""
    x, y = np.array([[1.0, 2, 3, 4]]), np.array([[10.0, 30, 20, 40]])
    assert kendall(x, y) == pytest.approx([4 / 6])
    assert spearman(x, y) == pytest.approx([1 - 6 * 2 / (4 * 15)])
    assert kendall(x, -x) == spearman(x, -x) == pytest.approx([-1])


def test_ties_against_scipy() -> None:
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, 6, (20, 15)).astype(float), draw.integers(0, 9, (20, 15)).astype(float)
    assert kendall(x, y) == pytest.approx(
        [stats.kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)]
    )
    assert spearman(x, y) == pytest.approx(
        [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    )


def test_a_constant_has_no_correlation() -> None:
    found = correlate(np.ones(5), np.arange(5.0))
    values = (found.kendall, *found.kendall_interval, found.spearman, *found.spearman_interval)
    assert all(math.isnan(value) for value in values)


def test_intervals_are_seeded_and_cover() -> None:
    """95 % of the intervals should contain the true Kendall's tau.

    For normal pairs of correlation .7 it is 2 / pi arcsin .7."""
    draw, truth, held = np.random.default_rng(2), 2 / math.pi * math.asin(0.7), 0
    for _ in range(60):
        x = draw.standard_normal(24)
        found = correlate(
            x, 0.7 * x + math.sqrt(1 - 0.49) * draw.standard_normal(24), resamples=300
        )
        low, high = found.kendall_interval
        assert low <= found.kendall <= high
        held += low <= truth <= high
    assert 50 <= held <= 60
    x, y = draw.standard_normal((2, 10))
    assert correlate(x, y) == correlate(x, y) != correlate(x, y, seed=1)
