"""Records of a search that may not be believed, on a real clock: made up for, or told."""

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
    """A table of which too few records may be believed: more networks are measured, once."""
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
    """Another program disturbed all that the first of two rounds measured: that is told, and the
    second measures it again beside its own."""
    notes: list[str] = []
    study = begin(tmp_path / "run", notes.append, space=small_space, picks=2, rounds=2)
    rounds: list[Round] = []
    asked: list[list[Candidate]] = []
    """in the first round, in the second, for the front: what is left, and the front again"""

    def picked() -> list[Candidate]:
        """Of the first round."""
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
    """Something else keeps a processor busy: said before any network is made, with the way out."""
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
