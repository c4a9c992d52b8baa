"""Search by evolution on score and predicted latency, measuring the best networks of each round.

Round 0 measures networks chosen to cover the space, and a latency model is fitted to them. Every
later round evolves candidates on score and predicted latency, measures the most promising ones on
the device, in the runtime and precision that they will run in, and refits the model. The final
front holds measured figures only.

With ``trials``, some of the measured networks are trained briefly after each round: the most
promising and the least known. An accuracy model is fitted to the results, and the AP that it
predicts is the score from then on.

A study depends only on its options and on the device's measurements. Both are stored in its folder,
with the networks that each round sent to the device, so that a stopped study resumes exactly where
it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.errors import DataError, EdgefaceError, OptionError, counted
from edgeface.files import LOCK, locked, read_regular, write_text
from edgeface.options import parse_size
from edgeface.predict.table import LEAST_NETWORKS, LatencyTable
from edgeface.schema import from_fields, to_fields
from edgeface.search import selection
from edgeface.search.accuracy import Scorer
from edgeface.search.evolution import CHOICE, FRESH, Pool, evolve
from edgeface.search.latency import LatencyOracle
from edgeface.search.options import (
    EVALUATIONS,
    FRONT,
    REPORT,
    ROUND,
    StudyOptions,
    is_over,
    refuse_another,
    save_options,
)
from edgeface.search.report import write_report
from edgeface.search.results import COSTS, Candidate, FrontNet, Key, Round, ScoredNetwork
from edgeface.search.selection import FRONT_SHARE
from edgeface.search.space import get_space
from edgeface.types import Note, Progress, unnoted

if TYPE_CHECKING:
    from edgeface.images.reading import OnError

ENDS = (48, 25)
"""population and generations of the short searches for the fastest and the slowest network"""
MORE = 3
"""most attempts to measure more networks if round 0 leaves too few for a latency model"""
SEED_SHARE = 2
"""1 / SEED_SHARE of a round's first generation comes from earlier rounds"""

OnRound = Callable[[Round], None]


class Study:
    """One search, in its folder. Raises OptionError if the folder holds another search, or files
    that this one would replace."""

    def __init__(
        self,
        options: StudyOptions,
        folder: Path,
        progress: Progress,
        note: Note,
        ray: str | None = None,
        on_error: OnError | None = None,
    ) -> None:
        """on_error: called for photos that cannot be read; all trials leave them out."""
        self.options, self.folder, self.note = options, folder, note
        self._progress, self._where = progress, ""
        self.pool = Pool(get_space(options.space), options.sizes)
        refuse_another(folder, options)
        self.oracle = LatencyOracle(options, folder, self.progress, note, ray)
        self.scorer = Scorer(options, folder, self.progress, note, ray, on_error)
        self.scorer.proxy(self.pool.sample(0).architecture)  # refuses an unknown score
        self.archive: dict[Key, ScoredNetwork] = {}
        """every network that was scored in this or an earlier round"""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Report how far a step has come, and in which round."""
        self._progress(f"{self._where}{what}", done, total, note)

    def run(self, on_round: OnRound, known: Iterable[LatencyTable] = ()) -> list[FrontNet]:
        """Run all remaining rounds; return the front, which is also written.

        known: latency tables to begin with. A finished search measures nothing again. Raises
        OptionError if another process works in the folder, DataError if files of the search are
        missing, OutputError."""
        with locked(self.folder / LOCK, f"the search in {self.folder}"):
            return self._run(on_round, known)

    def _begin(self, tables: Sequence[LatencyTable], over: bool) -> None:
        """Save the options and known tables after all checks have passed: after a mistake, the
        corrected command can start in the same folder."""
        for table in tables:
            self.oracle.size_of(table)
        if not over:
            self._check_macs()
            self.oracle.check()
            self.scorer.check()
        save_options(self.folder, self.options)
        for table in tables:
            self.oracle.adopt(table)

    def _run(self, on_round: OnRound, known: Iterable[LatencyTable]) -> list[FrontNet]:
        over, rounds = is_over(self.folder, self.options), list[Round]()
        self._begin(list(known), over)
        for number in range(self.options.rounds + 1):
            self._where = f"round {number} of {self.options.rounds}: "
            chosen = self._stored(number) or self._choose(number)
            if not over:
                wanted = self._doubted(rounds) + [e.candidate for e in chosen.picked]
                self.oracle.measure(list({c.key: c for c in wanted}.values()))
                chosen = self._completed(chosen) if number == 0 else chosen
            rounds.append(chosen)
            if not over:
                self._doubted(rounds, self.note)
                self._train(number, rounds)
            if number == 0:
                self._check_budget()
            on_round(self._with_measurements(chosen))
        self._where = "the front: "
        rounds = [self.scorer.rescored(r) for r in rounds]
        if not over:  # networks of the final front are measured a second time
            self.oracle.measure(self._doubted(rounds))
            self.oracle.measure([net.candidate for net in self._front(rounds)], again=True)
        rounds = [self._with_measurements(r) for r in rounds]
        front = [self.scorer.told(n) for n in self._predicted_unseen(self._front(rounds))]
        write_text(self.folder / FRONT, json.dumps([net.to_json() for net in front], indent=1))
        write_report(self.folder / REPORT, self.options, rounds, front, self.oracle.tables)
        return front

    # One round

    def _doubted(self, rounds: Sequence[Round], note: Note = unnoted) -> list[Candidate]:
        """Picked networks whose measurement may not be quoted; ``note`` gets their number and the
        last one's reason."""
        picked = [e.candidate for r in rounds for e in r.picked]
        doubts = {candidate: why for candidate in picked if (why := self.oracle.doubt(candidate))}
        if doubts:
            note(
                f"{counted(len(doubts), 'network')} to be measured again later:"
                f" {[*doubts.values()][-1]}"
            )
        return list(doubts)

    def _stored(self, number: int) -> Round | None:
        path = self._path(number)
        if not path.is_file():
            return None
        self.archive.update((e.candidate.key, e) for e in self._evaluations(number))
        try:
            return from_fields(Round, json.loads(read_regular(path).decode("utf-8")), str(path))
        except (OSError, ValueError, RecursionError, EdgefaceError) as error:
            raise DataError(
                f"{path} is not a round of a search ({error}): delete it, and that round is"
                " searched again"
            ) from None

    def _path(self, number: int) -> Path:
        return self.folder / ROUND.format(number)

    def _choose(self, number: int) -> Round:
        """Choose the networks to measure; the choice is written before any is measured."""
        if number == 0:
            self.progress("choosing networks", 0, len(self.options.sizes))
            first = self.pool.first(
                FRESH * self.options.seed, self.options.first, self.options.target
            )
            seen = self._scored(first, [(0.0, (0.0, 0.0))] * len(first))
            self.archive.update((e.candidate.key, e) for e in seen)
            picked: Sequence[ScoredNetwork] = seen
        else:
            seen = list(self._evolve(number).values())
            picked = self._pick(seen)
        best = max((e.score for e in seen if selection.within(self.options, e)), default=0.0)
        chosen = Round(number, len(seen), best, tuple(picked), ())
        self._write(chosen, seen)
        return chosen

    def _write(self, chosen: Round, seen: Sequence[ScoredNetwork]) -> None:
        lines = "".join(json.dumps(to_fields(e)) + "\n" for e in seen)
        write_text(self.folder / EVALUATIONS.format(chosen.number), lines)
        write_text(self._path(chosen.number), json.dumps(to_fields(chosen), indent=1))

    def _completed(self, first: Round) -> Round:
        """Round 0 with as many more random networks as a latency model still lacks."""
        seed = FRESH * self.options.seed + CHOICE * self.options.first * len(self.options.sizes)
        for attempt in range(MORE):
            missing = [s for s in self.options.sizes for _ in range(self.oracle.missing(s))]
            if not missing:
                break
            seeds = range(seed + attempt * LEAST_NETWORKS, seed + (attempt + 1) * LEAST_NETWORKS)
            drawn = [
                Candidate(self.pool.space.sample(seeds[i % len(seeds)]), size)
                for i, size in enumerate(missing)
            ]
            # If the search was stopped here, the stored round already has some of these.
            known = {e.candidate.key for e in first.picked}
            more = [candidate for candidate in drawn if candidate.key not in known]
            if not more:
                continue
            self.note(f"measuring {len(more)} more networks: too few valid results so far")
            picked = (*first.picked, *self._scored(more, [(0.0, (0.0, 0.0))] * len(more)))
            first = dataclasses.replace(first, picked=picked, evaluated=len(picked))
            self.archive.update((e.candidate.key, e) for e in picked)
            self._write(first, picked)
            self.oracle.measure(more)
        return first

    def _evaluations(self, number: int) -> list[ScoredNetwork]:
        path = self.folder / EVALUATIONS.format(number)
        try:
            lines = read_regular(path).decode("utf-8").splitlines()
            return [from_fields(ScoredNetwork, json.loads(line), str(path)) for line in lines]
        except (OSError, ValueError, RecursionError, EdgefaceError) as error:
            raise DataError(
                f"{path} cannot be read ({error}): delete it and {self._path(number).name}, and"
                " that round is searched again"
            ) from None

    def _evolve(self, number: int) -> dict[Key, ScoredNetwork]:
        """Networks scored in this round. Those of earlier rounds are scored again with the current
        models, to start from the best of them."""
        o, seen = self.options, dict[Key, ScoredNetwork]()
        old = self._judge([e.candidate for e in self.archive.values()]) if self.archive else []
        best = [e.candidate for e in selection.pick(o, old, o.population // SEED_SHARE)]
        tasks = [("evolving", selection.objective, o.generations)]
        if selection.seeks_front_below(o):
            share = -(-o.generations // FRONT_SHARE)
            tasks.append(("evolving the front", selection.front_objective, share))
        for what, objective, generations in tasks:
            seen |= evolve(
                self.pool,
                self._judge,
                partial(objective, o),
                best,
                o.population,
                generations,
                o.seed + number,
                self.progress,
                what,
            )
        self.archive.update(seen)
        return seen

    def _judge(self, candidates: Sequence[Candidate]) -> list[ScoredNetwork]:
        predicted = self.oracle.predict(candidates)
        return self._scored(candidates, [(p.ms, (p.low_ms, p.high_ms)) for p in predicted])

    def _scored(
        self,
        candidates: Sequence[Candidate],
        latencies: Sequence[tuple[float, tuple[float, float]]],
    ) -> list[ScoredNetwork]:
        scores = self.scorer.scores([c.architecture for c in candidates])
        return [
            ScoredNetwork(
                c.architecture, c.size, score, COSTS[self.options.cost].of(c, ms), ms, interval
            )
            for c, score, (ms, interval) in zip(candidates, scores, latencies, strict=True)
        ]

    def _train(self, number: int, rounds: Sequence[Round]) -> None:
        """Run this round's share of the trials, on measured networks that keep the limits."""
        measured = [
            selection.as_measured(self.options, e, found[0])
            for r in rounds
            for e in r.picked
            if (found := self.oracle.ms(e.candidate))
        ]
        self.scorer.train(number, measured)

    def _pick(self, seen: Sequence[ScoredNetwork]) -> list[ScoredNetwork]:
        """The networks of ``seen`` to measure, none of which has a valid record."""
        return selection.pick(
            self.options,
            [e for e in seen if self.oracle.record(e.candidate) is None],
            self.options.picks,
        )

    def _with_measurements(self, chosen: Round) -> Round:
        """``chosen`` with measured latencies, without networks that have no valid one."""
        measured = [(e, found[0]) for e in chosen.picked if (found := self.oracle.ms(e.candidate))]
        return dataclasses.replace(
            chosen,
            picked=tuple(e for e, _ in measured),
            measured_ms=tuple(ms for _, ms in measured),
        )

    # Limits and result

    def _check_macs(self) -> None:
        """Refuse a budget of multiply-accumulates that no network keeps, before any measurement."""
        budget, space = self.options.budget_mmacs, self.pool.space
        size = min(self.options.sizes, key=lambda size: math.prod(parse_size(size)))
        least = space.macs[0] * math.prod(parse_size(size)) / math.prod(COUNTED_AT) / 1e6
        if 0 < budget < least:
            raise OptionError(
                f"--budget-mmacs {budget:g} is below every network of space {space.name}, which"
                f" begins at {least:.3g} million at {size}: give a larger budget, a smaller --size"
                " or another --space"
            )

    def _check_budget(self) -> None:
        """Refuse a latency budget that no network keeps; note one that all networks keep."""
        budget = self.options.budget_ms
        if not budget or self._path(1).is_file():
            return
        fastest, slowest = self._extreme(1.0), self._extreme(-1.0)
        if fastest.predicted_ms > budget:
            self.oracle.measure([fastest.candidate])
            found = self.oracle.ms(fastest.candidate) or (
                fastest.predicted_ms,
                *fastest.interval_ms,
            )
            if found[0] > budget:
                raise OptionError(
                    f"--budget-ms {budget:g} is below the fastest network of space"
                    f" {self.options.space} here, which takes {found[0]:.2f} ms"
                    f" ({fastest.architecture.structure}): search again with a larger budget, a"
                    f" smaller --size or another --space, into another --out than {self.folder};"
                    f" --table {self.oracle.path(fastest.candidate.size)} keeps what was measured"
                )
        if slowest.predicted_ms < budget:
            self.note(
                f"--budget-ms {budget:g} excludes nothing: the slowest network of space"
                f" {self.options.space} takes about {slowest.predicted_ms:.2f} ms"
            )

    def _extreme(self, sign: float) -> ScoredNetwork:
        """The fastest (1) or slowest (-1) network that a short search finds."""
        seen = evolve(
            self.pool,
            self._judge,
            lambda e: ((sign * e.predicted_ms,), 0.0),
            [],
            *ENDS,
            self.options.seed,
            self.progress,
            "the ends of the space",
        )
        return min(seen.values(), key=lambda e: sign * e.predicted_ms)

    def _front(self, rounds: Sequence[Round]) -> list[FrontNet]:
        """The non-dominated measured networks that keep the limits and did not fail in a trial,
        cheapest first."""
        # A network whose measurement was too uncertain may be picked again by a later round, when
        # more is known of it: the last round counts.
        kept: dict[Key, FrontNet] = {}
        for r in rounds:
            for e in r.picked:
                if self.scorer.failed(e.architecture):
                    continue
                found, o = self.oracle.ms(e.candidate), self.options
                if found and selection.within(o, selection.as_measured(o, e, found[0])):
                    kept[e.candidate.key] = self._net(e, found, r.number)
        return selection.front(self.options, kept.values())

    def _predicted_unseen(self, front: Sequence[FrontNet]) -> list[FrontNet]:
        """``front``, each network with the prediction of a model fitted without it.

        The prediction made when a network was chosen tells how the search began, this one how good
        its model is."""
        return [
            dataclasses.replace(net, predicted_ms=p.ms, predicted_interval_ms=(p.low_ms, p.high_ms))
            for net, p in zip(
                front, self.oracle.unseen([net.candidate for net in front]), strict=True
            )
        ]

    def _net(self, e: ScoredNetwork, found: tuple[float, float, float], number: int) -> FrontNet:
        a = e.architecture
        return FrontNet(
            a,
            e.size,
            e.score,
            e.predicted_ms,
            e.interval_ms,
            found[0],
            found[1:],
            number,
            params_of(a),
            macs_of(a, *parse_size(e.size)),
            e.candidate.memory,
        )
