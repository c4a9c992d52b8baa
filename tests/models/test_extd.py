"""EXTD: published sizes, one set of weights for six passes, and training as the authors do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from edgeface.architecture import Architecture, EXTDSpec, PyramidSpec, get_architecture
from edgeface.architecture.registry import ARCHITECTURES, listed
from edgeface.architecture.strides import S3FD_STRIDES
from edgeface.errors import ModelError
from edgeface.models import build
from edgeface.models.complexity import count, count_as_extd
from edgeface.models.detector import deployable
from edgeface.models.extd import EXTD, InvertedResidual

FORMS, WIDTHS, ACTIVATIONS = ("fpn", "ssd"), (32, 48, 64), ("prelu", "lrelu", "relu")
NAMES = tuple(
    f"extd-{form}-{width}-{activation}"
    for form, width, activation in itertools.product(FORMS, WIDTHS, ACTIVATIONS)
)

# Parameters with PReLU; executed multiply-accumulates at 640x640, in 10^9; the same as counted by
# the paper's program.
SIZES = {
    "fpn-32": (62_939, 5.397, 4.5195),
    "fpn-48": (100_160, 7.889, 6.6736),
    "fpn-64": (162_352, 13.411, 11.1526),
    "ssd-32": (56_059, 5.352, 4.3516),
    "ssd-48": (86_000, 7.796, 6.3234),
    "ssd-64": (138_352, 13.252, 10.5546),
}
PUBLISHED = {
    "fpn-32": "4.52",
    "fpn-48": "6.67",
    "fpn-64": "11.2",
    "ssd-32": "4.35",
    "ssd-64": "10.6",
}
"""table of the paper, without ssd-48: there it says 6.63, but its program gives 6.32"""


def test_all_18_are_listed() -> None:
    assert tuple(name for name in listed() if name.startswith("extd")) == NAMES
    assert tuple(name for name in ARCHITECTURES if name.startswith("extd")) == NAMES


@pytest.mark.parametrize("form", SIZES)
def test_parameters_and_macs(form: str) -> None:
    params, executed, as_paper = SIZES[form]
    name = f"extd-{form}-prelu"
    counted = count(name, 640, 640)
    assert counted.params == params
    # Our table was rounded twice: it has 5.352 for 5.3526.
    assert counted.macs / 1e9 == pytest.approx(executed, abs=0.001)
    assert f"{count_as_extd(name, 640, 640) / 1e9:.4f}" == f"{as_paper:.4f}"
    if form in PUBLISHED:
        assert f"{as_paper:.{len(PUBLISHED[form].partition('.')[2])}f}" == PUBLISHED[form]


@pytest.mark.parametrize(
    ("form", "macs"), [("fpn-32", 4.048), ("fpn-48", 5.918), ("fpn-64", 10.059)]
)
def test_macs_at_640x480(form: str, macs: float) -> None:
    assert count(f"extd-{form}-prelu", 640, 480).macs / 1e9 == pytest.approx(macs, abs=0.001)


@pytest.mark.parametrize("form", SIZES)
def test_activations_change_the_slopes_alone(form: str) -> None:
    slopes = sum(isinstance(m, nn.PReLU) for m in build(f"extd-{form}-prelu").modules())
    # One slope in the stem, one for the depthwise convolution of the first block and two in each
    # other block; with 32 channels one more in every block.
    assert slopes == (1 + 2 + 3 * 6 if form.endswith("32") else 1 + 1 + 2 * 4)
    for activation in ("lrelu", "relu"):
        assert (
            sum(p.numel() for p in build(f"extd-{form}-{activation}").parameters())
            == SIZES[form][0] - slopes
        )


def test_a_leaky_relu_is_where_prelu_starts() -> None:
    """PReLU and leaky ReLU are the same function until the slopes are trained."""
    prelu, leaky, relu = (
        build(f"extd-fpn-32-{activation}", seed=1).eval() for activation in ACTIVATIONS
    )
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        outputs = [torch.cat([o.flatten() for o in net(image)]) for net in (prelu, leaky, relu)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-3)


@pytest.mark.parametrize(("width", "residuals"), [(32, "-+++++-"), (48, "-+++-"), (64, "++++-")])
def test_residuals(width: int, residuals: str) -> None:
    """Blocks that keep the shape are residual; of the first blocks, only that of 64 channels is."""
    backbone = build(f"extd-ssd-{width}-prelu").backbone
    found = [m.residual for m in backbone.modules() if isinstance(m, InvertedResidual)]
    assert "".join("-+"[residual] for residual in found) == residuals


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("height", "width"), [(250, 317), (128, 128), (33, 500), (1, 1)])
def test_any_size_gives_six_maps(form: str, height: int, width: int) -> None:
    net = build(f"extd-{form}-32-prelu").eval()
    with torch.no_grad():
        outputs = net(torch.zeros(1, 3, height, width))
    expected = [(1, c, -(-height // s), -(-width // s)) for s in S3FD_STRIDES for c in (1, 4)]
    assert [tuple(o.shape) for o in outputs] == expected
    assert all(bool(torch.isfinite(o).all()) for o in outputs)


@pytest.mark.parametrize("name", ["extd-fpn-32-prelu", "extd-ssd-64-relu"])
def test_folding_keeps_one_copy_of_what_runs_six_times(name: str) -> None:
    net = build(name)
    folded = deployable(net)
    convs = [m for m in folded.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == sum(isinstance(m, nn.Conv2d) for m in net.backbone.modules())
    pointers = {parameter.data_ptr() for parameter in folded.backbone.parameters()}
    assert len(pointers) == len(list(folded.backbone.parameters()))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    # Normalisations become biases, so there are fewer values; six copies would have many more.
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", ["extd-fpn-32-prelu", "extd-ssd-48-lrelu"])
def test_a_step_moves_the_shared_statistics_six_times(name: str) -> None:
    """Each pass uses its own batch statistics and updates the shared ones, as the authors do."""
    net = build(name).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 255
    before = {key: value.clone() for key, value in net.named_parameters()}
    loss = sum((o.square().mean() for o in net(image)), torch.zeros(()))
    loss.backward()
    optimizer.step()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())
    assert not [key for key, value in net.named_parameters() if torch.equal(value, before[key])]
    passes = {
        key: int(value)
        for key, value in net.state_dict().items()
        if key.endswith("num_batches_tracked")
    }
    assert {count for key, count in passes.items() if ".blocks." in key} == {len(S3FD_STRIDES)}
    assert {count for key, count in passes.items() if ".blocks." not in key} == {1}


def test_starts_as_the_authors_do() -> None:
    backbone = build("extd-fpn-64-prelu", seed=2).backbone
    for name, parameter in backbone.named_parameters():
        if name.endswith("conv.bias"):
            assert not parameter.any()
        elif name.endswith("conv.weight"):
            fans = (
                parameter[0].numel() + parameter[:, 0].numel()
            )  # Xavier-uniform: bound sqrt(6 / (in + out))
            assert 0.7 * (6 / fans) ** 0.5 < parameter.abs().max() <= (6 / fans) ** 0.5 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widths": [40]}, r"widths\[0\] is 40, accepted: 32, 48, 64"),
        ({"widths": [32, 32]}, "accepted: 1 whole numbers"),
        ({"activation": ""}, "activation is '', accepted: prelu, lrelu, relu"),
        ({"depths": [1]}, "depths is for convnet and"),
        ({"structure": "x"}, "structure is for plainnet only"),
    ],
)
def test_backbones_that_cannot_be_built(fields: dict[str, object], message: str) -> None:
    data = get_architecture("extd-fpn-32-prelu").to_json()
    data["backbone"] |= fields
    with pytest.raises(ModelError, match=message):
        build(Architecture.from_json(data))


@pytest.mark.parametrize("kind", ["extd", "none"])
def test_necks_that_cannot_be_built(kind: str) -> None:
    with pytest.raises(ModelError, match=f"neck {kind}: channels is 16, accepted: .*, which is 32"):
        build(replace(get_architecture("extd-fpn-32-prelu"), neck=PyramidSpec(kind, 16)))


def test_the_backbone_says_what_it_gives() -> None:
    assert EXTD(EXTDSpec((48,), "relu")).channels == (48,) * 6
