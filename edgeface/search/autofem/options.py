"""What a search of an AutoFEM genotype depends on. Each field's text is its --help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeface.errors import OptionError
from edgeface.options import MAX_SEED, Range, check_ranges

PARTIAL = 4
"""1 / PARTIAL of the channels goes through the operation that is tried; the others bypass it (as
published)."""


@dataclass(frozen=True)
class AutoFEMOptions:
    """A search, apart from its photos."""

    ranges: ClassVar[dict[str, Range]] = {
        "channels": Range(PARTIAL, 4096),
        "steps": Range(1, 10**9),
        "warmup_share": Range(0, 0.99),
        "batch": Range(2, 65_536),
        "size": Range(64, 4096),
        "lr": Range(0, 10, open=True),
        "weight_decay": Range(0, 1),
        "choice_lr": Range(0, 10, open=True),
        "noise": Range(0, 1000),
        "seed": Range(0, MAX_SEED),
        "checkpoint_every": Range(1, 10**9),
    }

    model: str = "asfd-d0"
    """network of the ASFD family whose backbone is used"""
    channels: int = 64
    """channels of neck and head during the search, a multiple of 4; published: 256"""
    steps: int = 2000
    """steps of the weights; after the warm-up, each also updates the choices of operations"""
    warmup_share: float = 0.4
    """share of the steps that train only the weights; published: 20 of 50 epochs"""
    batch: int = 16
    """images per step"""
    size: int = 320
    """side of the square crops, px: a multiple of 32"""
    lr: float = 1e-3
    """learning rate of the weights (AdamW)"""
    weight_decay: float = 5e-4
    """weight decay of weights and choices"""
    choice_lr: float = 0.01
    """learning rate of the choices (Adam)"""
    noise: float = 1e-3
    """scale of the Gumbel noise on the choices, as in the authors' code"""
    seed: int = 0
    """seed of the initial weights, the order of the images, the crops and the choices"""
    checkpoint_every: int = 100
    """steps between checkpoints"""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name, multiple in (("channels", PARTIAL), ("size", 32)):
            if getattr(self, name) % multiple:
                raise OptionError(
                    f"--{name} must be a multiple of {multiple}, got {getattr(self, name)}"
                )

    @property
    def warmup(self) -> int:
        """Steps before the choices begin to learn."""
        return round(self.steps * self.warmup_share)
