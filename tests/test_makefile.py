"""The Makefile in a test checkout, whose ``.venv`` has a Python that records its arguments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VENV_PYTHON = """#!{python}
import json, os, sys
with open("calls", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""
PLACE = "Bob's photos & more"
"""name with characters that a shell interprets"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a blank and a quote in its path."""
    folder = tmp_path / "Bob's check out"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    python.write_text(VENV_PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    (folder / ".venv" / ".installed").touch()
    return folder


def make(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        ["make", *words],
        cwd=checkout,
        env=own | environment,  # without the MAKE variables of a make that runs the tests
        capture_output=True,
        text=True,
    )


def filled(folder: Path) -> Path:
    """A folder with a file in it."""
    folder.mkdir(parents=True)
    (folder / "file").write_text("something")
    return folder


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("train", {"MODEL": "--model", "DATA": "--data", "RUN_DIR": "--out"}),
        ("eval", {"MODEL": "--model", "DATA": "--data"}),
        ("export", {"MODEL": "--model", "OUT": "--out", "SIZE": "--size"}),
        ("quantize", {"DATA": "--data", "OUT": "--out", "CALIBRATION": "--calibration"}),
        ("bench-export", {"DATA": "--data", "OUT": "--out", "MAX_DROP": "--max-drop"}),
        ("bench", {"PEERS": "--peers", "OUT": "--out", "CALIBRATION": "--calibration"}),
        ("bench-pi", {"DEVICE": "--device", "PEERS": "--peers", "DATA": "--data"}),
        ("bench-tables", {"OUT": "--out"}),
        ("search", {"DEVICE": "--device", "SEARCH_DIR": "--out", "BUDGET_MS": "--budget-ms"}),
        ("package", {"OUT": "--wheel-dir"}),
    ],
)
def test_a_value_is_one_word(checkout: Path, target: str, names: dict[str, str]) -> None:
    done = make(checkout, target, *(f"{name}={PLACE}/{name}" for name in names))
    assert done.returncode == 0, done.stderr
    (call,) = map(json.loads, (checkout / "calls").read_text().splitlines())
    for name, option in names.items():
        assert call[call.index(option) + 1] == f"{PLACE}/{name}"


def test_folders_below_out_are_one_word_each(checkout: Path) -> None:
    done = make(checkout, "bench-model", f"OUT={PLACE}", "MEASURE=1")
    assert done.returncode == 0, done.stderr
    (call,) = map(json.loads, (checkout / "calls").read_text().splitlines())
    assert call[2:] == [
        *("--plot", f"{PLACE}/bench/latency_model.png", "--measure"),
        *("--tables", f"{PLACE}/latency_tables", "--bundles", f"{PLACE}/candidates"),
    ]


def test_several_words_stay_several(checkout: Path) -> None:
    assert make(checkout, "bench", "BENCH=--rounds 5 --again").returncode == 0
    assert json.loads((checkout / "calls").read_text())[-3:] == ["--rounds", "5", "--again"]


def test_options_are_of_the_command_line_alone(checkout: Path) -> None:
    assert make(checkout, "train", DATA="/elsewhere", MODEL="other").returncode == 0
    call = json.loads((checkout / "calls").read_text())
    assert "/elsewhere" not in call and call[call.index("--model") + 1] == "edgeface-n"


def test_the_examples_run_in_any_checkout(checkout: Path) -> None:
    """test.sh gets the Python of the checkout as $PYTHON."""
    (checkout / "examples").mkdir()
    (checkout / "examples" / "test.sh").write_text('cd examples && "$PYTHON" python/test.py\n')
    done = make(checkout, "test-apps")
    assert done.returncode == 0, done.stderr
    assert (checkout / "examples" / "calls").read_text() == '["python/test.py"]\n'


@pytest.mark.parametrize("out", ["dist", "./dist", "Bob's results/of today", "none"])
def test_clean_removes_results(checkout: Path, out: str) -> None:
    for folder in ("dist", "Bob's results/of today", "runs", "build"):
        filled(checkout / folder)
    done = make(checkout, "clean", f"OUT={out}")
    assert done.returncode == 0, done.stderr
    assert not (checkout / out).exists() and not (checkout / "build").exists()
    assert (checkout / "runs" / "file").is_file() and (checkout / ".venv").is_dir()
    assert (checkout / "dist").is_dir() == (out not in ("dist", "./dist"))


def test_clean_takes_no_folder_of_the_environment(checkout: Path, tmp_path: Path) -> None:
    models = filled(tmp_path / "models")
    filled(checkout / "dist")
    assert make(checkout, "clean", OUT=str(models)).returncode == 0
    assert (models / "file").is_file() and not (checkout / "dist").exists()


@pytest.mark.parametrize(
    "out",
    [
        *("{outside}", "{outside} dist", "../models", "dist/../../models", "link", "link/sub"),
        *("", ".", "./", "..", ".venv", "runs", "runs/mine", "edgeface"),
    ],
)
def test_clean_refuses_what_was_not_made_here(checkout: Path, tmp_path: Path, out: str) -> None:
    kept = [
        filled(tmp_path / "models"),
        filled(tmp_path / "models" / "sub"),
        *(filled(checkout / name) for name in ("dist", "runs/mine", "edgeface")),
    ]
    (checkout / "link").symlink_to(tmp_path / "models")
    for words in (["init"], ["add", "edgeface"]):
        subprocess.run(["git", *words], cwd=checkout, check=True, capture_output=True)
    done = make(checkout, "clean", f"OUT={out.format(outside=tmp_path / 'models')}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: OUT=") and "clean removes a folder" in done.stderr
    assert all((folder / "file").is_file() for folder in kept) and (checkout / ".venv").is_dir()
