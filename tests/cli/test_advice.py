"""Commands that an error advises can be pasted unchanged, whatever the folders are called."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from commands import Command, failed

from edgeface.latency.devices import local
from edgeface.latency.examine import examine
from edgeface.search.options import StudyOptions, save_options


def advised(line: str, begins: str, ends: str) -> list[str]:
    """Arguments of the command in ``line`` that starts with ``begins``, up to ``ends``."""
    return shlex.split(line[line.index(begins) :].partition(ends)[0])[1:]


def test_a_weights_file_in_place_of_a_bundle(edgeface: Command, tmp_path: Path) -> None:
    weights = tmp_path / "my run" / "weights.safetensors"
    weights.parent.mkdir()
    line = failed(edgeface("bench", weights))
    words = advised(line, "edgeface export", ", or take")
    assert words[-2:] == ["--model", str(weights)]
    failed(edgeface(*words), str(weights), "cannot read weights")  # it does not exist


def test_a_photo_to_compare_on(edgeface: Command, tmp_path: Path) -> None:
    a, b = tmp_path / "my a", tmp_path / "my b"
    words = advised(failed(edgeface("compare", a, b)), "edgeface compare", "\n")
    assert words == ["compare", str(a), str(b), "--image", "photo.jpg"]


def test_records_that_are_none(edgeface: Command, tmp_path: Path) -> None:
    there = tmp_path / "my list.json"
    there.write_text("{}")
    for path in (tmp_path / "my records.json", there):
        line = failed(edgeface("bench", "compare", path, path))
        assert advised(line, "edgeface bench", "\n") == ["bench", "BUNDLE", "--save", str(path)]


def test_a_package_that_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = examine() | {"packages": {"numpy": None, "cv2": None}}
    monkeypatch.setattr(local, "examine", lambda: facts)
    monkeypatch.setattr(sys, "executable", "/my env/bin/python")
    fixes = [finding.fix for finding in local.LocalDevice().check() if not finding.ok]
    assert [shlex.split(fix or "")[0] for fix in fixes] == ["/my env/bin/python"] * 2


def test_a_search_that_is_there(edgeface: Command, tmp_path: Path) -> None:
    folder = tmp_path / "my search"
    save_options(folder, StudyOptions(target="onnx"))
    line = failed(edgeface("search", "--target", "ncnn", "--precision", "fp32", "--out", folder))
    assert advised(line, "edgeface search", ", or")[1:] == ["--resume", str(folder)]
    none = tmp_path / "no search"
    line = failed(edgeface("search", "--resume", none))
    assert advised(line, "edgeface search", "\n") == ["search", "--out", str(none)]
