"""The networks to measure first, on the measurements that come with the project."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from benchmarks.latency_model import TABLES
from edgeface.search.cover import cover
from edgeface.search.latency_model import LatencyModel
from edgeface.search.latency_table import LatencyTable

COUNT = 44


def error(table, records, learned):
    """Root mean square of the relative errors on the records not learned; of the worst, half."""
    model = LatencyModel(dataclasses.replace(table, records=tuple(records[i] for i in learned)))
    rest = [r for i, r in enumerate(records) if i not in set(learned)]
    predicted = model.predict([r.architecture for r in rest])
    errors = [p.ms / table.ms(r) - 1 for p, r in zip(predicted, rest, strict=True)]
    return float(np.sqrt(np.mean(np.clip(errors, -0.5, 0.5) ** 2)))


@pytest.mark.parametrize("kind", ["ncnn-fp32", "tflite-int8"])
def test_the_rest_is_predicted_better_than_from_random_ones(kind):
    table = LatencyTable.load(TABLES / f"{kind}-640x480-1t.json")
    records = [r for r in table.records if r.teaches]
    chosen = cover([r.architecture for r in records], (640, 480), table.setting.target, COUNT)
    assert len(set(chosen)) == COUNT
    draw = random.Random(0)
    by_chance = [error(table, records, draw.sample(range(len(records)), COUNT)) for _ in range(3)]
    assert error(table, records, chosen) < min(by_chance)


def test_more_than_there_are():
    table = LatencyTable.load(TABLES / "ncnn-fp32-640x480-1t.json")
    few = [r.architecture for r in table.records[:5]]
    assert sorted(cover(few, (640, 480), "ncnn", 9)) == list(range(5))
