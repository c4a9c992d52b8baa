"""Parameter groups and the optimisers: AdamW for everything, Muon for the convolutions, or plain SGD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix of [m, n], by the quintic Newton-Schulz iteration of Muon (Jordan et al. 2024).

    The coefficients trade exactness for speed: singular values end between about 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    wide: Tensor = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Momentum, then an orthogonalised update, for convolution weights seen as [out, in * k * k] matrices.

    The update has the root mean square of an AdamW step (Liu et al. 2025, section 2.2): both share one learning rate.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95,
                 weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient; a closure is not supported."""
        assert closure is None
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                update = orthogonalise(update) * (0.2 * max(update.shape) ** 0.5)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view_as(p), alpha=-group["lr"])


def make_optimizers(model: nn.Module, name: str, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """``adamw``: AdamW for all. ``muon``: Muon for dense convolutions, AdamW for the rest. Only matrices decay.

    ``sgd``: momentum .9, and everything decays, as in the code that the S3FD family was trained with.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    if name == "sgd":
        return [torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=weight_decay)]
    dense = [p for p in params if name == "muon" and p.ndim == 4 and p.shape[1] > 1 and p.shape[0] > 4]
    taken = {id(p) for p in dense}
    rest = [p for p in params if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW([g for g in groups if g["params"]], lr=lr)]
    if dense:
        optimizers.append(Muon(dense, lr=lr, weight_decay=weight_decay))
    return optimizers
