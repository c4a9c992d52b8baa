"""The optimiser against its formula, applied matrix by matrix; what it takes; the average."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edgeface.training.ema import EMA
from edgeface.training.optimizer import Muon, make_optimizers, orthogonalise


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


def test_singular_values_follow_the_published_polynomial() -> None:
    """3.4445 s - 4.7750 s^3 + 2.0315 s^5, five times (Jordan et al. 2024), tall or wide."""
    want = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    matrix = torch.zeros(5, 3, dtype=torch.float64)
    matrix[:3] = torch.diag(want)
    want = want / want.norm()
    for _ in range(5):
        want = 3.4445 * want - 4.7750 * want**3 + 2.0315 * want**5
    for turned in (matrix, matrix.mT):
        got = orthogonalise(turned)
        torch.testing.assert_close(got.diagonal(), want, atol=1e-5, rtol=0)
        assert got.shape == turned.shape and got.abs().sum() == got.diagonal().abs().sum()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_matrices_decay_and_muon_takes_dense_convolutions(name: str) -> None:
    """Not those of one input channel or of few outputs, nor linear layers, biases and norms."""
    model = torch.nn.ModuleDict(
        {
            "dense": torch.nn.Conv2d(4, 8, 3),
            "depthwise": torch.nn.Conv2d(8, 8, 3, groups=8),
            "output": torch.nn.Conv2d(8, 4, 1),
            "norm": torch.nn.BatchNorm2d(8),
            "linear": torch.nn.Linear(8, 8),
        }
    )
    known = {id(p): key for key, p in model.named_parameters()}
    adamw, *muon = make_optimizers(model, name, lr=0.1, weight_decay=0.5)
    decays = {
        known[id(p)]: group["weight_decay"]
        for optimizer in (adamw, *muon)
        for group in optimizer.param_groups
        for p in group["params"]
    }
    matrices = {f"{layer}.weight" for layer in ("dense", "depthwise", "output", "linear")}
    assert decays == {key: 0.5 if key in matrices else 0.0 for key in known.values()}
    taken = [p for optimizer in muon for p in optimizer.param_groups[0]["params"]]
    assert [known[id(p)] for p in taken] == (["dense.weight"] if name == "muon" else [])
    assert all(optimizer.param_groups[0]["momentum"] == 0.95 for optimizer in muon)


def test_the_average_forgets_the_first_weights_soon() -> None:
    """Its decay is (1 + step) / (10 + step) until that exceeds the decay asked for."""
    model: Any = torch.nn.Linear(1, 1)
    ema: Any = EMA(model, decay=0.4)
    want = float(model.weight)
    for step, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 0.4, 0.4)):
        with torch.no_grad():
            model.weight += 1
        want = decay * want + (1 - decay) * float(model.weight)
        ema.update(step)
        assert float(ema.shadow.weight) == pytest.approx(want)
