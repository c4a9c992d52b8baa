"""Trials that are stopped and resumed, with fake workers that know each network's loss."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeface.search.space import SPACES
from edgeface.types import unseen

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from edgeface.search.trials import oracle as module
from edgeface.search.trials.oracle import AccuracyOracle, Trial
from edgeface.search.trials.training import Plan, recipe, train_half_item

NETWORKS = [SPACES["edge"].sample(seed) for seed in range(10)]
LOSSES = {a.name: loss for a, loss in zip(NETWORKS, (5, 1, 8, 3, 9, 2, 7, 4, 6, 0), strict=True)}
FAILS_EARLY, FAILS_LATE = NETWORKS[9].name, NETWORKS[5].name


class Workers:
    """Workers stopped after ``left`` trainings, each half counting as one."""

    def __init__(self, left: int) -> None:
        self.left = left

    def run(
        self,
        task: Callable[..., Any],
        items: Sequence[dict[str, Any]],
        finished: Callable[[int, Any], None],
    ) -> None:
        for index, item in enumerate(items):
            self.left -= 1
            finished(index, self._trained(task, item) if self.left >= 0 else None)

    def _trained(self, task: Callable[..., Any], item: dict[str, Any]) -> dict[str, Any]:
        name = Plan.of_item(item)[1].name
        if task is train_half_item:
            return {"failed": "early"} if name == FAILS_EARLY else {"loss": float(LOSSES[name])}
        figures = dict.fromkeys(("easy", "medium", "hard", "cls_loss", "box_loss"), 0.5)
        return (
            {"failed": "late"} if name == FAILS_LATE else {"name": name, **figures, "protocol": ""}
        )


def trained(folder: Path, patch: pytest.MonkeyPatch, stops: Sequence[int]) -> dict[str, Trial]:
    """Trials of all networks, stopped after each number of trainings in ``stops`` and resumed."""
    for left in (*stops, 99):

        @contextlib.contextmanager
        def workers(*_: object, left: int = left) -> Iterator[Workers]:
            yield Workers(left)

        patch.setattr(module, "open_workers", workers)
        plan = Plan(recipe(64), "", None, "", str(folder), "")
        found = AccuracyOracle(plan, folder, (), 1, unseen, lambda _: None)
        with contextlib.suppress(KeyboardInterrupt):
            found.train(NETWORKS, "training")
    return {a.name: trial for a in NETWORKS if (trial := found.find(a))}


@pytest.mark.parametrize("stops", [(k,) for k in range(17)] + [(12, 1, 1, 1, 1)])
def test_stopped_and_gone_on_with_it_ends_the_same_ones(
    stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", monkeypatch, ())
    ended = {name for name, trial in whole.items() if trial.ap is None and not trial.failed}
    assert ended == {NETWORKS[i].name for i in (2, 4, 6)}, "a third of the nine, of largest loss"
    assert len(whole) == len(NETWORKS)
    assert trained(tmp_path / "stopped", monkeypatch, stops) == whole


def test_a_training_that_fails_late_keeps_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trained(tmp_path, monkeypatch, ())
    assert (found[FAILS_LATE].loss, found[FAILS_LATE].failed) == (2.0, "late")
    assert (found[FAILS_EARLY].loss, found[FAILS_EARLY].failed) == (0.0, "early")
