"""Rank correlations and ridge regression, against SciPy, scikit-learn and cases worked out by
hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.research.ranks import correlate, kendall, leave_one_out, ridge, spearman

stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")


def test_by_hand() -> None:
    """Of six pairs one is the wrong way round; of the ranks two are one off."""
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
    """Of normal pairs of correlation .7, Kendall's tau is 2 / pi arcsin .7; 95 % of intervals
    should hold it."""
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


def test_ridge_against_scikit_learn() -> None:
    linear_model = pytest.importorskip(
        "sklearn.linear_model", reason="scikit-learn is not installed"
    )
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(3)
    features = draw.standard_normal((20, 4)) * [1, 10, 0.1, 3] + [0, 50, 1, -2]
    target = features @ [1, 0.2, 3, 0] + draw.standard_normal(20)
    model = make_pipeline(StandardScaler(), linear_model.Ridge(alpha=1.0))
    assert ridge(features, target) == pytest.approx(model.fit(features, target)[-1].coef_)
    assert leave_one_out(features, target) == pytest.approx(
        cross_val_predict(model, features, target, cv=LeaveOneOut())
    )


def test_what_is_left_out_is_not_seen() -> None:
    draw = np.random.default_rng(4)
    features, target = draw.standard_normal((12, 3)), draw.standard_normal(12)
    before = leave_one_out(features, target)
    target[5] += 100
    after = leave_one_out(features, target)
    assert after[5] == before[5] and (np.delete(after, 5) != np.delete(before, 5)).all()


def test_a_feature_that_is_the_same_everywhere_counts_nothing() -> None:
    features = np.column_stack([np.arange(8.0), np.full(8, 3.3)])
    weights = ridge(features, 2 * features[:, 0], penalty=0.001)
    assert weights == pytest.approx([2 * features[:, 0].std(), 0], rel=1e-3)
    features[-1, 1] = 4.0  # for all others it is: what is left out cannot be told by it
    assert np.isfinite(leave_one_out(features, features[:, 0])).all()


def test_nothing_learned_runs_against_the_target() -> None:
    """As its text says: the mean of the others."""
    target = np.arange(10.0)
    assert kendall(leave_one_out(np.ones((10, 2)), target)[None], target[None]) == pytest.approx(
        [-1]
    )
