"""Statistics of samples for which the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgeface.latency import statistics
from edgeface.latency.statistics import Ratio, Summary, ratio, ratio_of_sessions, relative_interval


def rounds(
    median_ms: float, noise: float = 0.02, drift: np.ndarray | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Twenty rounds of ten samples; ``drift`` slows each round by its factor."""
    random = np.random.default_rng(seed)
    return [
        median_ms * factor * (1 + noise * random.standard_normal(10))
        for factor in (np.ones(20) if drift is None else drift)
    ]


def test_summary_of_unsorted_samples() -> None:
    samples = np.random.default_rng(0).permutation(np.arange(1.0, 102.0))
    assert Summary.of(samples) == Summary(1.0, 51.0, 91.0, 100.0)


def test_no_outlier_is_dropped() -> None:
    assert Summary.of(np.array([1.0] * 9 + [1000.0])).p99 > 900


def test_no_samples_no_summary() -> None:
    with pytest.raises((ValueError, IndexError)):
        Summary.of(np.array([]))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.95, 1.05, "tie"),
        (0.5, 0.95, "tie"),
        (0.5, 0.89, "faster"),
        (1.05, 3.0, "tie"),
        (1.11, 1.2, "slower"),
        (0.91, 0.92, "tie"),
        (1.01, 1.09, "tie"),
        (0.2, 5.0, "tie"),
    ],
)
def test_a_tie_unless_the_whole_interval_is_far_from_one(
    low: float, high: float, verdict: str
) -> None:
    assert Ratio((low + high) / 2, low, high).verdict == verdict


def test_ratio_finds_the_truth_within_its_interval() -> None:
    found = ratio(rounds(15, seed=1), rounds(10, seed=2))
    assert (
        found.low < 1.5 < found.high and found.high - found.low < 0.1 and found.verdict == "slower"
    )


def test_what_slows_both_models_of_a_round_widens_no_ratio() -> None:
    drift = np.random.default_rng(3).uniform(1, 3, 20)
    own, other = rounds(15, drift=drift, seed=1), rounds(10, drift=drift, seed=2)
    paired, apart = ratio(own, other), ratio_of_sessions(own, other)
    assert paired.high - paired.low < (apart.high - apart.low) / 2
    assert apart.low < 1.5 < apart.high


@pytest.mark.parametrize("per_round", [1, 2, 3, 10])
def test_a_ratio_lies_in_its_interval_however_skewed(per_round: int) -> None:
    """The median of two skewed samples is their mean, which is not the median of many."""
    for seed in range(40):
        random = np.random.default_rng(seed)
        skewed = [10 + random.exponential(2, per_round) for _ in range(30)]
        even = [10 + random.normal(0, 0.3, per_round) for _ in range(30)]
        for found in (ratio(skewed, even), ratio_of_sessions(skewed, even[:20])):
            assert found.low <= found.value <= found.high


def test_an_interval_is_of_what_is_drawn_of_all_samples() -> None:
    """Whole rounds are resampled and their samples pooled; rounds may differ in length."""
    random = np.random.default_rng(0)
    own = [random.uniform(1, 9, count) for count in (2, 5, 1, 4)]
    other = [random.uniform(1, 9, count) for count in (3, 3, 2, 6)]
    drawn = []
    for picks in np.random.default_rng(0).integers(0, 4, (statistics.RESAMPLES, 4)):
        of_both = [np.concatenate([rounds_[i] for i in picks]) for rounds_ in (own, other)]
        drawn.append(np.median(of_both[0]) / np.median(of_both[1]))
    found = ratio(own, other)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    assert found.value == np.median(np.concatenate(own)) / np.median(np.concatenate(other))


def test_equal_arguments_give_equal_intervals() -> None:
    assert ratio(rounds(15), rounds(10)) == ratio(rounds(15), rounds(10))
    assert ratio_of_sessions(rounds(15), rounds(10)[:7]) == ratio_of_sessions(
        rounds(15), rounds(10)[:7]
    )


def test_a_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="the same rounds of both"):
        ratio(rounds(10), rounds(10)[:-1])


def test_relative_interval_grows_with_what_moves_whole_rounds() -> None:
    quiet = relative_interval(rounds(10))
    moved = relative_interval(rounds(10, drift=np.random.default_rng(3).uniform(1, 3, 20)))
    assert quiet < 0.02 < 0.1 < moved
