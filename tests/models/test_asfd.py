"""ASFD: figures of the family, backbones, wiring of the neck, both shots, genotypes as data."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import with_part
from torch import Tensor, nn

from edgeface.architecture import Architecture, AutoFEMSpec, get_architecture
from edgeface.architecture.genotype import (
    DEFAULT_GENOTYPE,
    OPERATIONS,
    Genotype,
    Node,
    leaves,
    read_genotype,
    write_genotype,
)
from edgeface.architecture.registry import with_genotype
from edgeface.architecture.strides import S3FD_STRIDES
from edgeface.errors import ModelError
from edgeface.models import build
from edgeface.models.asfd import AutoFEM, Fusion, context_cell, operation
from edgeface.models.complexity import count
from edgeface.models.detector import FaceNet, build_backbone, deployable

DOCS = Path(__file__).parents[2] / "docs" / "asfd.md"
PUBLISHED = {
    "asfd-d0": (0.62, 0.73),
    "asfd-d1": (3.90, 4.27),
    "asfd-d2": (13.56, 20.48),
    "asfd-d3": (26.56, 46.32),
    "asfd-d4": (36.76, 70.45),
    "asfd-d5": (67.73, 147.40),
    "asfd-d6": (86.10, 183.11),
}
"""Table 4 of the paper: millions of parameters, 10^9 multiply-accumulates at 640x480"""
BACKBONES = {
    "asfd-d1": 3_206_976,
    "asfd-d2": 11_176_512,
    "asfd-d3": 21_284_672,
    "asfd-d4": 23_508_032,
    "asfd-d5": 42_500_160,
    "asfd-d6": 58_143_808,
}
"""parameters of the standard MobileNetV1 and ResNet-18, 34, 50, 101 and 152 without classifiers"""


@pytest.fixture(scope="module")
def small() -> FaceNet:
    """asfd-d0 with random mixing weights, so that no two are equal."""
    net = build("asfd-d0", seed=4)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for mix in _fusion(net).mixes:
            mix.copy_(torch.randn(len(mix), generator=random))
    return net


def _fusion(net: FaceNet) -> Fusion:
    assert isinstance(net.neck, AutoFEM)
    fusion = net.neck.enhance[0]
    assert isinstance(fusion, Fusion)
    return fusion


@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_against_the_published_ones(name: str) -> None:
    params, macs = PUBLISHED[name]
    counted = count(name, 640, 480)
    ours = (counted.params / 1e6, counted.macs / 1e9)
    off = (100 * (ours[0] / params - 1), 100 * (ours[1] / macs - 1))
    assert max(map(abs, off)) < 6
    row = (
        f"| {name} | {params:.2f} | {ours[0]:.2f} | {off[0]:+.1f} % | {macs:.2f} | {ours[1]:.2f} |"
        f" {off[1]:+.1f} % |"
    )
    assert row in DOCS.read_text(encoding="utf-8").splitlines(), f"docs/asfd.md should say: {row}"


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_are_the_well_known_ones(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(get_architecture(name).backbone)
    stages: Any = backbone.stages
    beyond_c5 = sum(p.numel() for stage in list(stages)[4:] for p in stage.parameters())
    assert sum(p.numel() for p in backbone.parameters()) - beyond_c5 == BACKBONES[name]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (75, 100), (33, 129)])
def test_maps_of_any_size(small: FaceNet, height: int, width: int) -> None:
    with torch.inference_mode():
        outputs = small.eval()(torch.zeros(1, 3, height, width))
    expected = [(1, c, -(-height // s), -(-width // s)) for s in S3FD_STRIDES for c in (1, 4)]
    assert [tuple(output.shape) for output in outputs] == expected


def test_resnet_of_any_size() -> None:
    with torch.device("meta"):
        maps = build_backbone(get_architecture("asfd-d4").backbone)(torch.zeros(1, 3, 75, 129))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, -(-75 // s), -(-129 // s))
        for c, s in zip((256, 512, 1024, 2048, 512, 256), S3FD_STRIDES, strict=True)
    ]


def test_fusion_is_wired_as_its_formulas(small: FaceNet) -> None:
    fusion, random = _fusion(small.eval()), torch.Generator().manual_seed(2)
    f = [torch.randn(1, 16, -(-50 // 2**i), -(-37 // 2**i), generator=random) for i in range(6)]
    t: dict[int, Tensor] = {5: f[5]}
    for i in (4, 3, 2, 1, 0):
        up = F.interpolate(
            t[i + 1], size=tuple(f[i].shape[2:]), mode="bilinear", align_corners=True
        )
        t[i] = fusion.top_down[i](up * f[i])
    d = {0: f[0]}
    for i in (1, 2, 3, 4, 5):
        d[i] = fusion.bottom_up[i - 1](nn.MaxPool2d(3, 2, 1)(d[i - 1]) * f[i])
    with torch.inference_mode():
        found = fusion(tuple(f))
        for i in range(6):
            parts = [*([t[i]] if i < 5 else []), *([d[i]] if i > 0 else []), fusion.same[i](f[i])]
            shares = fusion.mixes[i].exp() / fusion.mixes[i].exp().sum()
            convolution: Any = fusion.output[i]
            conv = convolution.conv
            mixed = torch.einsum("k,knchw->nchw", shares, torch.stack(parts))
            expected = (
                torch.einsum("oc,nchw->nohw", conv.weight[:, :, 0, 0], mixed)
                + conv.bias[:, None, None]
            )
            torch.testing.assert_close(
                found[i], expected, rtol=1e-4, atol=1e-4
            )  # float32 sums in another order


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_reaches_as_far_as_its_name_says(name: str) -> None:
    kernel, dilation = OPERATIONS[name]
    op = operation(name, 4).eval()
    for conv in (m for m in op.modules() if isinstance(m, nn.Conv2d)):
        nn.init.ones_(conv.weight)
    image = torch.zeros(1, 4, 25, 25)
    image[:, 0, 12, 12] = 1
    with torch.inference_mode():
        taps = torch.nonzero(op(image)[0, 1])
        assert not op(-image).any(), "ReLU comes first"
    assert len(taps) == kernel**2
    assert (taps.amax(0) - taps.amin(0)).tolist() == [dilation * (kernel - 1)] * 2
    # Published: a depthwise convolution without bias (none in conv_1x1), a 1x1 without bias, batch
    # norm.
    depthwise = 4 * kernel**2 if kernel > 1 else 0
    assert sum(p.numel() for p in op.parameters()) == depthwise + 4 * 4 + 2 * 4


def test_context_cell_adds_its_leaves() -> None:
    nodes = (Node((0,), "conv_1x1"), Node((0, 1), "sep_conv_3x3"), Node((1,), "dil_conv_3x3"))
    assert leaves(nodes) == (2, 3)
    cell = context_cell(nodes, 4).eval()
    graph: Any = cell.branch[0]
    x = torch.randn(1, 4, 9, 7, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        one = graph.nodes[0](x)
        both = torch.cat([graph.nodes[1](x + one), graph.nodes[2](one)], 1)
        torch.testing.assert_close(cell(x), torch.relu(x + cell.branch[1](both)))


def test_default_cells_have_six_nodes_and_reach_further_on_fine_levels() -> None:
    def reach(cell: tuple[Node, ...]) -> int:
        sizes = [0]
        for node in cell:
            kernel, dilation = OPERATIONS[node.op]
            sizes.append(max(sizes[i] for i in node.inputs) + dilation * (kernel - 1))
        return max(sizes)

    assert {len(cell) for cell in DEFAULT_GENOTYPE.context} == {6}
    reaches = [reach(cell) for cell in DEFAULT_GENOTYPE.context]
    assert reaches == sorted(reaches, reverse=True) and reaches[1] > reaches[2]


def test_both_shots_in_training_and_one_in_evaluation(small: FaceNet) -> None:
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(5)) * 255
    net = small.train()
    assert isinstance(net.neck, AutoFEM)
    outputs = net(image)
    first = tuple(
        lateral(c)
        for lateral, c in zip(net.neck.lateral, net.backbone(net.normalise(image)), strict=True)
    )
    expected = (*net.head(net.neck.enhance(first)), *net.head(first))
    assert len(outputs) == 24
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    sum(output.square().sum() for output in outputs[12:]).backward()
    lateral: Any = net.neck.lateral[0]
    assert lateral.conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.neck.enhance.parameters()), (
        "the first shot is taken before AutoFEM"
    )
    net.zero_grad()
    assert len(net.eval()(image)) == 12


def test_deployable_has_constants_for_shares(small: FaceNet) -> None:
    folded = deployable(small.eval())
    image = torch.rand(1, 3, 75, 100, generator=torch.Generator().manual_seed(6)) * 255
    with torch.inference_mode():
        for found, expected in zip(folded(image), small(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not any("mixes" in key or "norm" in key for key in folded.state_dict())
    assert any("mixes" in key for key in small.state_dict()), "the network itself stays as it was"


def test_repeats_are_networks_of_their_own() -> None:
    architecture = get_architecture("asfd-d0")
    twice = with_part(architecture, "neck", repeats=2)
    once, more = count(architecture, 640, 480), count(twice, 640, 480)
    assert (
        more.parts["head"] == once.parts["head"] and more.parts["neck"] > 1.8 * once.parts["neck"]
    )


def test_genotype_survives_json(tmp_path: Path) -> None:
    found = dataclasses.replace(DEFAULT_GENOTYPE, same=("dil_conv_5x5",) * 6)
    write_genotype(tmp_path / "genotype.json", found)
    assert read_genotype(tmp_path / "genotype.json") == found
    architecture = get_architecture("asfd-d0")
    changed = with_part(architecture, "neck", genotype=found)
    again = Architecture.from_json(json.loads(changed.dumps()))
    assert again == changed != architecture
    assert build(again, 1).state_dict().keys() == build(changed, 1).state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"top_down": ["conv_1x1"]}, "top_down has 1 entries, accepted: 5"),
        ({"same": ["conv_1x1"] * 7}, "same has 7 entries, accepted: 6"),
        (
            {"bottom_up": ["max_pool"] * 5},
            "unknown operation 'max_pool' (known: conv_1x1, sep_conv_3x3",
        ),
        ({"context": []}, "context has 0 entries, accepted: 6"),
        ({"context": [[]] * 6}, "context[0] has no node"),
        (
            {"context": [[{"inputs": [1], "op": "conv_1x1"}]] * 6},
            "node 1 reads [1], accepted: 0 (the cell's input) to 0",
        ),
        ({"context": [[{"inputs": [-1], "op": "conv_1x1"}]] * 6}, "node 1 reads [-1]"),
        (
            {"context": [[{"inputs": [], "op": "conv_1x1"}]] * 6},
            "node 1 reads [], accepted: one or more, each once",
        ),
        ({"context": [[{"inputs": [0, 0], "op": "conv_1x1"}]] * 6}, "node 1 reads [0, 0]"),
        ({"context": [[{"inputs": [0], "op": "skip"}]] * 6}, "unknown operation 'skip'"),
        ({"context": [[{"inputs": 0, "op": "conv_1x1"}]] * 6}, "expected a list, got 0"),
        ({"edges": []}, "unknown field 'edges'"),
    ],
)
def test_malformed_genotype_is_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps({**dataclasses.asdict(DEFAULT_GENOTYPE), **changes}))
    with pytest.raises(ModelError) as caught:
        read_genotype(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1", "[" * 100_000])
def test_file_that_is_no_genotype(tmp_path: Path, text: str) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="edgeface autofem"):
        read_genotype(path)
    with pytest.raises(ModelError, match="edgeface autofem"):
        read_genotype(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        ("asfd-d0", {"neck": {"genotype": None}}, "genotype is missing"),
        (
            "asfd-d0",
            {"neck": {"repeats": 0}},
            "repeats is 0, accepted: a whole number of at least 1",
        ),
        (
            "asfd-d0",
            {"backbone": {"block": "inverted"}},
            "unknown block 'inverted' (known: depthwise, basic, bottleneck)",
        ),
        ("asfd-d0", {"head": {"stack": -1}}, "stack is -1"),
        (
            "edgeface-n",
            {"neck": {"kind": "autofem", "genotype": dataclasses.asdict(DEFAULT_GENOTYPE)}},
            "maps are 3, accepted: a genotype and",
        ),
        ("edgeface-n", {"neck": {"repeats": 2}}, "neck fpn: repeats is for autofem only"),
        ("edgeface-n", {"head": {"dual": True}}, "head plain: dual is for s3fd only"),
        ("eresfd-16", {"head": {"dual": True}}, "head s3fd: dual is for neck autofem only"),
    ],
)
def test_networks_that_cannot_be_built(
    name: str, parts: dict[str, dict[str, Any]], said: str
) -> None:
    data = get_architecture(name).to_json()
    for part, fields in parts.items():
        data[part] |= fields
    with pytest.raises(ModelError) as caught:
        build(Architecture.from_json(data))
    assert said in str(caught.value)


def test_another_genotype_makes_another_network() -> None:
    base = get_architecture("asfd-d0")
    assert with_genotype(base, DEFAULT_GENOTYPE) is base
    wide, dilated = (
        with_genotype(base, dataclasses.replace(DEFAULT_GENOTYPE, same=(op,) * 6))
        for op in ("sep_conv_7x7", "dil_conv_5x5")
    )
    assert len({base.name, wide.name, dilated.name}) == 3
    assert re.fullmatch(r"asfd-d0-[0-9a-f]{12}", wide.name)
    assert isinstance(wide.neck, AutoFEMSpec) and wide.neck.genotype
    assert wide.name != with_genotype(get_architecture("asfd-d1"), wide.neck.genotype).name
    assert with_genotype(base, wide.neck.genotype) == wide


def test_a_genotype_is_checked_in_python_too() -> None:
    with pytest.raises(ValueError, match="accepted: 5"):
        Genotype((), (), (), ())
