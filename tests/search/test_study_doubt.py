"""Unreliable latency records of a search, on a real clock: replaced, measured again or reported."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studies import SIZE, begin

from edgeface.errors import DeviceError
from edgeface.predict.table import anonymous
from edgeface.search.latency import LatencyOracle
from edgeface.search.results import Candidate, Round


def test_too_few_good_records_are_made_up_for(small_space: str, tmp_path: Path) -> None:
    """If a table has too few reliable records, more networks are measured, once."""
    notes: list[str] = []
    study = begin(tmp_path / "run", notes.append, space=small_space, picks=1)
    chosen = study._choose(0)
    study.oracle.measure([e.candidate for e in chosen.picked])
    table = study.oracle.tables[SIZE]
    records = [
        dataclasses.replace(r, wrong=("throttled",)) if i < 3 else r
        for i, r in enumerate(table.records)
    ]
    study.oracle._keep(SIZE, dataclasses.replace(table, records=tuple(records)))
    lacking = study.oracle.missing(SIZE)
    completed = study._completed(chosen)
    assert lacking >= 3 and study.oracle.missing(SIZE) == 0
    assert len(completed.picked) >= len(chosen.picked) + lacking and notes
    assert study._stored(0) == completed


def test_what_may_not_be_believed_is_measured_again_later(
    small_space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program disturbs all measurements of the first of two rounds: a note says so, and the
    second round repeats them beside its own."""
    notes: list[str] = []
    study = begin(tmp_path / "run", notes.append, space=small_space, picks=2, rounds=2)
    rounds: list[Round] = []
    asked: list[list[Candidate]] = []
    """candidates measured in round 1, in round 2, and for the front: unreliable ones, the front"""

    def picked() -> list[Candidate]:
        """The candidates picked in round 1."""
        stored = study._stored(1)
        assert stored is not None
        return [e.candidate for e in stored.picked]

    def disturbed(candidates: list[Candidate], again: bool = False) -> None:
        LatencyOracle.measure(study.oracle, candidates, again)
        if rounds:
            asked.append(candidates)
        if len(rounds) == len(asked) == 1:
            table = study.oracle.tables[SIZE]
            keys = {candidate.key[0] for candidate in picked()}
            records = tuple(
                dataclasses.replace(r, wrong=("too busy",))
                if anonymous(r.architecture) in keys
                else r
                for r in table.records
            )
            study.oracle._keep(SIZE, dataclasses.replace(table, records=records))

    monkeypatch.setattr(study.oracle, "measure", disturbed)
    study.run(rounds.append)
    assert len(rounds) == 3 and not rounds[1].picked
    assert any(note.endswith("networks to be measured again later: too busy") for note in notes)
    assert len(picked()) == 2 and set(picked()) <= set(asked[0]) & set(asked[1])
    assert len({candidate.key for candidate in asked[1]}) == len(asked[1])
    assert not any("too busy" in study.oracle.doubt(candidate) for candidate in picked())


def test_a_busy_machine_is_told_at_once(small_space: str, tmp_path: Path) -> None:
    """Another program keeps a processor busy: before any network is made, an error says so and
    names the option that helps."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        study = begin(tmp_path / "run", space=small_space, max_load=0.05)
        with pytest.raises(DeviceError, match=r"processors of this machine busy.*--max-load"):
            study.run(lambda _: None)
    finally:
        busy.kill()
        busy.wait()
    assert not (tmp_path / "run" / "candidates").exists()
