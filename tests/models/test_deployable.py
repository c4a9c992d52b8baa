"""Folding for deployment changes no output."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import LARGE, ONE_OF_EACH
from torch import nn

from edgeface.decode import head_layout
from edgeface.models import build
from edgeface.models.blocks import Residual
from edgeface.models.detector import FaceNet, deployable
from edgeface.models.extd import InvertedResidual
from edgeface.models.head import LevelScale

NETWORKS = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in ONE_OF_EACH]


def noise(network: FaceNet, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random images [count, 3, H, W] of 2x3 cells on the coarsest level, values 0 to 255.

    H x W is 64x96 px, or 256x384 px for strides up to 128.
    """
    stride = head_layout(network.architecture).strides[-1]
    return torch.rand(count, 3, 2 * stride, 3 * stride, generator=generator) * 255


def branch_scales(network: FaceNet) -> list[torch.Tensor]:
    """Scale of the last batch normalisation of each residual branch."""
    blocks = [m for m in network.modules() if isinstance(m, (Residual, InvertedResidual))]
    return [
        [
            m
            for m in (b.branch if isinstance(b, Residual) else b.layers).modules()
            if isinstance(m, nn.BatchNorm2d)
        ][-1].weight
        for b in blocks
    ]


def trained_like(name: str) -> FaceNet:
    """Build ``name`` with random values for everything that folding touches.

    Activations stay near 1. Statistics are measured on noise and then moved, because a wrong fold
    would go unseen with the initial ones (mean 0, variance 1, scale 1 or 0).
    """
    model = build(name, seed=1)
    generator = torch.Generator().manual_seed(2)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))]
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(uniform(norm.weight, 0.5, 1.5))
            norm.bias.copy_(uniform(norm.bias, -0.5, 0.5))
        for module in model.modules():
            if isinstance(module, LevelScale):
                module.value.copy_(uniform(module.value, 0.5, 2.0))
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.add_(uniform(module.bias, -0.5, 0.5))
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # take the statistics of the batch below, no moving average
        for scale in branch_scales(model):
            scale.mul_(0.3)  # otherwise rounding grows past 1e-4 over 100 layers
        model.train()(noise(model, 4, generator))
        for norm in norms:
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean.add_(
                    norm.running_var.sqrt() * uniform(norm.running_mean, -0.3, 0.3)
                )
                norm.running_var.mul_(uniform(norm.running_var, 0.7, 1.5))
    return model.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_deployable_equals_the_network_in_evaluation(name: str) -> None:
    model = trained_like(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = deployable(model)
    image = noise(model, 1, torch.Generator().manual_seed(3)).double()
    with torch.no_grad():  # double: only the rounding of folded weights remains
        expected, got = copy.deepcopy(model).double()(image), folded.double()(image)
    for e, g in zip(expected, got, strict=True):
        assert e.std() > 0.01, "an output this flat would hide a wrong fold"
        torch.testing.assert_close(g, e, rtol=0, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), (
        "model was changed"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_only_group_normalisation_is_left(name: str) -> None:
    folded = deployable(build(name))
    kinds = {type(m) for m in folded.modules()}
    assert not kinds & {nn.BatchNorm2d, LevelScale}
    has_group = any(issubclass(kind, nn.GroupNorm) for kind in kinds)
    assert has_group == (getattr(folded.architecture.head, "norm", "") == "group")
    assert not folded.training


def test_batch_norm_head_runs_with_the_statistics_it_was_trained_with() -> None:
    """A normalisation shared by levels of different brightness would mix their statistics."""
    head = build("scrfd-0.5g-bn").head
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    generator = torch.Generator().manual_seed(0)
    maps = tuple(
        gain * torch.randn(4, 16, side, side, generator=generator)
        for gain, side in ((1, 16), (9, 8), (30, 4))
    )
    with torch.no_grad():
        in_training = head.train()(maps)
        in_evaluation = head.eval()(maps)
    for a, b in zip(in_training, in_evaluation, strict=True):
        assert (a - b).std() < 0.05 * a.std(), (
            "unbiased variance of few values is all that may differ"
        )


def test_strided_1x1_convolutions_compute_the_same_while_they_train() -> None:
    """In training, ConvNorm takes every other value itself instead of using a stride."""
    from edgeface.models.blocks import ConvNorm

    layer = ConvNorm(8, 16, 1, 2, bias=True, relu=False)
    image = torch.rand(2, 8, 32, 48)
    assert torch.allclose(layer.train()(image), layer.eval()(image), atol=1e-6)
