"""Architectures found by searches of this project, with their records: ``searched.json``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.architecture.architecture import Architecture
from edgeface.schema import from_fields, read_packaged

if TYPE_CHECKING:
    from importlib.abc import Traversable

PATH = resources.files("edgeface.architecture") / "searched.json"  # may be inside a zip file


@dataclass(frozen=True)
class SearchRecord:
    """How an Architecture was found: the settings of its search and the measurements."""

    space: str
    target: str
    precision: str
    size: str
    """size of the input, WxH in px"""
    threads: int
    cpu: str
    """processor on which latency was measured"""
    budget_ms: float
    """latency limit of the search, in ms"""
    of_yardstick: float
    """latency divided by that of a network with YuNet_n's structure; both were measured relative to
    the same reference"""
    measured_ms: float
    interval_ms: tuple[float, float]
    """95 % confidence interval of ``measured_ms``"""
    score_name: str
    score: float
    seed: int
    rounds: int
    evaluated: int
    """number of networks that were scored"""


@dataclass(frozen=True)
class Searched:
    """One entry of ``searched.json``."""

    architecture: Architecture
    search: SearchRecord


def read_searched(path: Path | Traversable = PATH) -> tuple[Searched, ...]:
    """Read every entry. Raises ModelError if the file is damaged."""
    entries: list[object] = read_packaged(path, list)
    return tuple(from_fields(Searched, entry, f"{path}[{i}]") for i, entry in enumerate(entries))
