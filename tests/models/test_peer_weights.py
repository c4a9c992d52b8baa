"""Our SCRFD-0.5G with weights of SCRFD's authors computes what their graph computes.

This tests what counts cannot show: order of layers, paddings, where the pyramid adds. Their file
has separate towers and output convolutions for each level, and landmarks, like our network with
landmarks. Our deployable variant without landmarks folds to such towers, but its levels share a cls
convolution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgeface.models import build
from edgeface.models.blocks import ConvNorm
from edgeface.models.detector import FaceNet, deployable
from edgeface.models.head import FoldedSCRFDHead, PlainHead

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


STRIDES = (8, 16, 32)
Weights = dict[str, tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def peer(shared: Path) -> Path:
    return shared / "peers" / "scrfd_500m_kps_640x480.onnx"


@pytest.fixture(scope="module")
def weights(peer: Path) -> Weights:
    """Name of each convolution's weight in their file -> (weight, bias)."""
    graph = onnx.load(str(peer)).graph
    values = {
        i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer
    }
    convolutions = (n.input for n in graph.node if n.op_type == "Conv")
    return {weight: (values[weight], values[bias]) for _, weight, bias in convolutions}


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, 480, 640, generator=torch.Generator().manual_seed(0)) * 255


@pytest.fixture(scope="module")
def theirs(peer: Path, image: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of their graph: scores, boxes and landmarks, each for three levels."""
    session = onnxruntime.InferenceSession(str(peer), providers=["CPUExecutionProvider"])
    inputs = {"images": ((image - 127.5) / 128).numpy()}
    outputs = session.run([f"out{i}" for i in range(9)], inputs)
    return [torch.from_numpy(output) for output in outputs]


def test_scrfd_equals_the_published_graph(
    weights: Weights, image: torch.Tensor, theirs: list[torch.Tensor]
) -> None:
    net = deployable(build("scrfd-0.5g-bn"))
    head = net.head
    assert isinstance(head, FoldedSCRFDHead)
    fill(net, list(head.towers), weights)
    for level, stride in enumerate(STRIDES):
        put(head.box[level], *weights[f"bbox_head.stride_reg.({stride}, {stride}).weight"])
    for level, stride in enumerate(STRIDES):
        put(head.cls, *weights[f"bbox_head.stride_cls.({stride}, {stride}).weight"])
        with torch.no_grad():
            outputs = net(image)
        same(outputs[2 * level].sigmoid(), theirs[level])
        same(outputs[2 * level + 1], theirs[3 + level])


def test_scrfd_with_landmarks_is_the_published_graph(
    weights: Weights, image: torch.Tensor, theirs: list[torch.Tensor]
) -> None:
    """All nine outputs are equal, and every weight of their file is used."""
    net = deployable(build("scrfd-0.5g-kps"))
    assert isinstance(net.head, PlainHead)
    head: Any = net.head
    fill(net, [tower.layers for tower in head.tower], weights)
    for level, stride in enumerate(STRIDES):
        layers = {"cls": head.cls[level], "reg": head.box[level], "kps": head.kps[level][0]}
        for kind, layer in layers.items():
            put(layer, *weights[f"bbox_head.stride_{kind}.({stride}, {stride}).weight"])
    theirs_in_all = sum(weight.numel() + bias.numel() for weight, bias in weights.values())
    assert sum(p.numel() for p in net.parameters()) == theirs_in_all
    with torch.no_grad():
        outputs = net(image)
    for level in range(3):
        cls, box, kps = outputs[3 * level : 3 * level + 3]
        same(cls.sigmoid(), theirs[level])
        same(box, theirs[3 + level])
        same(kps, theirs[6 + level])


def same(ours: torch.Tensor, their: torch.Tensor) -> None:
    """Compare a map [1, A * C, H, W] with rows [H * W * A, C]."""
    flat = ours.permute(0, 2, 3, 1).reshape(-1, their.shape[-1])
    torch.testing.assert_close(flat, their.reshape(flat.shape), rtol=1e-4, atol=1e-4)


def fill(net: FaceNet, towers: list[torch.nn.Module], weights: Weights) -> None:
    """Put ``weights`` into a folded SCRFD-0.5G, except into its output convolutions."""
    # The exporter numbered folded layers in the order of the modules: 29 of the backbone, then 4
    # for each level.
    numbered = iter(weights[name] for name in sorted((n for n in weights if n.isdigit()), key=int))
    convs = [m for m in net.backbone.modules() if isinstance(m, ConvNorm)]
    for conv in convs:
        put(conv, *next(numbered))
    first = convs[0].conv
    assert first.bias is not None
    with torch.no_grad():  # ours normalises in the first convolution, theirs outside the graph
        first.bias.sub_(first.weight.sum((1, 2, 3)) * (127.5 / 128))
        first.weight.div_(128)
    names = {
        "lateral": "lateral_convs",
        "smooth": "fpn_convs",
        "down": "downsample_convs",
        "output": "pafpn_convs",
    }
    for ours, their in names.items():
        for level, layer in enumerate(getattr(net.neck, ours)):
            put(layer, *weights[f"neck.{their}.{level}.conv.weight"])
    for tower in towers:
        for layer in tower.children():
            put(layer, *next(numbered))
    assert next(numbered, None) is None


def put(layer: torch.nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> None:
    assert isinstance(layer, ConvNorm)
    assert layer.conv.weight.shape == weight.shape
    assert layer.conv.bias is not None
    with torch.no_grad():
        layer.conv.weight.copy_(weight)
        layer.conv.bias.copy_(bias)
