"""Statistics of latency samples: all samples count, medians are of sorted lists, ratios come with
an interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeface.types import Doubles

TIE = 0.10
"""ratios nearer to 1 than this are called ties: repeated sessions of one machine differ by as
much"""
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Of one quantity in one measurement, in ms."""

    min: float
    median: float
    p90: float
    p99: float

    @classmethod
    def of(cls, samples_ms: Doubles) -> Summary:
        """Raises ValueError without samples."""
        median, p90, p99 = (float(v) for v in np.quantile(samples_ms, (0.5, 0.9, 0.99)))
        return cls(float(np.min(samples_ms)), median, p90, p99)

    def to_json(self) -> dict[str, float]:
        """min, median, p90, p99; a tenth of a microsecond is more than any clock here tells."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Ratio:
    """Median latency over that of the reference of the same run."""

    value: float
    low: float
    high: float
    """bounds of the 95 % bootstrap interval"""

    @property
    def verdict(self) -> str:
        """``tie``, ``faster`` or ``slower``: a tie unless the whole interval is more than 10 % away
        from 1."""
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

    Both arguments hold one array of samples per round, the same rounds. What is drawn again is
    whole rounds, in pairs: samples of one round share what the machine was doing then, and so do
    the two models.
    """
    own, other = _medians(rounds_ms), _medians(reference_ms)
    if len(own) != len(other) or not len(own):
        raise ValueError(
            f"{len(own)} and {len(other)} rounds: a ratio needs the same rounds of both"
        )
    picks = np.random.default_rng(seed).integers(0, len(own), (RESAMPLES, len(own)))
    return _ratio(
        rounds_ms, reference_ms, np.median(own[picks], axis=1) / np.median(other[picks], axis=1)
    )


def ratio_of_sessions(new_ms: list[Doubles], old_ms: list[Doubles], seed: int = 0) -> Ratio:
    """Like :func:`ratio` for two sessions: their rounds have nothing to do with each other and are
    drawn apart."""
    new, old = _medians(new_ms), _medians(old_ms)
    random = np.random.default_rng(seed)
    drawn = np.median(new[random.integers(0, len(new), (RESAMPLES, len(new)))], axis=1) / np.median(
        old[random.integers(0, len(old), (RESAMPLES, len(old)))], axis=1
    )
    return _ratio(new_ms, old_ms, drawn)


def relative_interval(rounds_ms: list[Doubles], seed: int = 0) -> float:
    """Width of the bootstrap interval of the median over the median: how much a repetition would
    differ."""
    own = _medians(rounds_ms)
    picks = np.random.default_rng(seed).integers(0, len(own), (RESAMPLES, len(own)))
    low, high = np.quantile(
        np.median(own[picks], axis=1), ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    )
    return float((high - low) / np.median(own))


def _ratio(own_ms: list[Doubles], other_ms: list[Doubles], drawn: Doubles) -> Ratio:
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    value = np.median(np.concatenate(own_ms)) / np.median(np.concatenate(other_ms))
    return Ratio(float(value), float(low), float(high))


def _medians(rounds_ms: list[Doubles]) -> Doubles:
    return np.array([np.median(samples) for samples in rounds_ms])
