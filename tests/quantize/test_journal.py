"""Measurements survive a crash; untrustworthy ones are repeated."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeface.errors import OutputError
from quantize.journal import QuantizeJournal, fingerprint

INPUTS = fingerprint(model="a", scale="mse")


@dataclass(frozen=True)
class Figure:
    value: float
    heads: dict[str, float | None]


FIGURE = Figure(0.1 + 0.2, {"cls_8": 1 / 3, "box_8": None})


def never() -> Figure:
    raise AssertionError("measured twice")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / ".journal.json"


@pytest.fixture
def written(path: Path) -> Path:
    QuantizeJournal(path, INPUTS).remember("first", Figure, lambda: FIGURE)
    return path


def notes_of(path: Path, inputs: str = INPUTS) -> tuple[QuantizeJournal, list[str]]:
    notes: list[str] = []
    return QuantizeJournal(path, inputs, notes.append), notes


def test_a_record_is_measured_once_and_read_back_to_the_last_digit(written: Path) -> None:
    journal, notes = notes_of(written)
    assert journal.remember("first", Figure, never) == FIGURE
    assert not notes


def test_a_failing_measurement_leaves_the_others(written: Path) -> None:
    with pytest.raises(AssertionError):
        QuantizeJournal(written, INPUTS).remember("second", Figure, never)
    assert QuantizeJournal(written, INPUTS).remember("first", Figure, never) == FIGURE


def test_other_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "journal.py").write_text("# as it was before a pull")
    monkeypatch.setattr("quantize.journal.__file__", str(tmp_path / "journal.py"))
    assert fingerprint(model="a", scale="mse") != INPUTS


def test_other_inputs(written: Path) -> None:
    journal, notes = notes_of(written, fingerprint(model="a", scale="max"))
    assert len(journal) == 0
    assert notes == [
        f"{written} is of other inputs or versions: what was measured before is measured again"
    ]
    journal.remember("other", Figure, lambda: FIGURE)
    assert len(QuantizeJournal(written, INPUTS)) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"fingerprint": 3}',
        b'{"records": {}}',
        b"[" * 100_000,
        json.dumps({"fingerprint": INPUTS, "records": []}).encode(),
        json.dumps({"fingerprint": INPUTS, "records": {}, "more": 1}).encode(),
    ],
)
def test_damaged(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    journal, notes = notes_of(path)
    assert notes == [f"{path} is damaged: what was measured before is measured again"]
    assert journal.remember("first", Figure, lambda: FIGURE) == FIGURE
    assert len(QuantizeJournal(path, INPUTS)) == 1


def test_a_folder_in_its_place_is_left_out_of_account(path: Path) -> None:
    path.mkdir(parents=True)
    _, notes = notes_of(path)
    assert "is damaged" in notes[0]


@pytest.mark.parametrize(
    "record", [None, {}, {"value": "x", "heads": {}}, {"value": 1.0, "heads": {}, "more": 1}]
)
def test_a_damaged_record_is_measured_again(written: Path, record: object) -> None:
    data = json.loads(written.read_bytes())
    data["records"]["first"] = record
    written.write_text(json.dumps(data))
    other = Figure(2.0, {})
    assert QuantizeJournal(written, INPUTS).remember("first", Figure, lambda: other) == other
    assert QuantizeJournal(written, INPUTS).remember("first", Figure, never) == other


def test_discard(written: Path) -> None:
    journal = QuantizeJournal(written, INPUTS)
    journal.discard()
    journal.discard()
    assert not list(written.parent.iterdir())


def test_in_memory_only() -> None:
    journal = QuantizeJournal(None, INPUTS)
    journal.remember("first", Figure, lambda: FIGURE)
    assert journal.remember("first", Figure, never) == FIGURE
    journal.discard()


def test_disk_full(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, text: str, encoding: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = written.read_bytes()
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device"):
        QuantizeJournal(written, INPUTS).remember("second", Figure, lambda: FIGURE)
    assert written.read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_fingerprint_depends_on_every_input_and_not_on_their_order() -> None:
    assert fingerprint(a=1, b=2) == fingerprint(b=2, a=1)
    assert len({fingerprint(a=1), fingerprint(a=2), fingerprint(b=1), fingerprint()}) == 4
