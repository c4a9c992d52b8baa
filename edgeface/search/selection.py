"""Ranking and selection of a search's networks: pure functions of scores and measurements."""

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
"""least number of parts (blocks, neck, head, input size) in which two networks of one round differ,
as long as there are enough such networks"""
FRONT_SHARE = 2
"""A search with a latency budget also looks for the best network of each lower latency: by more
generations, 1 / FRONT_SHARE of the usual number, and by 1 / FRONT_SHARE of each round's
measurements. Otherwise the front below the budget would consist of networks of round 0, which were
not searched for and are known least."""

Goal = tuple[tuple[float, ...], float]
"""values to minimise, and by how much the limits are exceeded (0 or less: they are kept)"""


def objective(options: StudyOptions, network: ScoredNetwork) -> Goal:
    """The goal that the search's options set."""
    cost = math.log(max(network.cost, 1e-9))
    values = {
        "budget": (-network.score,),
        "pareto": (-network.score, cost),
        "weighted": (options.exchange * cost - network.score,),
    }[options.objective]
    return values, broken(options, network)


def front_objective(options: StudyOptions, network: ScoredNetwork) -> Goal:
    """The goal for the front below the limits: score against cost."""
    return (-network.score, math.log(max(network.cost, 1e-9))), broken(options, network)


def broken(options: StudyOptions, network: ScoredNetwork) -> float:
    """Largest excess over a budget, as a share of it; 0 or less: all budgets are kept."""
    over = network.predicted_ms / options.budget_ms - 1 if options.budget_ms else 0.0
    if options.budget_mmacs:
        macs = macs_of(network.architecture, *parse_size(network.size))
        over = max(over, macs / (1e6 * options.budget_mmacs) - 1)
    return over


def within(options: StudyOptions, network: ScoredNetwork) -> bool:
    """Does ``network`` keep the limits?"""
    return broken(options, network) <= 0


def seeks_front_below(options: StudyOptions) -> bool:
    """Does the search also look for the front below its latency budget?"""
    return options.objective == "budget" and options.budget_ms > 0


def pick(options: StudyOptions, seen: Sequence[ScoredNetwork], count: int) -> list[ScoredNetwork]:
    """The ``count`` most promising networks within the limits, no two almost alike if possible."""
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
    """The non-dominated ones of the measured ``nets``, cheapest first."""
    kept = list(nets)
    best = nondominated([(-net.score, net.cost(options.cost)) for net in kept])
    return sorted((kept[i] for i in best), key=lambda net: net.cost(options.cost))


def as_measured(options: StudyOptions, network: ScoredNetwork, ms: float) -> ScoredNetwork:
    """``network`` with its measured latency and cost in place of the predicted ones. Networks of
    round 0 have no prediction."""
    cost = COSTS[options.cost].of(network.candidate, ms)
    return dataclasses.replace(network, predicted_ms=ms, cost=cost)


def differences(a: ScoredNetwork, b: ScoredNetwork) -> int:
    """Number of parts in which two networks differ; blocks are aligned at c5."""
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
    """``picked``, then the first of ``ranked`` that are unlike all before them; if these are too
    few, the first of the others: ``count`` in all."""
    found = list(picked)
    for i in ranked:
        if len(found) < count and all(
            differences(good[i], good[other]) >= LEAST_DIFFERENT for other in found
        ):
            found.append(i)
    return found + [i for i in ranked if i not in found][: count - len(found)]
