"""Separate virtual environments, for packages that conflict with ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def make_venv(folder: Path, *packages: str) -> Path:
    """Python of a new environment with these packages. Skips the test without a package index."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    _pip(python, "install", *packages)
    return python


def build_wheel(folder: Path) -> Path:
    """The wheel, built in ``folder`` from a copy, so that nothing is left in the checkout. Skips
    the test without a package index."""
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "edgeface", copy / "edgeface", ignore=ignored)
    _pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", str(folder), str(copy))
    shutil.rmtree(copy)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _pip(python: Path, verb: str, *words: str) -> None:
    command = [str(python), "-m", "pip", verb, "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and "connection" in done.stderr.lower():
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr


def run_json(python: Path, code: str, *arguments: object) -> Any:
    """The last line that ``code`` prints, parsed as JSON."""
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
