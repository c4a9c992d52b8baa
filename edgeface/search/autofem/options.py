"""What a search of an AutoFEM genotype depends on. Each field's text is its --help."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeface.errors import OptionError

PARTIAL = 4
"""One channel in so many goes through the operation that is tried; the others pass by (as
published)."""


@dataclass(frozen=True)
class AutoFEMOptions:
    """A search, apart from its photos."""

    model: str = "asfd-d0"
    """network of the ASFD family whose backbone the search runs on"""
    channels: int = 64
    """width of the neck and of the head while searching, a multiple of 4; published: 256"""
    steps: int = 2000
    """steps of the weights, at least 1; each step after the warm-up is also one of the choices"""
    warmup_share: float = 0.4
    """share of the steps before the choices begin to learn, from 0 to less than 1; published: 20 of
    50 epochs"""
    batch: int = 16
    """images per step, at least 2"""
    size: int = 320
    """side of the square crops, px: a multiple of 32, at least 64"""
    lr: float = 1e-3
    """learning rate of the weights (AdamW), above 0"""
    weight_decay: float = 5e-4
    """weight decay of weights and choices, 0 or more"""
    choice_lr: float = 0.01
    """learning rate of the choices (Adam), above 0"""
    noise: float = 1e-3
    """scale of the Gumbel noise on the choices, as in the authors' code, 0 or more"""
    seed: int = 0
    """seed of the initial weights, the order of the images, every crop and every choice, 0 or
    more"""
    checkpoint_every: int = 100
    """steps between checkpoints, at least 1"""

    def __post_init__(self) -> None:
        limits = {
            "channels": (
                self.channels >= PARTIAL and self.channels % PARTIAL == 0,
                f"a multiple of {PARTIAL}",
            ),
            "steps": (self.steps >= 1, "1 or more"),
            "warmup_share": (0 <= self.warmup_share < 1, "0 or more and less than 1"),
            "batch": (self.batch >= 2, "2 or more"),
            "size": (self.size % 32 == 0 and self.size >= 64, "a multiple of 32, at least 64"),
            "checkpoint_every": (self.checkpoint_every >= 1, "1 or more"),
            "noise": (0 <= self.noise < math.inf, "0 or more"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "choice_lr": (0 < self.choice_lr < math.inf, "above 0"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (accepted, what) in limits.items():
            if not accepted:
                raise OptionError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)!r}, accepted: {what}"
                )

    @property
    def warmup(self) -> int:
        """Steps before the choices begin to learn."""
        return round(self.steps * self.warmup_share)
