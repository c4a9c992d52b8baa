"""Weights that SCRFD's authors trained, put into our SCRFD-0.5G, must compute what their own graph computes.

This is what counting cannot show: order of layers, paddings, where the pyramid adds. Their file has towers and output
convolutions of its own for each level and landmarks; the former is what our deployable variant folds to, and
landmarks are left out.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeface.models import build
from edgeface.models.blocks import ConvNorm
from edgeface.models.detector import FaceNet, deployable
from edgeface.models.head import FoldedSCRFDHead

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def test_scrfd_equals_the_published_graph(shared: Path) -> None:
    path = shared / "peers" / "scrfd_500m_kps_640x480.onnx"
    graph = onnx.load(str(path)).graph
    values = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer}
    weights = {n.input[1]: (values[n.input[1]], values[n.input[2]]) for n in graph.node if n.op_type == "Conv"}
    image = torch.rand(1, 3, 480, 640, generator=torch.Generator().manual_seed(0)) * 255
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = session.run([f"out{i}" for i in range(6)], {"images": ((image - 127.5) / 128).numpy()})

    net, head = filled(weights)
    for level, stride in enumerate((8, 16, 32)):
        put(head.cls, *weights[f"bbox_head.stride_cls.({stride}, {stride}).weight"])
        with torch.no_grad():
            outputs = net(image)
        for ours, their, per_anchor in ((outputs[2 * level].sigmoid(), theirs[level], 1),
                                        (outputs[2 * level + 1], theirs[3 + level], 4)):
            flat = ours.permute(0, 2, 3, 1).reshape(-1, per_anchor)
            torch.testing.assert_close(flat, torch.from_numpy(their).reshape(-1, per_anchor), rtol=1e-4, atol=1e-4)


def filled(weights: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> tuple[FaceNet, FoldedSCRFDHead]:
    """Return the folded SCRFD-0.5G with these weights, and its head, whose one cls convolution is left out."""
    net = deployable(build("scrfd-0.5g-bn"))
    head = net.head
    assert isinstance(head, FoldedSCRFDHead)
    # The exporter numbered folded layers in the order of the modules: 29 of the backbone, then 4 for each level.
    numbered = iter(weights[name] for name in sorted((n for n in weights if n.isdigit()), key=int))
    convs = [m for m in net.backbone.modules() if isinstance(m, ConvNorm)]
    for conv in convs:
        put(conv, *next(numbered))
    first = convs[0].conv
    assert first.bias is not None
    with torch.no_grad():  # their input is normalised outside the graph, ours inside the first convolution
        first.bias.sub_(first.weight.sum((1, 2, 3)) * (127.5 / 128))
        first.weight.div_(128)
    names = {"lateral": "lateral_convs", "smooth": "fpn_convs", "down": "downsample_convs", "output": "pafpn_convs"}
    for ours, their in names.items():
        for level, layer in enumerate(getattr(net.neck, ours)):
            put(layer, *weights[f"neck.{their}.{level}.conv.weight"])
    for level, stride in enumerate((8, 16, 32)):
        for layer in head.towers[level].children():
            put(layer, *next(numbered))
        put(head.box[level], *weights[f"bbox_head.stride_reg.({stride}, {stride}).weight"])
    assert next(numbered, None) is None
    return net, head


def put(layer: torch.nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> None:
    assert isinstance(layer, ConvNorm)
    assert layer.conv.weight.shape == weight.shape
    assert layer.conv.bias is not None
    with torch.no_grad():
        layer.conv.weight.copy_(weight)
        layer.conv.bias.copy_(bias)
