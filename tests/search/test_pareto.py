"""Pareto fronts match those found by comparing all pairs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeface.search.pareto import nondominated, spread

Points = list[tuple[float, float]]
costs = st.lists(
    st.tuples(st.integers(-5, 5).map(float), st.integers(1, 9).map(float)), max_size=30
)


@given(costs)
def test_nondominated_by_comparing_all_pairs(points: Points) -> None:
    kept = nondominated(points)
    for i, mine in enumerate(points):
        beaten = any(
            a <= mine[0] and b <= mine[1] and ((a, b) != mine or j < i)
            for j, (a, b) in enumerate(points)
        )
        assert beaten == (i not in kept)


@given(costs, st.integers(1, 8))
def test_spread_takes_from_the_front_first(points: Points, count: int) -> None:
    ranked = spread(points, count)
    front = nondominated(points)
    assert len(set(ranked)) == len(ranked)
    assert set(ranked[: len(front)]) == set(front)
