"""Imports between folders of edgeface: no two folders import each other, and those that do without
torch import those that need it only on use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_light_import import WITH_TORCH

PACKAGE = Path(__file__).parents[1] / "edgeface"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""import name -> file"""
TORCH_ROOMS = tuple(f"edgeface.{room.replace('/', '.')}" for room in WITH_TORCH)


def room_of(module: str) -> str:
    """The room of a module: its folder, or the module itself if it lies directly in edgeface."""
    folder = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    return module if folder == "edgeface" else folder


def imported(tree: ast.AST, inside: bool = True) -> Iterator[str]:
    """Modules of edgeface that ``tree`` imports at run time; imports within functions count only if
    ``inside``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (
                name if name in MODULES else node.module for name in names if node.module in MODULES
            )
        elif inside or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imported(node, inside)


def arrows(inside: bool = True) -> set[tuple[str, str]]:
    """Pairs of a room and another room that it imports. Without ``inside``, imports within
    functions do not count, nor do those of any ``options`` module, which holds only data."""
    found = {
        (room_of(module), room_of(other))
        for module, path in MODULES.items()
        for other in imported(ast.parse(path.read_text(encoding="utf-8")), inside)
        if inside or not other.endswith(".options")
    }
    return {(a, b) for a, b in found if a != b and b != "edgeface"}


def test_imports_are_found() -> None:
    assert ("edgeface.detector", "edgeface.images") in arrows()
    assert ("edgeface.detector", "edgeface.zoo") in arrows() - arrows(inside=False)


def test_no_two_rooms_import_each_other() -> None:
    found = arrows()
    assert [pair for pair in sorted(found) if pair[::-1] in found] == []


def test_nothing_light_imports_a_torch_room_before_it_is_used() -> None:
    found = arrows(inside=False)
    assert [(a, b) for a, b in sorted(found) if b in TORCH_ROOMS and a not in TORCH_ROOMS] == []


@pytest.mark.parametrize("package", ["export", "quantize", "benchmarks"])
def test_the_library_imports_nothing_of_the_checkout(package: str) -> None:
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.partition(".")[0] == package for name in names), path


def test_a_class_name_has_one_meaning() -> None:
    homes: dict[str, list[str]] = {}
    for package in ("edgeface", "export", "quantize", "benchmarks"):
        for path in sorted((PACKAGE.parent / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and node.name != "Options":  # one per benchmark
                    homes.setdefault(node.name, []).append(str(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_few_modules_lie_in_no_room() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "cli"}
    assert len(loose) <= 12, sorted(loose)
