"""Which networks are chosen, from invented evaluations."""

from __future__ import annotations

import dataclasses
import math

import pytest

from edgeface.architecture.layers import macs_of, params_of
from edgeface.search import selection
from edgeface.search.options import StudyOptions
from edgeface.search.results import COSTS, Candidate, FrontNet, ScoredNetwork
from edgeface.search.space import SPACES

SIZE = "320x256"


def scored(seed: int, score: float, ms: float) -> ScoredNetwork:
    return ScoredNetwork(SPACES["edge"].sample(seed), SIZE, score, ms, ms, (0.9 * ms, 1.1 * ms))


def measured(found: ScoredNetwork) -> FrontNet:
    candidate = found.candidate
    return FrontNet(
        found.architecture,
        SIZE,
        found.score,
        found.predicted_ms,
        found.interval_ms,
        found.predicted_ms,
        found.interval_ms,
        1,
        params_of(found.architecture),
        macs_of(found.architecture, 320, 256),
        candidate.memory,
    )


SEEN = [
    scored(0, 1.0, 2.0),
    scored(1, 2.0, 4.0),
    scored(2, 1.5, 5.0),
    scored(3, 3.0, 8.0),
    scored(4, 0.5, 9.0),
]


def test_objectives_by_hand() -> None:
    network = SEEN[1]
    budget, pareto = StudyOptions(budget_ms=5.0), StudyOptions(objective="pareto")
    weighted = StudyOptions(objective="weighted", exchange=2.0)
    objectives, excess = selection.objective(budget, network)
    assert objectives == (-2.0,) and excess == pytest.approx(-0.2)
    assert selection.objective(pareto, network) == ((-2.0, math.log(4.0)), 0.0)
    assert selection.objective(weighted, network) == ((2.0 * math.log(4.0) - 2.0,), 0.0)


def test_the_tighter_of_two_budgets_counts() -> None:
    macs = macs_of(SEEN[0].architecture, 320, 256)
    options = StudyOptions(budget_ms=100.0, budget_mmacs=macs / 2e6)
    assert selection.broken(options, SEEN[0]) == pytest.approx(1.0)
    assert not selection.within(options, SEEN[0])
    assert selection.within(dataclasses.replace(options, budget_mmacs=macs / 1e6), SEEN[0])


def test_the_best_within_the_budget_and_the_front_below_it() -> None:
    """Of two picks, one has the best score and one is the cheap end of the front."""
    assert selection.pick(StudyOptions(budget_ms=8.5), SEEN, 2) == [SEEN[3], SEEN[0]]
    assert selection.pick(StudyOptions(budget_ms=4.5), SEEN, 1) == [SEEN[1]]
    assert selection.pick(StudyOptions(budget_ms=1.0), SEEN, 3) == []


def test_a_near_twin_is_chosen_only_for_want_of_others() -> None:
    twin = dataclasses.replace(SEEN[3], score=2.9)
    options = StudyOptions(objective="weighted", exchange=0.0)
    assert selection.differences(twin, SEEN[3]) == 0
    assert selection.pick(options, [*SEEN[:2], SEEN[3], twin], 2) == [SEEN[3], SEEN[1]]
    assert selection.pick(options, [SEEN[3], twin], 2) == [SEEN[3], twin]


@pytest.mark.parametrize("cost", COSTS)
def test_no_network_of_the_front_is_beaten(cost: str) -> None:
    nets = [measured(found) for found in SEEN]
    kept = selection.front(StudyOptions(objective="pareto", cost=cost), nets)
    assert [net.cost(cost) for net in kept] == sorted(net.cost(cost) for net in kept)
    for net in nets:
        beaten = any(
            other.score >= net.score and other.cost(cost) <= net.cost(cost) and other != net
            for other in nets
        )
        assert beaten == (net not in kept)


@pytest.mark.parametrize("cost", COSTS)
def test_what_was_measured_takes_the_place_of_what_was_not_predicted(cost: str) -> None:
    unknown = dataclasses.replace(SEEN[1], cost=0.0, predicted_ms=0.0, interval_ms=(0.0, 0.0))
    known = selection.as_measured(StudyOptions(cost=cost), unknown, 4.0)
    assert (known.predicted_ms, known.cost) == (4.0, measured(SEEN[1]).cost(cost))


@pytest.mark.parametrize("cost", COSTS)
def test_a_cost_is_the_same_before_and_after_measuring(cost: str) -> None:
    found = SEEN[2]
    candidate = Candidate(found.architecture, SIZE)
    assert COSTS[cost].of(candidate, found.predicted_ms) == measured(found).cost(cost)
