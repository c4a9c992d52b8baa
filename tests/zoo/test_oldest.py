"""The lower bounds of pyproject.toml: everything runs with them, and older runtimes are named."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomllib
from venvs import build_wheel, make_venv

from edgeface.backends import BACKENDS, get_backend, import_runtime
from edgeface.cli.doctor import diagnose
from edgeface.detector import Detector
from edgeface.errors import MissingExtraError
from edgeface.latency.examine import examine

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "docs" / "photo.jpg"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FILES = {
    "onnx": "edgeface-n-onnx-fp32-640x480-dynamic",
    "tflite": "edgeface-n-tflite-int8-640x480",
    "openvino": "edgeface-n-openvino-int8-640x480",
    "ncnn": "edgeface-n-ncnn-int8-640x480",
}


def lowest(requirements: list[str]) -> dict[str, str]:
    """Distribution name -> its lower bound."""
    found = (re.match(r"([\w-]+)>=([\w.]+)", text) for text in requirements)
    return {match[1]: match[2] for match in found if match}


@pytest.mark.parametrize("target", BACKENDS)
class TestRuntimes:
    def test_the_table_has_the_bounds_of_the_extras(self, target: str) -> None:
        row = BACKENDS[target]
        assert lowest(EXTRAS[row.extra])[row.distributions[0]] == row.oldest

    def test_an_older_one_is_named(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        row = dataclasses.replace(get_backend(target), oldest="9999.1")
        monkeypatch.setitem(BACKENDS, target, row)
        monkeypatch.delitem(sys.modules, row.packages[0], raising=False)
        with pytest.raises(MissingExtraError, match=rf">=9999\.1': run: .*\[{row.extra}\]"):
            import_runtime(row)
        (told,) = (found for found in diagnose()["backends"] if found["target"] == target)
        assert told["version"] and told["fix"] == f"pip install 'edgeface[{row.extra}]'"
        assert examine()["runtimes"][target] is None

    def test_what_is_installed_is_not(self, target: str) -> None:
        assert not BACKENDS[target].too_old()


@pytest.mark.slow
class TestWithTheLowest:
    @pytest.fixture(scope="class")
    def command(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("lowest")
        extras = ["cli", *(row.extra for row in BACKENDS.values())]
        bounds = lowest([*PROJECT["dependencies"], *(r for e in extras for r in EXTRAS[e])])
        exact = [f"{name}=={version}" for name, version in bounds.items()]
        wheel = build_wheel(folder)
        python = make_venv(folder / "venv", f"{wheel}[{','.join(extras)}]", *exact)
        return python.with_name("edgeface")

    @pytest.mark.parametrize("target", FILES)
    def test_the_boxes_of_today(self, target: str, command: Path) -> None:
        """Boxes agree to .01 px, or to 1 px where INT8 kernels may round differently."""
        words: list[str | Path] = [
            command,
            "detect",
            PHOTO,
            "--model",
            FILES[target],
            "--format",
            "json",
        ]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        (face,) = json.loads(done.stdout)[0]["faces"]
        with Detector.open(FILES[target]) as detector:
            (expected,) = detector.detect(PHOTO)
        np.testing.assert_allclose(face["box"], expected.box, atol=0.01 if target == "onnx" else 1)

    def test_the_command_line(self, command: Path) -> None:
        done = subprocess.run([command, "detect", "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and "--score-threshold" in done.stdout, done.stderr
        done = subprocess.run([command, "detect"], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
