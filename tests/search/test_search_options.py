"""Which options the command takes for a new search, for a resumed one, and without a search of its
own: none is dropped silently."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command, failed

from edgeface.search.options import StudyOptions, save_options
from edgeface.types import unseen

pytest.importorskip("pymoo", reason="pymoo is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from edgeface.search import study
from edgeface.search.latency import LatencyOracle
from edgeface.search.report import document

FACES = "image,x1,y1,x2,y2\na.png,10,10,60,70\n"
OPTIONS = StudyOptions(target="tflite", rounds=8, seed=5, sizes=("320x256",), budget_ms=6)


class Searched(Exception):
    """Raised in place of a search, with its options."""

    def __init__(self, options: StudyOptions) -> None:
        self.options = options


@pytest.fixture
def searched(edgeface: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StudyOptions]:
    """The options that a command would search with."""

    def study_of(options: StudyOptions, *_: object, **__: object) -> None:
        raise Searched(options)

    def command(*arguments: object) -> StudyOptions:
        with pytest.raises(Searched) as found:
            edgeface("search", *arguments)
        return found.value.options

    monkeypatch.setattr(study, "Study", study_of)
    return command


@pytest.mark.parametrize(
    "given",
    [
        {"target": "openvino"},  # the default of a new search
        {"rounds": 4},
        {"seed": 0},
        {"size": "640x480"},
        {"budget_ms": 0},
        {"data": "{tmp}/faces.csv"},
        {"target": "openvino", "rounds": 4, "seed": 0},
        {"max_load": 3, "seed": 9, "rounds": 8},
    ],
)
def test_another_option_is_named_and_refused_on_a_resume(
    given: dict[str, Any], edgeface: Command, tmp_path: Path
) -> None:
    save_options(tmp_path / "s", OPTIONS)
    (tmp_path / "faces.csv").write_text(FACES)
    words = [
        str(word).format(tmp=tmp_path)
        for name, value in given.items()
        for word in (f"--{name.replace('_', '-')}", value)
    ]
    known = {"max_load", "rounds"} if "max_load" in given else set()
    flags = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in given.keys() - known))
    line = failed(edgeface("search", "--resume", tmp_path / "s", *words))
    assert f"leave {flags} out; --jobs, --max-load, --together may change" in line


def test_what_is_said_again_is_no_other_option(
    searched: Callable[..., StudyOptions], tmp_path: Path
) -> None:
    save_options(tmp_path, OPTIONS)
    again = ("--target", "tflite", "--seed", 5, "--size", "320x256", "--budget-ms", 6)
    resumed = ("--resume", tmp_path)
    assert searched(*resumed) == searched(*resumed, *again) == OPTIONS
    changed = searched(*resumed, *again, "--max-load", 3, "--jobs", 2, "--together", 4)
    assert changed == dataclasses.replace(OPTIONS, max_load=3, jobs=2, together=4)
    assert LatencyOracle(changed, tmp_path, unseen, print).protocol.together == 4


def test_landmarks_are_for_finish(edgeface: Command, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "s", "--landmarks", tmp_path / "none")
    failed(edgeface("search", *out), "--landmarks are for --finish")
    assert not (tmp_path / "s").exists()


def test_the_published_search_takes_what_help_says(edgeface: Command, tmp_path: Path) -> None:
    """The faces given with --data weight its stages."""
    (tmp_path / "faces.csv").write_text(FACES)
    own = ("search", "--published", "0.5g", "--format", "json")
    assert "Accepts --alpha, --data, --seed and --out" in " ".join(
        edgeface("search", "--help")[1].split()
    )
    code, out, err = edgeface(*own, "--data", tmp_path / "faces.csv", "--alpha", 0.1, "--seed", 1)
    plain = edgeface(*own, "--alpha", 0.1, "--seed", 1)[1]
    assert code == 0 and json.loads(out)["ddsar"] != json.loads(plain)["ddsar"], err
    for option in ("landmarks", "annotations", "table"):
        failed(edgeface(*own, f"--{option}", tmp_path / "x"), f"leave --{option} out")


def test_files_that_are_shared_have_no_options_of_the_device() -> None:
    """Options of a device may run commands, and may name files of the user's machine."""
    options = dataclasses.replace(OPTIONS, device="ssh://pi@board?config=/home/me/private")
    page = document(options, [], [], {})
    assert "ssh://pi@board" in page and "private" not in page
