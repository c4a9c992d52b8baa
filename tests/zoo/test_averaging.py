"""The mean of weights files is the mean of their tensors; all must be of one network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from edgeface import zoo
from edgeface.cli.app import app
from edgeface.errors import EdgefaceError
from edgeface.models import build
from edgeface.zoo.averaging import average_weights

NAME = "damofd-0.5g"


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three weights files of one network, each initialised from its own seed."""
    folder = tmp_path_factory.mktemp("ends")
    paths = [folder / f"{seed}.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        zoo.save_weights(build(NAME, seed=seed), path)
    return paths


def test_mean(ends: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    done = average_weights(ends, out)
    assert (done.model, done.files) == (NAME, [str(path) for path in ends])
    given = [load_file(path) for path in ends]
    found = load_file(out)
    assert found.keys() == given[0].keys()
    moved = 0
    for key, value in found.items():
        expected = np.mean([each[key].astype(np.longdouble) for each in given], axis=0)
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected.astype(np.float32))
        moved += not np.array_equal(value, given[0][key])
    assert moved > 50
    assert zoo.load_network(out).architecture.name == NAME


def test_of_equal_files_nothing_changes(ends: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    average_weights([ends[0], ends[0]], out)
    assert out.read_bytes() == ends[0].read_bytes()


def test_what_has_no_mean(ends: list[Path], tmp_path: Path) -> None:
    other, cut, text = (tmp_path / name for name in ("o.safetensors", "c.safetensors", "t.pth"))
    zoo.save_weights(build("scrfd-0.5g"), other)
    cut.write_bytes(ends[0].read_bytes()[:-100])
    text.write_text("no weights")
    unnamed = tmp_path / "u.safetensors"
    save_file(load_file(ends[0]), unnamed)
    out = tmp_path / "mean.safetensors"
    for files, words in (
        ([ends[0], unnamed], "u.safetensors does not say .*: give files that edgeface train wrote"),
        ([ends[0]], "two files or more, 1 given"),
        ([ends[0], other], "is of scrfd-0.5g"),
        ([ends[0], cut], "c.safetensors is not a whole"),
        ([text, ends[0]], "t.pth: give the weights.safetensors"),
        ([ends[0], tmp_path / "gone.safetensors"], "gone.safetensors"),
    ):
        with pytest.raises(EdgefaceError, match=words) as caught:
            average_weights(files, out)
        assert "\n" not in str(caught.value) and not out.exists()


def test_the_command(ends: list[Path], tmp_path: Path) -> None:
    def run(*words: object) -> Result:
        return CliRunner().invoke(app, ["weights", "average", *map(str, words)])

    out = tmp_path / "mean.safetensors"
    result = run(*ends, "--out", out, "--format", "json")
    assert json.loads(result.output) == {
        "model": NAME,
        "weights": str(out),
        "files": [str(path) for path in ends],
    }
    before = ends[0].read_bytes()
    refused = run(*ends, "--out", ends[0])
    assert "is the input" in str(refused.exception)
    assert ends[0].read_bytes() == before


@pytest.mark.parametrize("command", [("average",), ("import", "--model", NAME)])
def test_a_name_that_no_model_option_takes(
    ends: list[Path], tmp_path: Path, command: tuple[str, ...]
) -> None:
    out = tmp_path / "mean.pth"
    words = ["weights", *command, *map(str, ends), "--out", str(out)]
    refused = CliRunner().invoke(app, words)
    assert "mean.safetensors" in str(refused.exception) and not out.exists()
