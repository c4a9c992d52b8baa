"""Places for results are checked before the work: plots, saved tables, the plotting library."""

from __future__ import annotations

import inspect
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import Command, failed
from verbs import LEAST, function_of

from benchmarks.common import Printed
from edgeface.cli import output
from edgeface.cli.app import VERBS
from edgeface.cli.flags import program_of
from edgeface.errors import OutputError

DRAWS = [verb for verb in VERBS if "plot" in inspect.signature(function_of(verb)).parameters]
BAD = {
    "file/a.png": "cannot write",
    "folder.png": "it is a folder",
    "a.jpg": "saved as one of .png, .svg",
    "a": "saved as one of .png, .svg",
    "..": "saved as one of .png, .svg",
}
"""place to write to -> part of the error message"""


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder that contains a file and a folder, both in the way of results."""
    (tmp_path / "file").write_text("the user's")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.fixture
def least(
    bundle: str, hopper_path: Path, portraits: Path, tmp_path: Path
) -> Callable[[str], list[str]]:
    """``least(verb)`` -> the arguments that the verb needs to start its work."""

    def arguments(verb: str) -> list[str]:
        names = {"photo": hopper_path, "photos": portraits, "bundle": bundle, "out": tmp_path / "o"}
        return [verb, *(a.format(**names).replace("nowhere", str(tmp_path)) for a in LEAST[verb])]

    return arguments


def test_what_draws_is_found() -> None:
    assert {"eval", "compare", "quantize"} <= set(DRAWS)


@pytest.mark.parametrize("place", BAD)
@pytest.mark.parametrize("verb", DRAWS)
def test_a_plot_that_cannot_be_written(
    edgeface: Command, least: Callable[[str], list[str]], places: Path, verb: str, place: str
) -> None:
    before = sorted(places.rglob("*"))
    failed(edgeface(*least(verb), "--plot", places / place), BAD[place])
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize("verb", DRAWS)
def test_a_plot_without_what_draws_it(
    edgeface: Command,
    least: Callable[[str], list[str]],
    tmp_path: Path,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = least(verb)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    failed(edgeface(*arguments, "--plot", tmp_path / "a.png"), "pip install 'edgeface[eval]'")
    assert not list(tmp_path.iterdir())


def test_a_plot_in_the_place_of_an_input(
    edgeface: Command, least: Callable[[str], list[str]], portraits: Path, tmp_path: Path
) -> None:
    photo = portraits / "astronaut.png"
    faces = tmp_path / "faces.csv"
    faces.write_text("image,x1,y1,x2,y2\nastronaut.png,176,60,272,180\n")
    before = photo.read_bytes()
    own = ("eval", "--data", portraits, "--annotations", faces)
    for arguments in ((*least("compare")[:3], "--image", photo), least("quantize"), own):
        failed(edgeface(*arguments, "--plot", photo), "is the input", "which it would replace")
    assert photo.read_bytes() == before


@pytest.mark.parametrize("verb", ["bench", "eval"])
def test_results_are_saved_although_stdout_is_full(
    edgeface: Command,
    least: Callable[[str], list[str]],
    bundle: str,
    portraits: Path,
    tmp_path: Path,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(text: str) -> bool:
        raise OutputError("cannot print: no room")

    monkeypatch.setattr(output, "put", full)
    faces = tmp_path / "faces.csv"
    faces.write_text("image,x1,y1,x2,y2\nastronaut.png,176,60,272,180\n")
    own = ("--data", portraits, "--annotations", faces, "--model", bundle)
    arguments = {
        "bench": (*least("bench"), "--rounds", 1, "--warm-up-s", 0, "--save", tmp_path / "saved"),
        "eval": ("eval", *own, "--predictions", tmp_path / "saved"),
    }
    assert failed(edgeface(*arguments[verb])) == "error: cannot print: no room"
    assert (tmp_path / "saved").exists()


def test_a_plot_in_the_place_of_a_photo_in_wider_faces_folder(
    edgeface: Command, portraits: Path, tmp_path: Path
) -> None:
    """Photos of a user are read from WIDER FACE's folders, too, as training reads them."""
    photo = tmp_path / "WIDER_train" / "images" / "own" / "a.png"
    photo.parent.mkdir(parents=True)
    shutil.copy(portraits / "astronaut.png", photo)
    (tmp_path / "faces.csv").write_text("own/a.png,176,60,272,180\n")
    own = ("eval", "--data", tmp_path, "--annotations", tmp_path / "faces.csv")
    failed(edgeface(*own, "--plot", photo), "is the input", "which it would replace")
    assert photo.read_bytes() == (portraits / "astronaut.png").read_bytes()


def test_a_long_search_asks_before_it_begins(edgeface: Command, places: Path) -> None:
    out = ("--out", places / "file")
    code, _, err = edgeface("search", "--published", "0.5g", *out)
    assert (
        code == 2
        and err == f"error: cannot write {out[1]}/architecture.json: {out[1]} is not a folder\n"
    )


def test_imported_weights_replace_no_checkpoint(edgeface: Command, places: Path) -> None:
    mine = (places / "file").rename(places / "mine.safetensors")
    arguments = ("weights", "import", mine, "--model", "extd-fpn-32-prelu")
    failed(edgeface(*arguments, "--out", mine), "is the input")
    assert mine.read_text() == "the user's"


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of a benchmark that draws a plot."""

    plot: Path | None = None
    """where"""
    annotations: Path | None = None
    """of photos"""
    models: tuple[str, ...] = ()
    """names or files"""


def _never(options: Options) -> None:
    raise AssertionError("the work has begun")


@pytest.mark.parametrize("place", BAD)
def test_a_benchmark_asks_before_it_works(
    places: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = program_of(Options, "python -m benchmarks.none", "None.", _never)
    assert main(["--plot", str(places / place)]) == 2
    err = capsys.readouterr().err
    assert BAD[place] in err and err.count("\n") == 1
    assert main(["--save", str(places / "file" / "a.json")]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write ")


@pytest.mark.parametrize("option", ["--annotations", "--models"])
def test_a_benchmark_replaces_no_input(
    places: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = program_of(Options, "python -m benchmarks.none", "None.", _never)
    (places / "link.json").symlink_to("file")
    for save in (("--save", "file"), ("--save", "link.json"), ("--plot", "file")):
        assert main([option, str(places / "file"), save[0], str(places / save[1])]) == 2
        err = capsys.readouterr().err
        assert "is the input" in err and err.count("\n") == 1
    assert (places / "file").read_text() == "the user's"


def test_a_benchmark_replaces_no_file_of_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = program_of(Options, "python -m benchmarks.none", "None.", _never)
    (tmp_path / "manifest.json").write_text("{}")
    saved = str(tmp_path / "manifest.json")
    assert main(["--models", str(tmp_path), "--save", saved]) == 2
    assert "is the input" in capsys.readouterr().err
    assert (tmp_path / "manifest.json").read_text() == "{}"
