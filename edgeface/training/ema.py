"""Exponential moving average of a network's weights and statistics."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgeface.models.detector import FaceNet


class EMA:
    """``shadow`` follows the model: shadow += (1 - decay) (model - shadow), with a shorter memory at the start."""

    def __init__(self, model: FaceNet, decay: float) -> None:
        self.shadow = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow the model after optimiser step ``step`` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = self.shadow.state_dict(), model.state_dict()
        floating = [k for k, v in ours.items() if v.is_floating_point()]
        torch._foreach_lerp_([ours[k] for k in floating], [theirs[k] for k in floating], 1 - decay)
        for k in ours.keys() - set(floating):
            ours[k].copy_(theirs[k])
