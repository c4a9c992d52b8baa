"""Parameters of a measurement: what to measure (Job) and how (Protocol)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeface.errors import counted
from edgeface.options import Range, check_ranges

LOCAL = "local"
"""name of the device that is this machine"""
MAX_PHOTO_SIDE_PX = 16384


@dataclass(frozen=True)
class Job:
    """One model to time."""

    bundle: str
    """folder of the Bundle, on the machine that measures"""
    threads: int = 1
    fast: bool = False
    """let the runtime compute in lower precision if the CPU supports it"""
    label: str = ""
    """name in records, if the folder's name is ambiguous; empty: the name of the folder"""

    @property
    def name(self) -> str:
        """Name of the Bundle in records: the label, or else the name of its folder."""
        path = Path(self.bundle)
        dots = path.name in ("", "..")
        return self.label or (path.resolve() if dots else path).name

    def __str__(self) -> str:
        return f"{self.name}, {counted(self.threads, 'thread')}{', fast' * self.fast}"


@dataclass(frozen=True)
class Protocol:
    """How all models of one measurement are timed. Each field's text is its --help."""

    ranges: ClassVar[dict[str, Range]] = {
        "rounds": Range(1, 10_000),
        "per_round": Range(1, 10_000),
        "warm_up_s": Range(0, 3600),
        "photo_width": Range(16, MAX_PHOTO_SIDE_PX),
        "photo_height": Range(16, MAX_PHOTO_SIDE_PX),
        "seed": Range(0, 2**63 - 1),
        "time_limit_s": Range(1, 86_400),
        "max_load": Range(0, 1024),
        "together": Range(2, 256),
    }

    rounds: int = 50
    """rounds; in each, every model is timed in one slice, in a newly shuffled order"""
    per_round: int = 3
    """timed images per slice, after an untimed one that warms clock and caches up again"""
    warm_up_s: float = 10.0
    """longest warm-up of a model, in seconds; it ends as soon as two slices in a row agree
    within 5 %"""
    photo_width: int = 1280
    """width in px of the synthetic photo"""
    photo_height: int = 960
    """height in px of the synthetic photo"""
    seed: int = 0
    """seed of the photo, the order of the rounds and the bootstrap"""
    time_limit_s: float = 600.0
    """time limit per model in seconds, loading included; a model that takes longer, or hangs,
    is stopped"""
    max_load: float = 0.5
    """load allowed from other processes, in CPU cores; above it the records are marked
    invalid"""
    together: int = 12
    """models loaded at once; more are measured in groups, each with the reference"""

    def __post_init__(self) -> None:
        check_ranges(self)
