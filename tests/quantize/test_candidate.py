"""Files of untrained networks: each is made once, in another process, and failures there are
reported."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import textwrap
from pathlib import Path

import pytest
from networks import with_part

from edgeface.architecture.architecture import Architecture
from edgeface.bundle import Bundle
from edgeface.errors import MissingExtraError, OptionError, OutputError
from edgeface.search.space import SPACES

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxsim", reason="the export extra is not installed")

from quantize.candidate import candidate_bundles, make_candidate

KINDS = (("onnx", "int8"), ("onnx", "fp32"))
FP32 = (("onnx", "fp32"),)
GOOD = SPACES["resnet"].sample(0)


def broken() -> Architecture:
    """A network whose backbone structure is malformed."""
    return with_part(GOOD, "backbone", "broken", structure="SuperConv(1)")


def test_made_once_in_the_order_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: list[tuple[str, int, int]] = []
    monkeypatch.chdir(tmp_path)  # the relative "out" must hold in other processes
    wrong, made = candidate_bundles(
        [broken(), GOOD],
        KINDS,
        96,
        64,
        Path("out"),
        lambda *values: ticks.append(values),
        processes=2,
    )
    assert isinstance(wrong, str) and "malformed" in wrong and "\n" not in wrong
    assert not isinstance(made, str)
    assert [path.name for path in made] == [f"{GOOD.name}-onnx-{p}-96x64" for p in ("int8", "fp32")]
    manifests = [Bundle.open(path).manifest for path in made]
    assert [m.architecture for m in manifests] == [GOOD, GOOD]
    assert [m.precision for m in manifests] == ["int8", "fp32"]
    assert ticks == [("making files for onnx int8, onnx fp32", done, 2) for done in (1, 2)]
    before = [(path / "manifest.json").stat().st_mtime_ns for path in made]
    assert candidate_bundles(
        [GOOD], KINDS, 96, 64, Path("out"), lambda *values: ticks.append(values)
    ) == [made]
    assert [(path / "manifest.json").stat().st_mtime_ns for path in made] == before and len(
        ticks
    ) == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    theirs = tmp_path / f"{GOOD.name}-onnx-fp32-96x64"
    theirs.write_text("the user's")
    (why,) = candidate_bundles([GOOD], FP32, 96, 64, tmp_path)
    assert isinstance(why, str) and str(theirs) in why and theirs.read_text() == "the user's", why
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="is not a folder"):
        candidate_bundles([GOOD], FP32, 96, 64, tmp_path / "file" / "below")


def test_a_converter_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New processes find no onnxsim."""
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name == "onnxsim":
                    raise ModuleNotFoundError("blocked by the test", name=name)

        sys.meta_path.insert(0, Blocker())
    """)
    )
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    with pytest.raises(MissingExtraError, match=r"onnxsim.*pip install"):
        candidate_bundles([GOOD], FP32, 96, 64, tmp_path / "out")


def test_two_networks_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="two networks here have one name"):
        candidate_bundles(
            [GOOD, dataclasses.replace(broken(), name=GOOD.name)], FP32, 96, 64, tmp_path
        )


def test_no_place_for_temporary_files_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    item = {"architecture": GOOD.to_json(), "kinds": [list(FP32[0])], "width": 96, "height": 64}
    with pytest.raises(OutputError, match="cannot write a temporary folder"):
        make_candidate(item | {"out": str(tmp_path / "out")})
