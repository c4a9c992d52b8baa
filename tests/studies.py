"""Small searches for tests, measured on this machine with ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeface.search.options import StudyOptions, load_options

pytest.importorskip("pymoo", reason="pymoo is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("torch", reason="torch is not installed")


from edgeface.search.study import Study

Note = Callable[[str], None]
SIZE = "160x128"
OPTIONS = StudyOptions(
    target="onnx",
    precision="fp32",
    sizes=(SIZE,),
    first=20,
    rounds=1,
    picks=4,
    population=16,
    generations=4,
    max_load=64,
    objective="pareto",
    alpha=0.05,
)


def quiet_note(text: str) -> None:
    assert "\n" not in text


def sound_progress(what: str, done: int, total: int, note: str = "") -> None:
    assert 0 <= done <= total


def begin(folder: Path, note: Note = quiet_note, **options: Any) -> Study:
    """A search with OPTIONS, some of them replaced by ``options``."""
    return Study(dataclasses.replace(OPTIONS, **options), folder, sound_progress, note)


def resume(folder: Path) -> Study:
    return Study(load_options(folder), folder, sound_progress, quiet_note)
