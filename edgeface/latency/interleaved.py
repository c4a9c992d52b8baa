"""Runners measured in turn in one process, so that whatever slows the machine slows them alike.

Only ratios of one such run are worth quoting: on a shared machine the same network differs by half from run to run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import OptionError
from edgeface.runners import Runner

WARM_UP = 3
NOISE_SIDE_PX = 320
Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Timing:
    """One call; of a runner: array to tensor, network, outputs to NumPy, no decoding."""

    cpu_median_ms: float
    """process CPU time, all threads together"""
    cpu_min_ms: float
    wall_median_ms: float
    wall_p90_ms: float
    runs: int

    def to_json(self) -> dict[str, float]:
        """All fields."""
        return asdict(self)


def side_by_side(runners: Mapping[str, Runner], rounds: int = 20, per_round: int = 5, seed: int = 0,
                 tick: Tick | None = None) -> dict[str, Timing]:
    """Time ``runners`` on a noise image each, as :func:`interleave` does. A runner of any size gets 320x320 px."""
    random = np.random.default_rng(seed)
    batches = {name: _noise(runner, random) for name, runner in runners.items()}
    calls = {name: partial(runner.run, batches[name]) for name, runner in runners.items()}
    return interleave(calls, rounds, per_round, seed, tick)


def interleave(calls: Mapping[str, Callable[[], object]], rounds: int = 20, per_round: int = 5, seed: int = 0,
               tick: Tick | None = None) -> dict[str, Timing]:
    """Time ``calls`` in turn: ``rounds`` times all of them in shuffled order, ``per_round`` runs of each at a stretch.

    ``tick``: ("measuring latency", done, total) after every stretch. Raises OptionError for less than one round or run.
    """
    if rounds < 1 or per_round < 1:
        raise OptionError(f"rounds and runs per round must be at least 1, got {rounds} and {per_round}")
    random = np.random.default_rng(seed)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    for done in range(rounds):
        for i, pick in enumerate(random.permutation(len(calls))):
            name = list(calls)[pick]
            samples[name] += [_run_ms(calls[name]) for _ in range(per_round)]
            if tick:
                tick("measuring latency", done * len(calls) + i + 1, rounds * len(calls))
    return {name: _timing(np.array(values)) for name, values in samples.items()}


def _noise(runner: Runner, random: np.random.Generator) -> NDArray[np.uint8]:
    side = math.ceil(NOISE_SIDE_PX / runner.layout.strides[-1]) * runner.layout.strides[-1]
    width, height = runner.input_size or (side, side)
    return random.integers(0, 256, (1, height, width, 3), dtype=np.uint8)


def _run_ms(call: Callable[[], object]) -> tuple[float, float]:
    """(CPU, wall) of one run."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def _timing(samples: NDArray[np.float64]) -> Timing:
    cpu, wall = samples.T
    return Timing(float(np.median(cpu)), float(cpu.min()), float(np.median(wall)), float(np.quantile(wall, 0.9)),
                  len(samples))
