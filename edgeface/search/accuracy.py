"""Scores of networks in a search: a zero-cost score, or the AP predicted from trials.

Each round trains its share of the trials. It chooses among the measured networks that keep the
limits, by the AP one standard deviation above the prediction: networks expected to be good, or too
uncertain to be called bad. The choice is written before any of them is trained.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.architecture.architecture import Architecture
from edgeface.errors import OptionError
from edgeface.files import write_text
from edgeface.latency.cores import allowed
from edgeface.schema import read_rows, to_fields
from edgeface.search import selection
from edgeface.search.options import CHOSEN, StudyOptions
from edgeface.search.results import FrontNet, Round, ScoredNetwork
from edgeface.search.scores.registry import proxy
from edgeface.search.trials.known import checkout_tables, read_known
from edgeface.search.trials.model import LEAST_TRAININGS, AccuracyModel
from edgeface.search.trials.oracle import AccuracyOracle
from edgeface.search.trials.photos import plan_of
from edgeface.search.trials.training import recipe
from edgeface.types import Note, Progress

if TYPE_CHECKING:
    from edgeface.images.reading import OnError


class Scorer:
    """Accuracy estimates of one search. Raises OptionError for trials that have no photos or are
    too few, DataError for photos that they cannot be trained or measured on."""

    def __init__(
        self,
        options: StudyOptions,
        folder: Path,
        progress: Progress,
        note: Note,
        ray: str | None = None,
        on_error: OnError | None = None,
    ) -> None:
        self.options, self.folder = options, folder
        self.oracle = (
            _oracle(options, folder, progress, note, ray, on_error) if options.trials else None
        )

    def check(self) -> None:
        """Raise DataError if the search has trials and their photos cannot be used."""
        if self.oracle:
            self.oracle.check()

    @property
    def model(self) -> AccuracyModel | None:
        """Accuracy model fitted to the trials; None without trials or before there are enough."""
        return self.oracle.model if self.oracle else None

    def proxy(self, architecture: Architecture) -> float:
        """Zero-cost score of ``architecture``."""
        o = self.options
        return proxy(o.score, architecture, o.alpha, o.weights)

    def scores(self, architectures: Sequence[Architecture]) -> list[float]:
        """Predicted APs, 0 to 1, and 0 for failed trials; without a model, zero-cost scores."""
        if model := self.model:
            expected = model.predict(architectures)
            return [
                0.0 if self.failed(a) else x.ap
                for a, x in zip(architectures, expected, strict=True)
            ]
        return [self.proxy(a) for a in architectures]

    def failed(self, architecture: Architecture) -> bool:
        """Did the trial of ``architecture`` diverge?"""
        trial = self.oracle.find(architecture) if self.oracle else None
        return trial is not None and bool(trial.failed)

    def rescored(self, chosen: Round) -> Round:
        """``chosen`` with current scores: those from before the trials are on another scale."""
        if not self.oracle:
            return chosen
        scores = self.scores([e.architecture for e in chosen.picked])
        picked = tuple(
            dataclasses.replace(e, score=score)
            for e, score in zip(chosen.picked, scores, strict=True)
        )
        best = max((e.score for e in picked if selection.within(self.options, e)), default=0.0)
        return dataclasses.replace(chosen, picked=picked, best_score=best)

    def told(self, net: FrontNet) -> FrontNet:
        """``net`` with the AP that it reached in its trial, or else the predicted AP."""
        if not (self.oracle and self.model):
            return net
        (expected,) = self.model.predict([net.architecture])
        trial = self.oracle.find(net.architecture)
        return dataclasses.replace(
            net,
            score=expected.ap,
            ap=trial.ap if trial and trial.ap is not None else expected.ap,
            ap_interval=(expected.low, expected.high),
            trained=trial.trained if trial else 0,
        )

    def train(self, number: int, measured: Sequence[ScoredNetwork]) -> None:
        """Run the trials of round ``number``."""
        if self.oracle:
            chosen = self._stored(number) or self._choose(number, measured)
            self.oracle.train([e.architecture for e in chosen], "training")

    def _choose(self, number: int, measured: Sequence[ScoredNetwork]) -> list[ScoredNetwork]:
        trials, rounds = self.options.trials, self.options.rounds + 1
        before, after = (trials * n // rounds for n in (number, number + 1))
        chosen = self._promising(measured, after - before)
        write_text(self._path(number), json.dumps([to_fields(e) for e in chosen], indent=1) + "\n")
        return chosen

    def _promising(self, measured: Sequence[ScoredNetwork], count: int) -> list[ScoredNetwork]:
        assert self.oracle
        new = {e.candidate.key[0]: e for e in measured if self.oracle.find(e.architecture) is None}
        left = list(new.values())
        if model := self.model:
            expected = model.predict([e.architecture for e in left])
            left = [
                dataclasses.replace(e, score=x.hopeful) for e, x in zip(left, expected, strict=True)
            ]
        return selection.pick(self.options, left, count)

    def _path(self, number: int) -> Path:
        return self.folder / CHOSEN.format(number)

    def _stored(self, number: int) -> list[ScoredNetwork]:
        advice = "the trials of that round are chosen again"
        return read_rows(ScoredNetwork, self._path(number), advice)


def _oracle(
    options: StudyOptions,
    folder: Path,
    progress: Progress,
    note: Note,
    ray: str | None,
    on_error: OnError | None,
) -> AccuracyOracle:
    if not options.data:
        raise OptionError(
            "--trials needs photos to train on: give --data, WIDER FACE's folder, or one of photos"
            " with --annotations"
        )
    known = read_known(checkout_tables())
    if options.trials + len(known) < LEAST_TRAININGS:
        raise OptionError(
            f"--trials {options.trials} are too few to foresee AP from: give {LEAST_TRAININGS} at"
            " least, or search in a checkout, which knows some"
        )
    annotations = Path(options.annotations) if options.annotations else None
    short = recipe(options.trial_samples, seed=options.seed)
    plan = plan_of(folder, Path(options.data), annotations, short)
    jobs = options.jobs or max(1, len(allowed()))
    return AccuracyOracle(plan, folder, known, jobs, progress, note, ray, on_error)
