"""How well a latency model predicts the networks of a table that it was not fitted to."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.errors import DataError
from edgeface.predict.model import LatencyModel, Prediction
from edgeface.predict.table import LatencyTable, Record
from edgeface.search.space import SPACES
from edgeface.types import Doubles

HELD_OUT_FROM = 1000
"""seed of the first network of each space that is held out"""
WITHIN = 0.10
BATCHES, BATCH = 7, 2000
"""batches of predictions that are timed, and networks in each; the median batch counts"""


@dataclass(frozen=True)
class Score:
    """How well one predictor does on the networks held out."""

    within_10: float
    """share predicted within 10 % of what was measured"""
    spearman: float
    median_error: float

    @classmethod
    def of(cls, predicted: Doubles, measured: Doubles) -> Score:
        """Score ``predicted`` against ``measured``, both in ms."""
        from scipy.stats import spearmanr

        error = np.abs(predicted / measured - 1)
        return cls(
            round(float(np.mean(error <= WITHIN)), 4),
            round(float(spearmanr(predicted, measured)[0]), 4),
            round(float(np.median(error)), 4),
        )


@dataclass(frozen=True)
class Result:
    """How well each predictor does on one latency table."""

    table: LatencyTable
    learned: tuple[Record, ...]
    held_out: tuple[Record, ...]
    predictions: tuple[Prediction, ...]
    """of :attr:`held_out`"""
    model: Score
    flops: Score
    params: Score
    per_second: float
    """predictions of the latency model per second, on one core"""

    @property
    def measured_ms(self) -> Doubles:
        """Measured latency of the held-out networks."""
        return np.array([self.table.ms(r) for r in self.held_out])

    @property
    def covered(self) -> float:
        """Share of held-out networks whose error is within the 95 % intervals of prediction and
        measurement, added in quadrature."""
        inside = [
            abs(p.ms - ms) <= math.hypot(p.high_ms - p.ms, ms * record.width / 2)
            for p, ms, record in zip(self.predictions, self.measured_ms, self.held_out, strict=True)
        ]
        return float(np.mean(inside))

    @property
    def vouched(self) -> float:
        """Share predicted within 10 %, among the networks that the model does not flag as unlike
        those it was fitted to; a search would measure the flagged ones."""
        errors = [
            abs(p.ms / ms - 1)
            for p, ms in zip(self.predictions, self.measured_ms, strict=True)
            if not p.outside
        ]
        return float(np.mean(np.array(errors) <= WITHIN)) if errors else 0.0

    @property
    def learning_s(self) -> float:
        """Device time of the networks that the model was fitted to: their share of the table's."""
        return self.table.device_s * len(self.learned) / max(1, len(self.table.records))

    def to_json(self) -> dict[str, Any]:
        """Figures and their conditions."""
        setting = self.table.setting
        return {
            "target": setting.target,
            "precision": setting.precision,
            "runtime": self.table.runtime,
            "device": setting.device,
            "cpu": self.table.cpu,
            "threads": setting.threads,
            "width": setting.width,
            "height": setting.height,
            "within_10": self.model.within_10,
            "spearman": self.model.spearman,
            "median_error": self.model.median_error,
            "flops": {"within_10": self.flops.within_10, "spearman": self.flops.spearman},
            "params": {"within_10": self.params.within_10, "spearman": self.params.spearman},
            "held_out": len(self.held_out),
            "outside": sum(bool(p.outside) for p in self.predictions),
            "within_10_of_inside": round(self.vouched, 4),
            "in_95_interval": round(self.covered, 4),
            "learned": len(self.learned),
            "learning_device_minutes": round(self.learning_s / 60, 1),
            "predictions_per_second": round(self.per_second),
            "not_valid": len(self.table.records) - len(self.table.valid),
            "drift": round(self.table.drift, 4),
            "measured_ms": [round(float(ms), 3) for ms in self.measured_ms],
            "predicted_ms": [round(p.ms, 3) for p in self.predictions],
        }


def is_held_out(record: Record) -> bool:
    """Whether the network is held out, by the seed in its name."""
    return int(record.architecture.name.rpartition("-")[2]) >= HELD_OUT_FROM


def evaluate(latencies: LatencyTable) -> Result:
    """Fit the predictors and score them. Raises DataError for a table with too few valid
    records."""
    learned = tuple(r for r in latencies.records if r.teaches and not is_held_out(r))
    held_out = tuple(r for r in latencies.valid if is_held_out(r))
    if len(held_out) < 2:
        raise DataError(
            f"the table of {latencies.setting} has {len(held_out)} valid networks held out: go on"
            " with --measure"
        )
    model = LatencyModel(dataclasses.replace(latencies, records=learned))
    predictions = tuple(model.predict([r.architecture for r in held_out]))
    measured = np.array([latencies.ms(r) for r in held_out])
    taught = np.array([latencies.ms(r) for r in learned])
    return Result(
        latencies,
        learned,
        held_out,
        predictions,
        Score.of(np.array([p.ms for p in predictions]), measured),
        _line(
            [macs_of(r.architecture, *COUNTED_AT) for r in learned],
            taught,
            [macs_of(r.architecture, *COUNTED_AT) for r in held_out],
            measured,
        ),
        _line(
            [params_of(r.architecture) for r in learned],
            taught,
            [params_of(r.architecture) for r in held_out],
            measured,
        ),
        _speed(model),
    )


def _line(
    counts: Sequence[int], taught_ms: Doubles, asked: Sequence[int], measured_ms: Doubles
) -> Score:
    """Score of the predictor a + b count, fitted with the least squared relative error."""
    columns = np.column_stack([np.ones(len(counts)), np.array(counts, np.float64)])
    factors = np.linalg.lstsq(columns / taught_ms[:, None], np.ones(len(counts)), rcond=None)[0]
    return Score.of(
        np.column_stack([np.ones(len(asked)), np.array(asked, np.float64)]) @ factors, measured_ms
    )


def _speed(model: LatencyModel) -> float:
    """Predictions per second of networks as in a search: each is a mutant of an earlier one."""
    space, draw = SPACES["idw"], random.Random(0)
    asked, seconds = [space.sample(0)], []
    for _ in range(BATCHES):
        known = len(asked)
        while len(asked) < known + BATCH:
            asked.append(space.mutate(draw.choice(asked), draw))
        start = time.perf_counter()
        model.predict(asked[known:])
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds)
