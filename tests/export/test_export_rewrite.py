"""A rewritten graph computes what the original one computes, up to the rounding of float32."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor, nn  # noqa: E402

from edgeface.models.detector import FaceNet, deployable  # noqa: E402
from edgeface.models.eresfd import upsample  # noqa: E402
from export.rewrite import (  # noqa: E402
    Doubled,
    MaximumHead,
    SlopedMaximum,
    with_leaky_relu,
    without_minimum,
    without_nearest,
    without_prelu,
)
from export.source import random_source  # noqa: E402

SIZE = (96, 160)


def network(name: str) -> FaceNet:
    """A folded network with random weights and PReLU slopes on both sides of 0 and of 1."""
    net = deployable(random_source(name, 1).network)
    slopes = torch.linspace(-0.5, 1.5, max(1, sum(isinstance(m, nn.PReLU) for m in net.modules())))
    with torch.no_grad():
        for module, slope in zip(
            (m for m in net.modules() if isinstance(m, nn.PReLU)), slopes, strict=False
        ):
            module.weight.fill_(slope)
    return net


def differences(one: FaceNet, other: FaceNet) -> list[float]:
    image = torch.rand((1, 3, *SIZE), generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        return [
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(one(image), other(image), strict=True)
        ]


def kinds(net: nn.Module) -> set[type[nn.Module]]:
    return {type(module) for module in net.modules()}


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.25, 1.0, 1.5])
def test_maximum_is_prelu(slope: float) -> None:
    x = torch.linspace(-4, 4, 81)
    prelu = nn.PReLU(init=slope)
    assert torch.equal(SlopedMaximum(slope)(x), prelu(x).detach())


@pytest.mark.parametrize("name", ["extd-fpn-32-prelu", "extd-ssd-48-lrelu"])
def test_without_prelu(name: str) -> None:
    net = network(name)
    before = copy.deepcopy(net.state_dict())
    rewritten = without_prelu(net)
    assert not {nn.PReLU, nn.LeakyReLU} & kinds(rewritten) and SlopedMaximum in kinds(rewritten)
    assert max(differences(rewritten, net)) < 1e-6
    assert {nn.PReLU, nn.LeakyReLU} & kinds(net), "the network itself stays as it was"
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_with_leaky_relu() -> None:
    net = network("extd-fpn-32-prelu")
    rewritten = with_leaky_relu(net)
    assert nn.PReLU not in kinds(rewritten) and nn.LeakyReLU in kinds(rewritten)
    assert max(differences(rewritten, net)) < 1e-6


def test_slopes_by_channel_stay() -> None:
    net = network("extd-ssd-32-relu")
    stem = net.backbone.stem
    assert isinstance(stem, nn.Sequential)
    stem[1] = nn.PReLU(64)
    assert nn.PReLU in kinds(without_prelu(net)) and nn.PReLU in kinds(with_leaky_relu(net))


@pytest.mark.parametrize("name", ["asfd-d0", "eresfd-16"])
def test_without_minimum(name: str) -> None:
    net = network(name)
    rewritten = without_minimum(net)
    assert isinstance(rewritten.head, MaximumHead) and not isinstance(net.head, MaximumHead)
    assert max(differences(rewritten, net)) < 1e-6


def test_without_nearest() -> None:
    """At 160x96 some levels double, and others go from 2 rows to 3 or from 3 columns to 5."""
    net = network("eresfd-16")
    rewritten = without_nearest(net)
    assert Doubled in kinds(rewritten) and Doubled not in kinds(net)
    assert differences(rewritten, net) == [0.0] * 12


@pytest.mark.parametrize("like", [(6, 8), (5, 8), (5, 7)])
def test_doubled(like: tuple[int, int]) -> None:
    x: Tensor = torch.randn((1, 4, 3, 4), generator=torch.Generator().manual_seed(0))
    target = torch.empty(1, 4, *like)
    assert torch.equal(Doubled(4)(x, target), upsample(x, target))
