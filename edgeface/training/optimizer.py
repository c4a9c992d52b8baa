"""Parameter groups and optimisers: AdamW for all, Muon for the convolutions, or plain SGD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

FEW = 4
"""largest number of outputs of a convolution that AdamW updates in a run with Muon"""


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices of [..., m, n], by Muon's quintic Newton-Schulz iteration.

    Source: Jordan et al. 2024. The coefficients trade exactness for speed: singular values end
    between about 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    wide: Tensor = x.mT if tall else x
    for _ in range(iterations):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.mT if tall else wide


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, for convolution weights as [out, in * k * k] matrices.

    The update has the root mean square of an AdamW step (Liu et al. 2025, section 2.2), so that
    both share one learning rate.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient; a closure is not supported."""
        assert closure is None
        for group in self.param_groups:
            self._update([p for p in group["params"] if p.grad is not None], group)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Update ``params`` of one group.

        Matrices of one shape are orthogonalised together: a network has few shapes and many
        convolutions.
        """
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        nesterov = torch._foreach_lerp(grads, momenta, group["momentum"])
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, p in enumerate(params):
            by_shape.setdefault((len(p), p[0].numel()), []).append(i)
        for shape, members in by_shape.items():
            updates = orthogonalise(torch.stack([nesterov[i].flatten(1) for i in members]))
            chosen = [params[i] for i in members]
            torch._foreach_add_(
                chosen,
                [u.view_as(p) for u, p in zip(updates, chosen, strict=True)],
                alpha=-group["lr"] * 0.2 * max(shape) ** 0.5,
            )


def make_optimizers(
    model: nn.Module, name: str, lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """The optimisers of a run; ``name``: adamw, muon or sgd.

    ``adamw``: AdamW for all parameters. ``muon``: Muon for dense convolutions of more than
    :data:`FEW` outputs, AdamW for the rest. So of an edgeface head, AdamW has classes and boxes and
    Muon has landmarks, of which each cell has 10 values.
    In both, weight decay applies only to matrices. ``sgd``: momentum .9, and everything decays, as
    in the code that the S3FD family was trained with.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    if name == "sgd":
        return [torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)]
    dense = [
        p for p in params if name == "muon" and p.ndim == 4 and p.shape[1] > 1 and len(p) > FEW
    ]
    taken = {id(p) for p in dense}
    rest = [p for p in params if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, fused=True)]
    if dense:
        optimizers.append(Muon(dense, lr=lr, weight_decay=weight_decay))
    return optimizers
