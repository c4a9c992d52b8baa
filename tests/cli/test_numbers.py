"""Every number that a command takes has two limits, which its help states.

A number beyond them is refused before anything is done."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from commands import Command, failed
from verbs import LEAST, function_of

from edgeface.cli.app import VERBS

RANGE = re.compile(r"(?:from|above) \S+ to \S+|\d[\d.]* to \d+|\d<=x<=\d+|multiple of 32 from")
"""how the help states the range of a number"""


def _kinds(hint: Any) -> set[Any]:
    return {hint}.union(*map(_kinds, get_args(hint)))


NUMBERS = [
    (verb, name.replace("_", "-"))
    for verb in VERBS
    for name, parameter in inspect.signature(function_of(verb), eval_str=True).parameters.items()
    if {int, float} & _kinds(parameter.annotation)
]


def test_numbers_are_found() -> None:
    assert len(NUMBERS) > 60 and {("train", "lr"), ("demo", "port"), ("bench", "threads")} <= {
        *NUMBERS
    }


@pytest.mark.parametrize(("verb", "name"), NUMBERS)
def test_help_says_both_ends(verb: str, name: str, edgeface: Command) -> None:
    text = " ".join(edgeface(*verb.split(), "--help")[1].split())
    mine = re.search(rf"--{name} <.*?(?= --[a-z-]+ <|$)", text)
    assert mine and RANGE.search(mine[0]), mine


@pytest.mark.parametrize("value", ["1" + "0" * 30, "-1" + "0" * 30])
@pytest.mark.parametrize(("verb", "name"), NUMBERS)
def test_what_is_beyond_is_refused(
    verb: str,
    name: str,
    value: str,
    edgeface: Command,
    bundle: str,
    portraits: Path,
    tmp_path: Path,
) -> None:
    photo = portraits / "hopper.jpg"
    places = {"photo": photo, "bundle": bundle, "photos": portraits, "out": tmp_path / "out"}
    arguments = [argument.format(**places) for argument in LEAST[verb]]
    line = failed(edgeface(*verb.split(), *arguments, f"--{name}={value}"), f"--{name}")
    assert re.search(r" to | and |<=", line), line
    assert not (tmp_path / "out").exists()
