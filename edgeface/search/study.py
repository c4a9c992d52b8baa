"""Search on the device's clock: evolution on the score, latency from a model, and the best of each round measured.

Round 0 measures networks chosen to cover the space, which is what latency is learned from. Every later round evolves
candidates on score and predicted latency, sends the most promising ones to the device, in the runtime and precision
that they will run in, and learns from what comes back. The final front holds measured figures only.

A study is a function of its options and of what the device answered. Both lie in its folder, with what each round sent
to the device, so that a study that was stopped goes on exactly where it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import layers_of, macs_of, params_of
from edgeface.errors import DataError, EdgefaceError, OptionError
from edgeface.files import atomic_write
from edgeface.options import parse_size
from edgeface.predict.table import LatencyTable, Tick
from edgeface.schema import from_fields
from edgeface.search.evolution import FRESH, Candidate, Pool, evolve
from edgeface.search.latency import Clock, Note
from edgeface.search.options import Evaluation, FrontNet, Round, StudyOptions
from edgeface.search.pareto import nondominated, spread
from edgeface.search.report import write_report
from edgeface.search.scores.registry import proxy
from edgeface.search.space import get_space

STUDY, FRONT, REPORT = "study.json", "front.json", "report.html"
ENDS = (48, 25)
"""population and generations of the short searches for the fastest and the slowest network"""
LEAST_DIFFERENT = 2
"""parts (blocks, neck, head) in which two networks of one round differ, as long as there are such"""
SEED_SHARE = 2
"""one member in so many of a round's first generation comes from the rounds before"""
FRONT_SHARE = 2
"""of a search within a latency budget, one network in so many is sought and measured for the front below the budget:
the best of each latency, where there would else be networks of round 0, unsought and known least"""

Told = Callable[[Round], None]


class Study:
    """One search, in its folder. Raises OptionError where the folder holds another one, OutputError where it cannot be
    written."""

    def __init__(self, options: StudyOptions, folder: Path, tick: Tick, note: Note, ray: str | None = None) -> None:
        self.options, self.folder, self.tick, self.note = options, folder, tick, note
        self.pool = Pool(get_space(options.space), options.sizes)
        path = folder / STUDY
        if path.is_file() and load_options(folder) != options:
            raise OptionError(f"{folder} holds a search with other options: go on with edgeface search --resume "
                              f"{folder}, or choose another --out folder")
        self.score(self.pool.sample(0).architecture)  # an unknown score is refused before anything is written
        _write(path, json.dumps(dataclasses.asdict(options), indent=1))
        self.clock = Clock(options, folder, tick, note, ray)
        self.archive: dict[Any, Evaluation] = {}
        """every network that was scored in this or an earlier round"""

    def run(self, told: Told, known: Iterable[LatencyTable] = ()) -> list[FrontNet]:
        """All rounds that are not over yet, and the front, which is also written; ``known``: tables to begin with.

        Of a search that is over, nothing is measured again.
        """
        for table in known:
            self.clock.adopt(table)
        over, rounds = (self.folder / FRONT).is_file(), list[Round]()
        if not over:
            self.clock.check()
        for number in range(self.options.rounds + 1):
            chosen = self._stored(number) or self._choose(number)
            if not over:
                self.clock.measure([_candidate(e) for e in chosen.picked])
            rounds.append(chosen)
            if number == 0:
                self._check_budget()
            told(self._with_measurements(chosen))
        if not over:  # what the front promises is measured twice
            self.clock.measure([_candidate(net) for net in self._front(rounds)], again=True)
        rounds = [self._with_measurements(r) for r in rounds]
        front = self._predicted_unseen(self._front(rounds))
        _write(self.folder / FRONT, json.dumps([net.to_json() for net in front], indent=1))
        write_report(self.folder / REPORT, self.options, rounds, front, self.clock.tables)
        return front

    # One round

    def _stored(self, number: int) -> Round | None:
        path = self._path(number)
        if not path.is_file():
            return None
        self.archive.update((_candidate(e).key, e) for e in self._evaluations(number))
        try:
            return from_fields(Round, json.loads(path.read_text(encoding="utf-8")), str(path))
        except (OSError, ValueError, RecursionError, EdgefaceError) as error:
            raise DataError(f"{path} is not a round of a search ({error}): delete it, and that round is searched "
                            "again") from None

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number}.json"

    def _choose(self, number: int) -> Round:
        """What to measure, written down before anything is."""
        if number == 0:
            self.tick("round 0: choosing networks", 0, len(self.options.sizes))
            first = self.pool.first(FRESH * self.options.seed, self.options.first, self.options.target)
            seen = [self._evaluation(c, 0.0, (0.0, 0.0)) for c in first]
            self.archive.update((_candidate(e).key, e) for e in seen)
            picked: Sequence[Evaluation] = seen
        else:
            seen = list(self._evolve(number).values())
            picked = self._pick(seen)
        best = max((e.score for e in seen if self._within(e)), default=0.0)
        chosen = Round(number, len(seen), best, tuple(picked), ())
        lines = "".join(json.dumps(dataclasses.asdict(e)) + "\n" for e in seen)
        _write(self.folder / f"evaluations-{number}.jsonl", lines)
        _write(self._path(number), json.dumps(dataclasses.asdict(chosen), indent=1))
        return chosen

    def _evaluations(self, number: int) -> list[Evaluation]:
        path = self.folder / f"evaluations-{number}.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            return [from_fields(Evaluation, json.loads(line), str(path)) for line in lines]
        except (OSError, ValueError, RecursionError, EdgefaceError) as error:
            raise DataError(f"{path} cannot be read ({error}): delete it and {self._path(number).name}, and that "
                            "round is searched again") from None

    def _evolve(self, number: int) -> dict[Any, Evaluation]:
        """Networks judged in this round. Those of earlier rounds are judged anew, by what was learned since."""
        o, seen = self.options, dict[Any, Evaluation]()
        old = self._judge([_candidate(e) for e in self.archive.values()]) if self.archive else []
        best = [_candidate(e) for e in self._pick(old, o.population // SEED_SHARE, measured=True)]
        tasks = [(f"round {number}: evolving", self._objective, o.generations)]
        if self._has_front_below:
            tasks.append((f"round {number}: evolving the front", self._front_objective,
                          -(-o.generations // FRONT_SHARE)))
        for what, objective, generations in tasks:
            seen |= evolve(self.pool, self._judge, objective, best, o.population, generations, o.seed + number,
                           partial(self.tick, what))
        self.archive.update(seen)
        return seen

    @property
    def _has_front_below(self) -> bool:
        return self.options.objective == "budget" and self.options.budget_ms > 0

    def _judge(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        return [self._evaluation(candidate, p.ms, (p.low_ms, p.high_ms))
                for candidate, p in zip(candidates, self.clock.predict(candidates), strict=True)]

    def _evaluation(self, candidate: Candidate, ms: float, interval: tuple[float, float]) -> Evaluation:
        architecture = candidate.architecture
        cost = {"latency": lambda: ms, "size": lambda: float(params_of(architecture)),
                "memory": lambda: float(_memory(candidate))}[self.options.cost]()
        return Evaluation(architecture, candidate.size, self.score(architecture), cost, ms, interval)

    def score(self, architecture: Architecture) -> float:
        """What stands for its accuracy in this search."""
        return proxy(self.options.score, architecture, self.options.alpha, self.options.weights)

    def _objective(self, e: Evaluation) -> tuple[tuple[float, ...], float]:
        """For evolution: what is made small, and how far over the budgets."""
        o = self.options
        cost = math.log(max(e.cost, 1e-9))
        values = {"budget": (-e.score,), "pareto": (-e.score, cost),
                  "weighted": (o.exchange * cost - e.score,)}[o.objective]
        over = e.predicted_ms / o.budget_ms - 1 if o.budget_ms else 0.0
        if o.budget_mmacs:
            over = max(over, macs_of(e.architecture, *parse_size(e.size)) / (1e6 * o.budget_mmacs) - 1)
        return values, over

    def _front_objective(self, e: Evaluation) -> tuple[tuple[float, ...], float]:
        return (-e.score, math.log(max(e.cost, 1e-9))), self._objective(e)[1]

    def _within(self, e: Evaluation) -> bool:
        return self._objective(e)[1] <= 0

    def _pick(self, seen: Sequence[Evaluation], count: int = 0, measured: bool = False) -> list[Evaluation]:
        """The most promising ones, no two almost alike as far as possible. ``measured``: also those that were."""
        count = count or self.options.picks
        good = [e for e in seen if self._within(e) and (measured or self.clock.record(_candidate(e)) is None)]
        costs = [(-e.score, e.cost) for e in good]
        if self.options.objective == "pareto":
            return [good[i] for i in _unlike(good, spread(costs, count), count)]
        ranked = sorted(range(len(good)), key=lambda i: (self._objective(good[i])[0], good[i].architecture.name))
        share = count // FRONT_SHARE if self._has_front_below else 0
        picked = _unlike(good, ranked, count - share)
        if share:
            picked = _unlike(good, spread(costs, share), count, picked)
        return [good[i] for i in picked]

    def _with_measurements(self, chosen: Round) -> Round:
        """Without those that could not be measured."""
        measured = [(e, found[0]) for e in chosen.picked if (found := self.clock.ms(_candidate(e)))]
        return dataclasses.replace(chosen, picked=tuple(e for e, _ in measured),
                                   measured_ms=tuple(ms for _, ms in measured))

    # Limits and result

    def _check_budget(self) -> None:
        """A budget that nothing keeps, or everything."""
        budget = self.options.budget_ms
        if not budget or self._path(1).is_file():
            return
        fastest, slowest = self._extreme(1.0), self._extreme(-1.0)
        if fastest.predicted_ms > budget:
            self.clock.measure([_candidate(fastest)])
            found = self.clock.ms(_candidate(fastest)) or (fastest.predicted_ms, *fastest.interval_ms)
            if found[0] > budget:
                raise OptionError(f"--budget-ms {budget:g} is below the fastest network of space {self.options.space} "
                                  f"here, which takes {found[0]:.2f} ms ({fastest.architecture.backbone.structure}): "
                                  "give a larger budget, a smaller --size or another --space")
        if slowest.predicted_ms < budget:
            self.note(f"--budget-ms {budget:g} excludes nothing: the slowest network of space {self.options.space} "
                      f"takes about {slowest.predicted_ms:.2f} ms")

    def _extreme(self, sign: float) -> Evaluation:
        """The fastest (1) or slowest (-1) network that a short search finds."""
        seen = evolve(self.pool, self._judge, lambda e: ((sign * e.predicted_ms,), 0.0), [], *ENDS,
                      self.options.seed, lambda done, total: self.tick("the ends of the space", done, total))
        return min(seen.values(), key=lambda e: sign * e.predicted_ms)

    def _front(self, rounds: Sequence[Round]) -> list[FrontNet]:
        """The measured networks that no other one beats, cheapest first."""
        kept: dict[Any, FrontNet] = {}  # one that was too uncertain may be chosen again, when more is known of it
        for r in rounds:
            for e in r.picked:
                found = self.clock.ms(_candidate(e))
                if found and self._objective(dataclasses.replace(e, predicted_ms=found[0]))[1] <= 0:
                    kept[_candidate(e).key] = self._net(e, found, r.number)
        nets = list(kept.values())
        best = nondominated([(-net.score, self._cost(net)) for net in nets])
        return sorted((nets[i] for i in best), key=self._cost)

    def _predicted_unseen(self, front: Sequence[FrontNet]) -> list[FrontNet]:
        """What was known when a network was chosen says how the search began; this says how good its model is."""
        return [dataclasses.replace(net, predicted_ms=p.ms, predicted_interval_ms=(p.low_ms, p.high_ms))
                for net, p in zip(front, self.clock.unseen([_candidate(net) for net in front]), strict=True)]

    def _net(self, e: Evaluation, found: tuple[float, float, float], number: int) -> FrontNet:
        a, (width, height) = e.architecture, parse_size(e.size)
        return FrontNet(a, e.size, e.score, e.predicted_ms, e.interval_ms, found[0], found[1:], number, params_of(a),
                        macs_of(a, width, height), _memory(_candidate(e)))

    def _cost(self, net: FrontNet) -> float:
        return {"latency": net.measured_ms, "size": float(net.params), "memory": float(net.memory)}[self.options.cost]


def load_options(folder: Path) -> StudyOptions:
    """Of the search in ``folder``. Raises OptionError where there is none."""
    path = folder / STUDY
    try:
        return from_fields(StudyOptions, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"--resume {folder}: no search to go on with, {path} cannot be read "
                          f"({type(error).__name__}); begin one with edgeface search --out {folder}") from None
    except EdgefaceError as error:
        raise OptionError(f"--resume {folder}: {error}; it was not written by this version of edgeface") from None


def _differences(a: Evaluation, b: Evaluation) -> int:
    """Parts in which two networks differ, blocks aligned at c5."""
    ours, theirs = (e.architecture.backbone.structure.split(")")[:-1][::-1] for e in (a, b))
    blocks = sum(x != y for x, y in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
    return (blocks + (a.architecture.neck != b.architecture.neck) + (a.architecture.head != b.architecture.head)
            + (a.size != b.size))


def _unlike(good: Sequence[Evaluation], ranked: Sequence[int], count: int, picked: Sequence[int] = ()) -> list[int]:
    """``picked`` and the first of ``ranked`` that are unlike all before them, ``count`` in all; for want of such ones,
    any."""
    found = list(picked)
    for i in ranked:
        if len(found) < count and all(_differences(good[i], good[other]) >= LEAST_DIFFERENT for other in found):
            found.append(i)
    return found + [i for i in ranked if i not in found][: count - len(found)]


def _candidate(found: Evaluation | FrontNet) -> Candidate:
    return Candidate(found.architecture, found.size)


def _memory(candidate: Candidate) -> int:
    """Values that the largest layer reads and writes."""
    return max(layer.values_read + layer.values_written
               for layer in layers_of(candidate.architecture, *parse_size(candidate.size)))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
