"""EResFD: published sizes, pyramid against its formula, folding, initial values, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgeface.architecture import (
    Backbone,
    ConvNetSpec,
    EResNetSpec,
    Neck,
    PyramidSpec,
    get_architecture,
)
from edgeface.architecture.registry import eresfd, listed
from edgeface.architecture.strides import S3FD_STRIDES
from edgeface.errors import ModelError
from edgeface.models import build
from edgeface.models.blocks import ConvNorm
from edgeface.models.complexity import count
from edgeface.models.detector import deployable
from edgeface.models.eresfd import EResNet, FoldedSepFPN, SepFPN, upsample


def test_parameters_and_macs_equal_the_reference() -> None:
    assert count("eresfd-16", 640, 640).params == 92_208
    assert f"{count('eresfd-16', 640, 640).macs / 1e9:.4f}" == "0.3933"
    counted = count("eresfd-16", 640, 480)
    assert f"{counted.macs / 1e9:.4f}" == "0.2951"
    stages = sum(counted.parts[f"c{i}"] for i in range(3, 8))
    parts = (counted.parts["stem"], stages, counted.parts["neck"], counted.parts["head"])
    assert [f"{macs / 1e9:.3f}" for macs in parts] == ["0.133", "0.090", "0.069", "0.003"]


def test_width_is_a_parameter() -> None:
    assert eresfd(16) == get_architecture("eresfd-16")
    assert [name for name in listed() if name.startswith("eresfd")] == ["eresfd-16", "eresfd-32"]
    backbone = build(eresfd(24)).backbone
    assert backbone.channels == (24,) * 6
    # Twice the width everywhere but at photo and outputs: growth between linear and quadratic.
    assert 2 < count(eresfd(32), 640, 480).params / count(eresfd(16), 640, 480).params < 4


@pytest.mark.parametrize(("height", "width"), [(250, 317), (128, 128), (33, 500), (1, 1)])
def test_any_size_gives_six_maps(height: int, width: int) -> None:
    net = build("eresfd-16").eval()
    with torch.no_grad():
        outputs = net(torch.zeros(1, 3, height, width))
    expected = [(1, c, -(-height // s), -(-width // s)) for s in S3FD_STRIDES for c in (1, 4)]
    assert [tuple(o.shape) for o in outputs] == expected
    assert all(bool(torch.isfinite(o).all()) for o in outputs)


@pytest.mark.parametrize("size", range(1, 17))
def test_upsampling_takes_each_value_twice(size: int) -> None:
    """Upsampling is repeat and crop, for runtimes without a nearest resize to any size."""
    x = torch.rand(1, 2, size, size + 3)
    twice = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for rows in (2 * size, 2 * size - 1):
        for columns in (2 * size + 6, 2 * size + 5):
            assert torch.equal(
                upsample(x, torch.empty(1, 2, rows, columns)), twice[:, :, :rows, :columns]
            )


def _neck(seed: int) -> tuple[SepFPN, tuple[Tensor, ...]]:
    """Neck with random values in evaluation mode, and maps for it, both in double precision."""
    neck = build("eresfd-16", seed=seed).neck
    assert isinstance(neck, SepFPN)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in neck.named_buffers():
            if "num_batches" not in name:
                value.copy_(torch.rand(value.shape, generator=random) + 0.5)
        for parameter in neck.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand(parameter.shape, generator=random) + 0.2)
        neck.weights.copy_(torch.randn(2, 9, generator=random))
    maps = tuple(
        torch.randn(1, 16, -(-200 // s), -(-150 // s), generator=random).double()
        for s in S3FD_STRIDES
    )
    return neck.double().eval(), maps


@pytest.mark.parametrize("seed", range(3))
def test_pyramid_against_its_formula(seed: int) -> None:
    """The pyramid normalises its weights twice, is cut at level 4 and mixes in c_i last.

    w = relu(w1) / (sum + eps); then (w0 a + w1 b) / (w0 + w1 + eps).
    """
    neck, c = _neck(seed)
    assert (neck.weights < 0).any(), "a negative weight counts as 0"
    w = neck.weights.clamp(min=0)
    w = w / (w.sum(0) + 1e-4)

    def mix(a: Tensor, b: Tensor, k: int) -> Tensor:
        return (w[0, k] * a + w[1, k] * b) / (w[0, k] + w[1, k] + 1e-4)

    def up(x: Tensor, like: Tensor) -> Tensor:
        rows = torch.arange(like.shape[2]) * x.shape[2] // like.shape[2]
        columns = torch.arange(like.shape[3]) * x.shape[3] // like.shape[3]
        return x[:, :, rows][:, :, :, columns]

    with torch.no_grad():
        lateral = [layer(x) for layer, x in zip(neck.lateral, c, strict=False)]
        p5 = c[5]
        p4 = mix(lateral[4], up(p5, c[4]), 4)
        p3 = mix(lateral[3], up(c[4], c[3]), 3)
        p2 = mix(lateral[2], up(p3, c[2]), 2)
        p1 = mix(lateral[1], up(p2, c[1]), 1)
        p0 = mix(lateral[0], up(p1, c[0]), 0)
        p1, p2, p3, p4 = (
            mix(neck.smooth[i - 1](p), c[i], i + 4) for i, p in enumerate((p1, p2, p3, p4), 1)
        )
        expected = [
            context(p) for context, p in zip(neck.context, (p0, p1, p2, p3, p4, p5), strict=True)
        ]
        for found, wanted in zip(neck(c), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_folded_pyramid_has_constants_and_computes_the_same(seed: int) -> None:
    neck, maps = _neck(seed)
    before = {key: value.clone() for key, value in neck.state_dict().items()}
    with torch.no_grad():
        expected = neck(maps)
        for layer in neck.modules():
            if isinstance(layer, ConvNorm):
                layer.fold()
        folded = neck.folded()
        for found, wanted in zip(folded(maps), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert isinstance(folded, FoldedSepFPN)
    assert len(folded.factors) == 9 and all(isinstance(factor, float) for factor in folded.factors)
    assert {name.rpartition(".")[2] for name, _ in folded.named_parameters()} == {"weight", "bias"}
    assert torch.equal(neck.weights, before["weights"]), "the neck itself stays as it was"


def test_deployable_network_has_convolutions_and_constants_only() -> None:
    net = deployable(build("eresfd-16"))
    assert isinstance(net.neck, FoldedSepFPN)
    owners = {
        type(net.get_submodule(name.rpartition(".")[0])) for name, _ in net.named_parameters()
    }
    assert owners == {nn.Conv2d}


def test_mixing_weights_learn() -> None:
    net = build("eresfd-16").train()
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 255
    sum((o.square().mean() for o in net(image)), torch.zeros(())).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())
    assert isinstance(net.neck, SepFPN) and net.neck.weights.grad is not None
    assert bool(net.neck.weights.grad.ne(0).all())


def test_starts_as_the_authors_do() -> None:
    """Weights are normal with variance 2 / (kernel area * outputs); scales and shares are .5.

    The head is Xavier-uniform, as in the S3FD family.
    """
    net = build(eresfd(64), seed=2)
    assert isinstance(net.neck, SepFPN)
    assert net.neck.weights.eq(0.5).all()
    for part in (net.backbone, net.neck):
        for module in part.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.weight.eq(0.5).all() and not module.bias.any()
            elif isinstance(module, nn.Conv2d):
                wanted = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
                assert module.weight.std().item() == pytest.approx(wanted, rel=0.1)
                assert module.bias is None
                assert abs(module.weight.mean().item()) < 4 * wanted / math.sqrt(
                    module.weight.numel()
                )
    for module in (m for m in net.head.modules() if isinstance(m, nn.Conv2d)):
        area = module.kernel_size[0] * module.kernel_size[1]
        limit = math.sqrt(6 / (area * (module.in_channels + module.out_channels)))
        assert 0.9 * limit < module.weight.abs().max().item() <= limit
        assert module.bias is not None and not module.bias.any()


def test_blocks_end_without_activation() -> None:
    """All maps have negative values, and so has the output of the first layer: none has a ReLU."""
    backbone = build("eresfd-16").eval().backbone
    assert isinstance(backbone, EResNet)
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 255 - 128
    with torch.no_grad():
        first = backbone.stem[0](image)
        assert all(bool((x < 0).any()) for x in (first, *backbone(image)))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"backbone": EResNetSpec(widths=(16,), depths=(3, 3, 3, 2, 2))},
            "accepted: 2 whole numbers",
        ),
        ({"backbone": EResNetSpec(widths=(8, 16), depths=(3, 3, 3))}, "accepted: 5 whole numbers"),
        ({"backbone": EResNetSpec(widths=(8, 16), depths=(3, 3, 3, 2, 0))}, r"depths\[4\] is 0"),
        (
            {"neck": PyramidSpec("sepfpn", 32)},
            "neck sepfpn: channels is 32, accepted: .*, which is 16",
        ),
        (
            {
                "backbone": EResNetSpec(widths=(9, 18), depths=(3, 3, 3, 2, 2)),
                "neck": PyramidSpec("sepfpn", 18),
            },
            "channels is 18 on 6 maps, accepted: a multiple of 4 on 6 maps",
        ),
        (
            {"backbone": ConvNetSpec(widths=(16, 16, 16, 16), depths=(1, 1, 1))},
            "channels is 16 on 3 maps, accepted: a multiple of 4 on 6 maps",
        ),
    ],
)
def test_what_cannot_be_built(parts: dict[str, Backbone | Neck], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        build(replace(get_architecture("eresfd-16"), **parts))  # type: ignore[arg-type]
