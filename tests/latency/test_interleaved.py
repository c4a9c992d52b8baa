"""Runners timed in turn: what is counted, in which order, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeface.bundle import Bundle
from edgeface.errors import OptionError
from edgeface.latency.interleaved import side_by_side
from edgeface.runners import open_runner


def test_every_runner_has_its_samples(exported: Callable[..., Bundle]) -> None:
    with open_runner(exported("onnx")) as one, open_runner(exported("onnx", dynamic=True)) as other:
        ticks: list[tuple[str, int, int]] = []
        found = side_by_side({"fixed": one, "any size": other}, rounds=3, per_round=2,
                             tick=lambda *values: ticks.append(values))
    assert set(found) == {"fixed", "any size"} and ticks == [("measuring latency", i + 1, 6) for i in range(6)]
    for timing in found.values():
        assert timing.runs == 6
        assert 0 < timing.cpu_min_ms <= timing.cpu_median_ms and 0 < timing.wall_median_ms <= timing.wall_p90_ms
        assert set(timing.to_json()) >= {"cpu_median_ms", "cpu_min_ms", "wall_median_ms", "wall_p90_ms"}


@pytest.mark.parametrize("counts", [(0, 5), (5, 0)])
def test_nothing_to_count(counts: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match="at least 1"):
        side_by_side({}, *counts)
