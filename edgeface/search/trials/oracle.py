"""Accuracy of networks in a search: predicted by a model or reached in a short training (a trial).

Several trials are trained at once, one per processor, on this machine or on a Ray cluster. All see
the same crops, so their losses are comparable in the middle of a training, where the learning rate
begins to fall. The third of each group with the largest losses ends there (successive halving;
Jamieson and Talwalkar, AISTATS 2016); the AP that they would have reached is estimated from the
losses and APs of the others.

Each result is written as soon as it is known; an interrupted trial resumes from its checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeface.architecture.architecture import Architecture
from edgeface.errors import TrainingError
from edgeface.files import write_text
from edgeface.predict.table import anonymous
from edgeface.schema import from_fields, read_rows, to_fields
from edgeface.search.trials import TRIALS
from edgeface.search.trials.model import LEAST_TRAININGS, AccuracyModel, Training, logit
from edgeface.search.trials.training import Plan, Trained, prepare, train_half_item, train_item
from edgeface.types import Note, Progress
from edgeface.workers import open_workers

if TYPE_CHECKING:
    from edgeface.images.reading import OnError

LOST = "its trials are read from their folders again"
ENDED_SHARE = 3
"""1 / ENDED_SHARE of the trials of a group end in the middle"""
MOST_LOGITS = 50.0
"""upper bound on the negative logit of an estimated AP: an extreme loss would overflow"""
LEAST_LINE = 4
"""fewest complete trials from which the AP of those that ended early is estimated"""
LEAST_DEVIATION = 0.1
"""least standard deviation of the logit of an estimated AP, however well the line fits"""


@dataclass(frozen=True)
class Trial:
    """One network that was trained briefly."""

    architecture: Architecture
    loss: float
    """loss in the middle of its training; 0: it failed before"""
    ap: float | None = None
    """0 to 1, on the hard faces of WIDER FACE or all of a user's own; None: not evaluated"""
    trained: int = 0
    """crops that it was trained on; 0 until it is over"""
    protocol: str = ""
    """evaluation protocol, in words"""
    failed: str = ""
    """error message of a training that diverged; empty: it did not"""

    @property
    def over(self) -> bool:
        """Is the trial finished, whether complete, ended early or failed?"""
        return bool(self.trained or self.failed)


class AccuracyOracle:
    """Runs the trials of a run folder and fits a model to them. ``known``: trainings by another
    recipe, which the model starts from."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        known: Sequence[Training],
        jobs: int,
        progress: Progress,
        note: Note,
        ray: str | None = None,
        on_error: OnError | None = None,
    ) -> None:
        """note: called for networks whose training failed. on_error: called for photos that cannot
        be read; all trials leave them out."""
        self.note, self.on_error = note, on_error
        self.plan, self.path, self.known, self.jobs = plan, folder / TRIALS, known, jobs
        self.progress, self.ray = progress, ray
        self.trials: dict[Architecture, Trial] = {
            anonymous(t.architecture): t for t in read_rows(Trial, self.path, LOST)
        }
        self._model: AccuracyModel | None = None

    def check(self) -> None:
        """Raise DataError for photos that trials cannot use, before anything else is done."""
        prepare(self.plan, self.on_error, self.progress)

    @property
    def model(self) -> AccuracyModel | None:
        """Accuracy model fitted to all trainings; None as long as these are too few."""
        own = self.trainings
        if self._model is None and len(own) + len(self.known) >= LEAST_TRAININGS:
            self._model = AccuracyModel(own, self.known)
        return self._model

    def find(self, architecture: Architecture) -> Trial | None:
        """The finished trial of this network, whatever its name; None if there is none."""
        found = self.trials.get(anonymous(architecture))
        return found if found and found.over else None

    def train(self, architectures: Sequence[Architecture], what: str) -> None:
        """Train those without a finished trial: a third only to the middle, the rest to the end.

        A training that diverges is noted and does not stop the others. Raises TrainingError if all
        trainings so far diverged.
        """
        todo = [a for a in architectures if self.find(a) is None]
        with open_workers(self.ray, self.jobs) as workers:
            self._run(workers, train_half_item, todo, f"{what}, first half", self._take_half)
            for architecture in self._hopeless(architectures):
                trial = self.trials[anonymous(architecture)]
                crops = self.plan.half * self.plan.options.batch
                self._keep(replace(trial, trained=crops))
            left = [a for a in todo if self.find(a) is None]
            self._run(workers, train_item, left, f"{what}, second half", self._take_whole)
        failed = [t.failed for t in self.trials.values() if t.failed]
        if failed and len(failed) == len(self.trials):
            raise TrainingError(f"all {len(failed)} trainings of the search failed: {failed[0]}")

    def _run(
        self,
        workers: Any,
        task: Callable[[dict[str, Any]], Any],
        todo: Sequence[Architecture],
        what: str,
        take: Callable[[Architecture, dict[str, Any]], None],
    ) -> None:
        done = 0
        self.progress(what, done, len(todo))

        def finished(index: int, result: Any) -> None:
            nonlocal done
            if result is None:
                raise KeyboardInterrupt
            if "failed" in result:
                self._fail(todo[index], result["failed"])
            else:
                take(todo[index], result)
            done += 1
            self.progress(what, done, len(todo))

        workers.run(task, [self.plan.item(a) for a in todo], finished)

    def _fail(self, architecture: Architecture, reason: str) -> None:
        begun = self.trials.get(anonymous(architecture), Trial(architecture, 0.0))
        self._keep(replace(begun, failed=reason))
        self.note(f"{architecture.name} is left out of the search, its training failed: {reason}")

    def _take_half(self, architecture: Architecture, data: dict[str, Any]) -> None:
        self._keep(Trial(architecture, data["loss"]))

    def _take_whole(self, architecture: Architecture, data: dict[str, Any]) -> None:
        found = from_fields(Trained, data, "training")
        trial = self.trials[anonymous(architecture)]
        crops = self.plan.options.samples
        self._keep(replace(trial, ap=found.hard, trained=crops, protocol=found.protocol))

    def _keep(self, trial: Trial) -> None:
        self.trials[anonymous(trial.architecture)] = trial
        self._model = None
        rows = [to_fields(t) for t in self.trials.values()]
        write_text(self.path, json.dumps(rows, indent=1) + "\n")

    def _hopeless(self, group: Sequence[Architecture]) -> list[Architecture]:
        """Networks of ``group`` whose trials end in the middle. All of the group that reached it
        are ranked, whatever became of them since, so that a resumed search ends the same ones."""
        losses = {a: loss for a in group if (loss := self.trials[anonymous(a)].loss)}
        ranked = sorted(losses, key=losses.__getitem__)
        last = ranked[len(ranked) - len(ranked) // ENDED_SHARE :]
        return [a for a in last if self.find(a) is None]

    @property
    def trainings(self) -> list[Training]:
        """Trainings that the model is fitted to. The AP of trials that ended early is read off a
        line fitted to the complete ones, logit of AP over loss."""
        over = [t for t in self.trials.values() if t.trained]
        whole = [t for t in over if t.ap is not None]
        found = [Training(t.architecture, t.ap) for t in whole if t.ap is not None]
        if len(whole) < LEAST_LINE:
            return found
        losses = np.array([t.loss for t in whole])
        logits = np.array([logit(t.ap or 0.0) for t in whole])
        slope, level = np.polyfit(losses, logits, 1) if np.ptp(losses) > 0 else (0.0, logits.mean())
        rest = float(np.std(logits - slope * losses - level, ddof=2))
        for t in over:
            if t.ap is None:
                ap = 1 / (1 + math.exp(min(-float(slope * t.loss + level), MOST_LOGITS)))
                found.append(Training(t.architecture, ap, max(rest, LEAST_DEVIATION)))
        return found
