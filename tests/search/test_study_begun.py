"""All checks run before a search is saved: after a mistake, the corrected command can start in the
same folder."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Command, failed
from studies import OPTIONS, SIZE, begin, quiet_note, sound_progress

from edgeface.errors import DataError, DeviceError, EdgefaceError, OptionError
from edgeface.files import LOCK
from edgeface.predict.table import LatencyTable, Record
from edgeface.search.options import SPACE, STUDY, load_options
from edgeface.search.space import SPACES

pytest.importorskip("pymoo", reason="pymoo is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from edgeface.search.latency import LatencyOracle
from edgeface.search.study import Study

NOBODY = "ssh://nobody@127.0.0.1:1"


def content(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def table(**setting: Any) -> LatencyTable:
    """A made-up table of one network."""
    oracle = LatencyOracle(OPTIONS, Path(), sound_progress, quiet_note)
    made = dataclasses.replace(oracle.settings[SIZE], **setting)
    records = (Record(SPACES["edge"].sample(0), 1.0, 0.9, 1.1, 1.0),)
    return LatencyTable(made, "made up", "onnxruntime 0", records, (1.0,))


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        ({"target": "tflit"}, OptionError),
        ({"precision": "int4"}, OptionError),
        ({"score": "beauty"}, OptionError),
        ({"device": NOBODY}, DeviceError),
        ({"budget_mmacs": 1.3}, OptionError),  # the smallest network has 1.33 at this size
        ({"threads": 2}, DataError),  # the second table has another number of threads
    ],
)
def test_a_mistake_begins_no_search(
    mistake: dict[str, Any], error: type[EdgefaceError], small_space: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    tables = [table(**{k: v for k, v in mistake.items() if k in ("device", "threads")}), table()]
    with pytest.raises(error):
        begin(folder, space=small_space, **mistake).run(
            lambda _: None, tables if "threads" in mistake else tables[:1]
        )
    assert content(folder) == []
    begin(folder, space=small_space)._begin([table()], over=False)
    assert load_options(folder) == dataclasses.replace(OPTIONS, space=small_space)
    assert sorted(content(folder)) == [f"latency-{SIZE}.json", SPACE, STUDY]


def test_a_host_that_does_not_answer_keeps_nothing(edgeface: Command, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "y", "--target", "onnx")
    line = failed(edgeface("search", *out, "--device", NOBODY), "connection refused")
    assert "is kept" not in line and content(tmp_path / "y") == []


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("onnxruntime", "no runtime for onnx files: run: {check}"),
        ("numpy", "numpy is missing: run: ssh pi@board .* \\({check} has the whole"),
    ],
)
def test_a_device_that_lacks_something_is_told_before_files_are_made(
    hidden: str, said: str, small_space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ssh`` is replaced by a local shell whose Python does not find the package ``hidden``."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nclass Hide:\n  def find_spec(self, name, path=None, target=None):\n"
        f"    if name == {hidden!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    scripts = {
        "python": f'PYTHONPATH={tmp_path} exec {sys.executable} "$@"',
        "ssh": f'for last; do :; done; HOME={tmp_path} exec sh -c "$last"',
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    device, folder = f"ssh://pi@board?python={tmp_path}/python", tmp_path / "run"
    check = re.escape(f"edgeface device check '{device}'")
    with pytest.raises(DeviceError, match=said.format(check=check)):
        begin(folder, space=small_space, device=device).run(lambda _: None)
    assert content(folder) == []


@pytest.mark.parametrize(
    "name",
    [
        "report.html",
        "front.json",
        "trials.json",
        "detector.json",
        "round-1.json",
        "evaluations-0.jsonl",
        f"latency-{SIZE}.json",
    ],
)
def test_a_new_search_replaces_no_file_of_another_program(
    name: str, edgeface: Command, tmp_path: Path
) -> None:
    """A front.json without its search does not count as a finished search either."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / name).write_text("[]")
    arguments = ("--out", folder, "--target", "onnx", "--size", SIZE, "--device", NOBODY)
    said = f"{folder / name} is not of a search that can go on, and would be replaced: choose"
    failed(edgeface("search", *arguments), said, "--out folder, or move that file")
    assert content(folder) == [name] and (folder / name).read_text() == "[]"
    (folder / name).rename(folder / "notes.json")
    failed(edgeface("search", *arguments), "connection refused")


def test_stopped_before_it_began(
    edgeface: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, so the message does not suggest --resume."""

    def stop(_: LatencyOracle) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LatencyOracle, "check", stop)
    out = ("--out", tmp_path / "y", "--target", "onnx")
    assert edgeface("search", *out)[::2] == (130, "stopped: nothing was measured yet\n")
    assert content(tmp_path / "y") == []


def test_a_space_that_has_changed_is_not_gone_on_with(small_space: str, tmp_path: Path) -> None:
    """A search keeps its space: networks of another would mix with those scored before."""
    folder, space = tmp_path / "run", tmp_path / "mine.json"
    whole = Path(small_space).read_text()
    space.write_text(whole)
    begin(folder, space=str(space))._begin([table()], over=False)
    begin(folder, space=str(space))._begin([], over=False)
    space.write_text(json.dumps(json.loads(whole) | {"max_layers": 7}))
    with pytest.raises(
        OptionError, match=r"mine\.json has changed .*, and is kept as .*space\.json"
    ):
        begin(folder, space=str(space))._begin([], over=False)
    space.write_bytes((folder / SPACE).read_bytes())
    begin(folder, space=str(space))._begin([], over=False)


def test_it_is_written_down_under_the_lock(
    small_space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two searches begin in one folder: the second finds the search of the first and is refused."""
    folder = tmp_path / "run"
    first, second = (begin(folder, space=small_space, seed=seed) for seed in (1, 2))
    found: list[set[str]] = []

    def note(_: LatencyOracle) -> None:
        found.append({*content(folder)})

    monkeypatch.setattr(LatencyOracle, "check", note)
    monkeypatch.setattr(Study, "_stored", lambda *_: pytest.fail("it has not begun"))
    with pytest.raises(pytest.fail.Exception):
        first.run(lambda _: None)
    with pytest.raises(OptionError, match="holds a search with other options"):
        second.run(lambda _: None)
    assert found == [{LOCK}, {LOCK, SPACE, STUDY}]
    assert load_options(folder).seed == 1
