"""Pareto fronts of two figures that are both better when smaller."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Costs = tuple[float, float]


def nondominated(costs: Sequence[Costs]) -> list[int]:
    """Indices of the ``costs`` that no other dominates, ascending; of equal ones, the first. A cost
    dominates another if it is at most as large in both figures and smaller in one."""
    kept, least = [], math.inf
    for i in sorted(range(len(costs)), key=lambda i: (costs[i][1], costs[i][0], i)):
        if costs[i][0] < least:
            kept.append(i)
            least = costs[i][0]
    return sorted(kept)


def spread(costs: Sequence[Costs], count: int) -> list[int]:
    """Indices front by front, until there are at least four times ``count``. Each front begins with
    the ``count`` that lie nearest to evenly spaced logarithms of the second figure."""
    left = list(range(len(costs)))
    ranked: list[int] = []
    while left and len(ranked) < 4 * count:
        front = [left[i] for i in nondominated([costs[i] for i in left])]
        left = [i for i in left if i not in set(front)]
        ranked += _evenly(front, [math.log(max(costs[i][1], 1e-9)) for i in front], count)
    return ranked


def _evenly(indices: Sequence[int], places: Sequence[float], count: int) -> list[int]:
    """All ``indices``; first the ``count`` nearest to evenly spaced places."""
    wanted = np.linspace(min(places), max(places), count)
    nearest = [int(np.argmin(np.abs(np.array(places) - place))) for place in wanted]
    order = list(dict.fromkeys(nearest)) + [i for i in range(len(indices)) if i not in set(nearest)]
    return [indices[i] for i in order]
