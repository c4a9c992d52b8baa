"""Architectures that a search of this project found, with the record of that search:
``searched.json``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.architecture.architecture import Architecture
from edgeface.schema import from_fields, read_packaged

if TYPE_CHECKING:
    from importlib.abc import Traversable

PATH = resources.files("edgeface.architecture") / "searched.json"  # which may lie in a zip


@dataclass(frozen=True)
class SearchRecord:
    """How an Architecture was found: what was asked, and what was measured."""

    space: str
    target: str
    precision: str
    size: str
    """of the input, WxH in px"""
    threads: int
    cpu: str
    """that the clock was asked of"""
    budget_ms: float
    """most that a network might take"""
    of_yardstick: float
    """latency, as a share of that of a network of YuNet_n's structure; both were measured beside
    the same reference"""
    measured_ms: float
    interval_ms: tuple[float, float]
    """95 %"""
    score_name: str
    score: float
    seed: int
    rounds: int
    evaluated: int
    """networks that were scored"""


@dataclass(frozen=True)
class Searched:
    """One entry of ``searched.json``."""

    architecture: Architecture
    search: SearchRecord


def read_searched(path: Path | Traversable = PATH) -> tuple[Searched, ...]:
    """Every entry. Raises ModelError for a file that is damaged."""
    entries: list[object] = read_packaged(path, list)
    return tuple(from_fields(Searched, entry, f"{path}[{i}]") for i, entry in enumerate(entries))
