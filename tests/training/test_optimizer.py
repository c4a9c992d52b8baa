"""The optimiser against its formula, applied matrix by matrix."""

from __future__ import annotations

import torch

from edgeface.training.optimizer import Muon, orthogonalise


def test_convolutions_of_one_shape_are_updated_as_each_alone_would_be() -> None:
    """The batched step equals momentum, Nesterov, Newton-Schulz and decay for each matrix alone."""
    generator = torch.Generator().manual_seed(0)
    params = [
        torch.nn.Parameter(torch.randn(shape, generator=generator))
        for shape in ((8, 4, 3, 3), (8, 4, 3, 3), (48, 4, 1, 1))
    ]
    want = [p.detach().clone() for p in params]
    momenta = [torch.zeros_like(p) for p in want]
    optimizer = Muon(params, lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        for p, w, m in zip(params, want, momenta, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            m.mul_(0.9).add_(p.grad, alpha=0.1)
            update = (
                orthogonalise((0.1 * p.grad + 0.9 * m).flatten(1))
                * 0.2
                * max(len(p), p[0].numel()) ** 0.5
            )
            w.mul_(1 - 0.1 * 0.5).sub_(0.1 * update.view_as(w))
        optimizer.step()
    torch.testing.assert_close([p.detach() for p in params], want)
