"""Evolution of candidates: pymoo's genetic algorithms with the operators of a space.

The space draws, mutates and crosses networks. One objective is optimised by a genetic algorithm
with elitism, two by NSGA-II (Deb et al., IEEE TEC 2002). Limits are constraints: a candidate that
breaks one is worse than any that keeps all. All random choices depend on the seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgeface.errors import MissingExtraError
from edgeface.options import parse_size
from edgeface.predict.first_networks import first_networks
from edgeface.search.results import Candidate, Key, ScoredNetwork
from edgeface.search.selection import Goal
from edgeface.search.space import Space
from edgeface.types import Progress, unseen

try:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.crossover import Crossover
    from pymoo.core.duplicate import ElementwiseDuplicateElimination
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem
    from pymoo.core.sampling import Sampling
    from pymoo.optimize import minimize
except ImportError:
    raise MissingExtraError("pymoo", "search", "searching") from None

RESIZE = 0.1
"""share of mutations that change the input size, if the search has several"""
FRESH = 1_000_000
"""offset between the seeds of random networks in one round and in the next"""

CHOICE = 10
"""random networks drawn for each network of round 0"""
KNOWN_SHARE = 4
"""at most 1 / KNOWN_SHARE of the networks of round 0 come from the zoo"""

Judge = Callable[[Sequence[Candidate]], list[ScoredNetwork]]
Objective = Callable[[ScoredNetwork], Goal]


@dataclass(frozen=True)
class Pool:
    """The space and the input sizes that candidates are drawn from."""

    space: Space
    sizes: tuple[str, ...]

    def sample(self, seed: int) -> Candidate:
        """One candidate, the same for the same seed."""
        return Candidate(self.space.sample(seed), random.Random(seed).choice(self.sizes))

    def first(self, seed: int, count: int, target: str) -> list[Candidate]:
        """``count`` networks for each input size, because each size has its own latency model.

        They are networks of the zoo, and those random networks from which the latency of the others
        can be predicted best."""
        known = self.space.members()[: count // KNOWN_SHARE]
        found, each, count = [], CHOICE * count, count - len(known)
        for place, size in enumerate(self.sizes):
            drawn = [self.space.sample(seed + place * each + i) for i in range(each)]
            found += [
                Candidate(a, size)
                for a in (
                    *known,
                    *(
                        drawn[i]
                        for i in sorted(first_networks(drawn, parse_size(size), target, count))
                    ),
                )
            ]
        return found

    def mutate(self, candidate: Candidate, draw: random.Random) -> Candidate:
        """A neighbour of ``candidate``: another input size or a mutated network."""
        others = [size for size in self.sizes if size != candidate.size]
        if others and draw.random() < RESIZE:
            return Candidate(candidate.architecture, draw.choice(others))
        return Candidate(self.space.mutate(candidate.architecture, draw), candidate.size)

    def cross(self, first: Candidate, second: Candidate, draw: random.Random) -> Candidate:
        """A child of two candidates, with the input size of one of them."""
        child = self.space.cross(first.architecture, second.architecture, draw)
        return Candidate(child, draw.choice((first.size, second.size)))


def evolve(
    pool: Pool,
    judge: Judge,
    objective: Objective,
    start: Sequence[Candidate],
    population: int,
    generations: int,
    seed: int,
    progress: Progress = unseen,
    what: str = "evolving",
) -> dict[Key, ScoredNetwork]:
    """All candidates that were judged, by :attr:`Candidate.key`, in the order they came.

    start: members of the first generation; random ones fill it up. what: name of this step for
    ``progress``.
    """
    draw = random.Random(seed)
    problem = _Problem(judge, objective, partial(progress, what), generations)
    several = len(objective(judge([pool.sample(seed)])[0])[0]) > 1
    problem.n_obj = 2 if several else 1
    algorithm = (NSGA2 if several else GA)(
        pop_size=population,
        sampling=_Start(pool, start, seed),
        crossover=_Cross(pool, draw),
        mutation=_Mutate(pool, draw),
        eliminate_duplicates=_Same(),
    )
    minimize(problem, algorithm, ("n_gen", generations), seed=seed % 2**32, verbose=False)
    return problem.seen


class _Problem(Problem):  # type: ignore[misc]
    def __init__(
        self,
        judge: Judge,
        objective: Objective,
        progress: Callable[[int, int], None],
        generations: int,
    ) -> None:
        super().__init__(n_var=1, n_obj=1, n_ieq_constr=1)
        self.judge, self.objective, self.progress = judge, objective, progress
        self.seen: dict[Key, ScoredNetwork] = {}
        self.done, self.generations = 0, generations

    def _evaluate(self, X: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
        candidates = [row[0] for row in X]
        found = self.judge(candidates)
        self.seen.update(zip((c.key for c in candidates), found, strict=True))
        judged = [self.objective(evaluation) for evaluation in found]
        out["F"] = np.array([values for values, _ in judged])
        out["G"] = np.array([[broken] for _, broken in judged])
        self.done += 1
        self.progress(min(self.done, self.generations), self.generations)


class _Start(Sampling):  # type: ignore[misc]
    def __init__(self, pool: Pool, start: Sequence[Candidate], seed: int) -> None:
        super().__init__()
        self.pool, self.start, self.seed = pool, start, seed

    def _do(self, problem: Any, n_samples: int, **_: Any) -> Any:
        members = list(self.start[:n_samples])
        members += [
            self.pool.sample(FRESH * (self.seed + 1) + i) for i in range(n_samples - len(members))
        ]
        return _column(members)


class _Cross(Crossover):  # type: ignore[misc]
    def __init__(self, pool: Pool, draw: random.Random) -> None:
        super().__init__(2, 2)
        self.pool, self.draw = pool, draw

    def _do(self, problem: Any, X: Any, **_: Any) -> Any:
        children = np.empty_like(X)
        for pair in range(X.shape[1]):
            first, second = X[0, pair, 0], X[1, pair, 0]
            children[0, pair, 0] = self.pool.cross(first, second, self.draw)
            children[1, pair, 0] = self.pool.cross(second, first, self.draw)
        return children


class _Mutate(Mutation):  # type: ignore[misc]
    def __init__(self, pool: Pool, draw: random.Random) -> None:
        super().__init__()
        self.pool, self.draw = pool, draw

    def _do(self, problem: Any, X: Any, **_: Any) -> Any:
        return _column([self.pool.mutate(row[0], self.draw) for row in X])


class _Same(ElementwiseDuplicateElimination):  # type: ignore[misc]
    def is_equal(self, a: Any, b: Any) -> bool:
        return bool(a.X[0].key == b.X[0].key)


def _column(members: Sequence[Candidate]) -> Any:
    column = np.empty((len(members), 1), dtype=object)
    column[:, 0] = members
    return column
