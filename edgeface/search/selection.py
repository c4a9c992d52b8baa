"""Which networks of a search are better than which: pure functions of what was scored and what was
measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from edgeface.architecture.layers import macs_of
from edgeface.options import parse_size
from edgeface.search.options import StudyOptions
from edgeface.search.pareto import nondominated, spread
from edgeface.search.results import COSTS, FrontNet, ScoredNetwork

LEAST_DIFFERENT = 2
"""parts (blocks, neck, head) in which two networks of one round differ, as long as there are
such"""
FRONT_SHARE = 2
"""of a search within a latency budget, one network in so many is sought and measured for the front
below the budget: the best of each latency, where there would else be networks of round 0, unsought
and known least"""

Goal = tuple[tuple[float, ...], float]
"""what is made small, and by how much the limits are broken (at most 0: they are kept)"""


def objective(options: StudyOptions, network: ScoredNetwork) -> Goal:
    """What the search asks for."""
    cost = math.log(max(network.cost, 1e-9))
    values = {
        "budget": (-network.score,),
        "pareto": (-network.score, cost),
        "weighted": (options.exchange * cost - network.score,),
    }[options.objective]
    return values, broken(options, network)


def front_objective(options: StudyOptions, network: ScoredNetwork) -> Goal:
    """The front below the limits."""
    return (-network.score, math.log(max(network.cost, 1e-9))), broken(options, network)


def broken(options: StudyOptions, network: ScoredNetwork) -> float:
    """How far over the budgets, as a share of them."""
    over = network.predicted_ms / options.budget_ms - 1 if options.budget_ms else 0.0
    if options.budget_mmacs:
        macs = macs_of(network.architecture, *parse_size(network.size))
        over = max(over, macs / (1e6 * options.budget_mmacs) - 1)
    return over


def within(options: StudyOptions, network: ScoredNetwork) -> bool:
    """Does it keep the limits?"""
    return broken(options, network) <= 0


def seeks_front_below(options: StudyOptions) -> bool:
    """Is the front below a latency budget sought beside the best within it?"""
    return options.objective == "budget" and options.budget_ms > 0


def pick(options: StudyOptions, seen: Sequence[ScoredNetwork], count: int) -> list[ScoredNetwork]:
    """The ``count`` most promising ones, no two almost alike as far as possible."""
    good = [network for network in seen if within(options, network)]
    costs = [(-network.score, network.cost) for network in good]
    if options.objective == "pareto":
        return [good[i] for i in unlike(good, spread(costs, count), count)]
    ranked = sorted(
        range(len(good)), key=lambda i: (objective(options, good[i])[0], good[i].architecture.name)
    )
    share = count // FRONT_SHARE if seeks_front_below(options) else 0
    picked = unlike(good, ranked, count - share)
    if share:
        picked = unlike(good, spread(costs, share), count, picked)
    return [good[i] for i in picked]


def front(options: StudyOptions, nets: Iterable[FrontNet]) -> list[FrontNet]:
    """Those of measured networks that no other one beats, cheapest first."""
    kept = list(nets)
    best = nondominated([(-net.score, net.cost(options.cost)) for net in kept])
    return sorted((kept[i] for i in best), key=lambda net: net.cost(options.cost))


def as_measured(options: StudyOptions, network: ScoredNetwork, ms: float) -> ScoredNetwork:
    """``network`` with what it takes, and costs, in place of what was predicted. Of the networks of
    round 0 nothing was."""
    cost = COSTS[options.cost].of(network.candidate, ms)
    return dataclasses.replace(network, predicted_ms=ms, cost=cost)


def differences(a: ScoredNetwork, b: ScoredNetwork) -> int:
    """Parts in which two networks differ, blocks aligned at c5."""
    ours, theirs = (network.architecture.structure.split(")")[:-1][::-1] for network in (a, b))
    blocks = sum(x != y for x, y in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
    return (
        blocks
        + (a.architecture.neck != b.architecture.neck)
        + (a.architecture.head != b.architecture.head)
        + (a.size != b.size)
    )


def unlike(
    good: Sequence[ScoredNetwork], ranked: Sequence[int], count: int, picked: Sequence[int] = ()
) -> list[int]:
    """``picked`` and the first of ``ranked`` that are unlike all before them, ``count`` in all; for
    want of such ones, any."""
    found = list(picked)
    for i in ranked:
        if len(found) < count and all(
            differences(good[i], good[other]) >= LEAST_DIFFERENT for other in found
        ):
            found.append(i)
    return found + [i for i in ranked if i not in found][: count - len(found)]
