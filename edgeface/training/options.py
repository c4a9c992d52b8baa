"""What a training run depends on. Each field's text is its --help."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeface.errors import OptionError


@dataclass(frozen=True)
class AugmentOptions:
    """What the random crop and the colour change draw from."""

    scale_low: float = 0.45
    """smallest output px per source px"""
    scale_high: float = 2.0
    """largest output px per source px"""
    anchor_share: float = 0.35
    """share of samples whose scale brings the chosen face to a random size (data-anchor sampling)"""
    face_low_px: float = 10.0
    """smallest face size that data-anchor sampling asks for"""
    face_high: float = 0.9
    """largest face size that data-anchor sampling asks for, as a share of the output side"""
    min_face_px: float = 4.0
    """faces smaller than this after the crop are neither learned nor counted as background"""
    blur_share: float = 0.1
    """share of samples taken one pyramid level too coarse"""
    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue_degrees: float = 18.0
    grey_share: float = 0.05


@dataclass(frozen=True)
class TrainOptions:
    """What a run depends on, apart from the network and the data."""

    samples: int = 300_000
    """images seen in the whole run"""
    batch: int = 32
    """images per optimiser step, over all processes"""
    size: int = 320
    """side of the square crops, px"""
    late_size: int = 448
    """side of the crops in the last part of the run, px"""
    late_share: float = 0.15
    """share of the samples seen at ``late_size``"""
    optimizer: str = "muon"
    """adamw, or muon (orthogonalised updates for the convolutions)"""
    lr: float = 3e-3
    """peak learning rate"""
    weight_decay: float = 0.02
    """decoupled weight decay of convolution weights"""
    warmup: int = 300
    """optimiser steps of linear warm-up"""
    decay_share: float = 0.35
    """share of the run, at its end, over which the learning rate falls linearly to 0; before, it is constant"""
    ema: float = 0.998
    """decay of the moving average of the weights, per step"""
    box_weight: float = 2.0
    """weight of the box loss"""
    assigner: str = "dynamic"
    """dynamic (cost-based) or atss"""
    precision: str = "fp32"
    """fp32, or bf16 (autocast; pays where the CPU has AMX and on accelerators)"""
    compile: bool = True
    """compile the sampling of crops: several times as fast, needs a C++ compiler"""
    seed: int = 0
    """of the initial weights, the order of the images and every crop"""
    checkpoint_every: int = 250
    """optimiser steps between checkpoints"""
    snapshot_every: int = 1000
    """optimiser steps between kept snapshots of the averaged weights"""
    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def __post_init__(self) -> None:
        choices = {"optimizer": ("adamw", "muon"), "assigner": ("dynamic", "atss"), "precision": ("fp32", "bf16")}
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                raise OptionError(f"--{name} {getattr(self, name)!r} is not one of: {', '.join(accepted)}")
        for name in ("samples", "batch", "checkpoint_every", "snapshot_every"):
            if getattr(self, name) < 1:
                raise OptionError(f"--{name.replace('_', '-')} must be at least 1")
        for name in ("size", "late_size"):
            if getattr(self, name) % 32 or getattr(self, name) < 64:
                raise OptionError(f"--{name.replace('_', '-')} must be a multiple of 32, at least 64")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return -(-self.samples // self.batch)

    def size_at(self, step: int) -> int:
        """Crop side at a step."""
        return self.late_size if step >= self.steps * (1 - self.late_share) else self.size

    def lr_at(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, constant, linear to 0."""
        left = (self.steps - step) / max(1.0, self.steps * self.decay_share)
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup), left)
