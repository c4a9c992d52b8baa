"""Commands in README, docs and CONTRIBUTING can be run, and the targets of their links exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgeface.cli.app import VERBS, load
from edgeface.deprecations import MODULES

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
    *(f"edgeface/zoo/{path.name}" for path in (ROOT / "edgeface/zoo").glob("*.md")),
)


def commands(text: str) -> list[str]:
    """Calls of edgeface, make and python -m in code blocks and in code within sentences."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [
        line
        for language, block in blocks
        if not language
        for line in block.replace("\\\n", " ").splitlines()
    ]
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", sentences)]
    calls = [part.strip() for line in lines for part in line.partition("#")[0].split("&&")]
    return [call for call in calls if re.match(r"(edgeface|make|python -m) ", call)]


def options_of(module: str, step: list[str]) -> set[str]:
    """Options that the help of ``python -m module`` lists."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert importlib.import_module(module).main([*step, "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]*", text.getvalue()))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists_with_its_options(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for call in commands((ROOT / page).read_text(encoding="utf-8")):
        program, *words = shlex.split(call.replace("…", ""))
        if program == "make":
            targets = [word for word in words if "=" not in word]
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), (
                call
            )
            assert all(word.partition("=")[0] in makefile for word in words), call
        elif program == "python":
            module = words[1].replace(".", "/")
            assert (ROOT / f"{module}.py").is_file() or (ROOT / module / "__main__.py").is_file(), (
                call
            )
            assert words[1] not in MODULES, f"{call}: the new name"
            step = list(itertools.takewhile(lambda word: not word.startswith("-"), words[2:]))
            used = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
            assert not used or used <= options_of(words[1], step), call
        elif not words[0].startswith("-"):
            name = " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]
            known = {flag for parameter in load(name).params for flag in parameter.opts} | {
                "--help"
            }
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= known, f"{call}: {used - known}"


@pytest.mark.parametrize("page", ["README.md", "docs/apps.md"])
def test_the_first_python_runs(page: str) -> None:
    """Pasted unchanged and run in the checkout, it prints the one face of docs/photo.jpg."""
    code = (ROOT / page).read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "0.9" in done.stdout and done.stdout.count("[") >= 2


def sections(text: str) -> set[str]:
    """Headings, spelled as in links to them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, section in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        if target.startswith("http"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not section or section in sections(path.read_text(encoding="utf-8")), section


def test_every_page_is_in_the_index_and_the_readme_is_short() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", index))
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
