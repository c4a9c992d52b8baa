"""What is measured and how: the two things a measurement is asked for with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from edgeface.errors import OptionError

LOCAL = "local"
"""the device that is the machine itself"""
MAX_PHOTO_SIDE_PX = 16384


@dataclass(frozen=True)
class Job:
    """One model to time."""

    bundle: str
    """folder of the Bundle, on the machine that measures"""
    threads: int = 1
    fast: bool = False
    """let the runtime compute in lower precision where the CPU has it"""
    label: str = ""
    """what tells the Bundle from another one of its name; empty: the name will do"""

    @property
    def name(self) -> str:
        """Of the Bundle's folder, as records have it."""
        return self.label or PurePath(self.bundle).name

    def __str__(self) -> str:
        return f"{self.name}, {self.threads} thread{'s' * (self.threads > 1)}{', fast' * self.fast}"


@dataclass(frozen=True)
class Protocol:
    """How all models of one measurement are timed. Each field's text is its --help."""

    rounds: int = 50
    """rounds, 1 to 10000; in each, every model has one slice, in an order that is shuffled anew"""
    per_round: int = 3
    """images in one slice, 1 to 10000, after one that is not timed: it brings clock and caches back
    to this model"""
    warm_up_s: float = 10.0
    """seconds of warm-up for one model at most, 0 to 3600; it ends earlier once two slices in a row
    agree within 5 %"""
    photo_width: int = 1280
    """width in px of the synthetic photo, 16 to 16384"""
    photo_height: int = 960
    """height in px of the synthetic photo, 16 to 16384"""
    seed: int = 0
    """seed of the photo, the order of the rounds and the bootstrap, 0 or more"""
    time_limit_s: float = 600.0
    """seconds of work for one model, loading included, 1 to 86400; a model that needs longer, or
    hangs, is stopped"""
    max_load: float = 0.5
    """cores that other processes may keep busy meanwhile, 0 to 1024; beyond it the records are
    invalid"""
    together: int = 12
    """models loaded at once, 2 to 256; more are measured in groups, each beside the reference"""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rounds", 1, 10_000),
            ("per_round", 1, 10_000),
            ("warm_up_s", 0, 3600),
            ("photo_width", 16, MAX_PHOTO_SIDE_PX),
            ("photo_height", 16, MAX_PHOTO_SIDE_PX),
            ("seed", 0, 2**63 - 1),
            ("time_limit_s", 1, 86_400),
            ("max_load", 0, 1024),
            ("together", 2, 256),
        ):
            if not low <= getattr(self, name) <= high:
                raise OptionError(
                    f"--{name.replace('_', '-')} must be from {low} to {high}, "
                    f"got {getattr(self, name)}"
                )
