"""Statistics of latency samples: all samples count, medians are exact, ratios have intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.types import Doubles

TIE = 0.10
"""ratios nearer to 1 than this are called ties: repeated sessions of one machine differ by as
much"""
RESAMPLES = 2000
CONFIDENCE = 0.95
CONFIDENT = 1.96
"""half the width of a 95 % interval of a normal distribution, in standard deviations"""


@dataclass(frozen=True)
class Summary:
    """Summary of one quantity in one measurement, in ms."""

    min: float
    median: float
    p90: float
    p99: float

    @classmethod
    def of(cls, samples_ms: Doubles) -> Summary:
        """Summarise samples. Raises ValueError or IndexError (of NumPy) if there are none."""
        median, p90, p99 = (float(v) for v in np.quantile(samples_ms, (0.5, 0.9, 0.99)))
        return cls(float(np.min(samples_ms)), median, p90, p99)

    def to_json(self) -> dict[str, float]:
        """min, median, p90, p99, rounded to 0.1 microseconds: no clock here resolves more."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Ratio:
    """Median latency divided by that of the reference, or of an older session."""

    value: float
    low: float
    high: float
    """bounds of the 95 % bootstrap interval"""

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` if the whole interval is over 10 % away from 1, else ``tie``."""
        if self.high < 1 - TIE:
            return "faster"
        return "slower" if self.low > 1 + TIE else "tie"

    def to_json(self) -> dict[str, Any]:
        """value, low, high, verdict."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "verdict": self.verdict,
        }


def ratio(rounds_ms: list[Doubles], reference_ms: list[Doubles], seed: int = 0) -> Ratio:
    """Ratio of medians with its bootstrap interval (Efron 1979, percentile method).

    Both arguments hold one array of samples per round, for the same rounds. Whole rounds are
    resampled, in pairs: the samples of a round, of both models, share what the machine was doing
    then.
    """
    count = len(rounds_ms)
    if count != len(reference_ms) or not count:
        raise ValueError(
            f"{count} and {len(reference_ms)} rounds: a ratio needs the same rounds of both"
        )
    picks = _picks(count, np.random.default_rng(seed))
    return _ratio(rounds_ms, reference_ms, picks, picks)


def ratio_of_sessions(new_ms: list[Doubles], old_ms: list[Doubles], seed: int = 0) -> Ratio:
    """Like :func:`ratio` for two sessions, whose unrelated rounds are resampled independently."""
    random = np.random.default_rng(seed)
    return _ratio(new_ms, old_ms, _picks(len(new_ms), random), _picks(len(old_ms), random))


def relative_interval(rounds_ms: list[Doubles], seed: int = 0) -> float:
    """Width of the bootstrap interval of the median, as a share of it.

    It tells how much a repetition would differ. The median is that of the rounds' medians.
    """
    own = _medians(rounds_ms)
    picks = _picks(len(own), np.random.default_rng(seed))
    low, high = np.quantile(
        np.median(own[picks], axis=1), ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    )
    return float((high - low) / np.median(own))


def _picks(count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Indices of ``count`` rounds drawn with replacement, [RESAMPLES, count]."""
    return random.integers(0, count, (RESAMPLES, count))


def _ratio(
    own_ms: list[Doubles],
    other_ms: list[Doubles],
    own_picks: NDArray[np.int64],
    other_picks: NDArray[np.int64],
) -> Ratio:
    """Ratio of the medians of all samples, with its interval.

    The median of the rounds' medians would be another quantity if rounds are short and latencies
    skewed, and need not lie in this interval.
    """
    value = np.median(np.concatenate(own_ms)) / np.median(np.concatenate(other_ms))
    drawn = _drawn_medians(own_ms, own_picks) / _drawn_medians(other_ms, other_picks)
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Ratio(float(value), float(low), float(high))


def _drawn_medians(rounds_ms: list[Doubles], picks: NDArray[np.int64]) -> Doubles:
    """Median of all samples of the rounds in each row of ``picks``, [RESAMPLES].

    The samples are sorted once; each counts as often as its round was drawn.
    """
    samples = np.concatenate(rounds_ms)
    order = np.argsort(samples)
    ordered = samples[order]
    round_of = np.repeat(np.arange(len(rounds_ms)), [len(each) for each in rounds_ms])[order]
    found = np.empty(len(picks))
    for i, pick in enumerate(picks):
        below = np.cumsum(np.bincount(pick, minlength=len(rounds_ms))[round_of])
        middle = np.searchsorted(below, ((below[-1] - 1) // 2, below[-1] // 2), side="right")
        found[i] = ordered[middle].mean()
    return found


def _medians(rounds_ms: list[Doubles]) -> Doubles:
    return np.array([np.median(samples) for samples in rounds_ms])
