"""Exponential moving average of a network's weights and statistics."""

from __future__ import annotations

import copy

import torch

from edgeface.models.detector import FaceNet


class EMA:
    """``shadow`` follows the model: shadow += (1 - decay) (model - shadow).

    The decay is smaller at the start, for a shorter memory.
    """

    def __init__(self, model: FaceNet, decay: float) -> None:
        self.shadow = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        # Loading a state copies into these tensors, so they are looked up once, not at every step.
        pairs = list(
            zip(self.shadow.state_dict().values(), model.state_dict().values(), strict=True)
        )
        self._floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after optimiser step ``step`` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = zip(*self._floating, strict=True)
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for counter, value in self._counters:
            counter.copy_(value)
