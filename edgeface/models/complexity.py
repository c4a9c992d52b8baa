"""Parameters and multiply-accumulates of a network.

The count covers the multiply-accumulates of convolutions (and of linear layers, which are 1x1
convolutions), each time they run. Biases, normalisation, activations, pooling and resizing count as
0. Published "FLOPs" in this field include some of those, differently for each author, so compare
networks by this count only.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.registry import get_architecture
from edgeface.models.detector import build_detector

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Complexity:
    """Size of a network at one input size."""

    params: int
    """parameters; one shared by several layers counts once"""
    macs: int
    """multiply-accumulates of the convolutions, for one image"""
    parts: dict[str, int]
    """multiply-accumulates of each child of the network (backbone, neck, head); for a detector of
    this package also of the stem and each stage of its backbone (c2 to c5 or c7; the output of cn
    has stride 2^n)"""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def count(model: nn.Module | Architecture | str, width: int, height: int) -> Complexity:
    """Count a module, an Architecture or a zoo name on one [1, 3, height, width] image (px).

    Shapes are enough: an Architecture is built without weights, and a module runs as a copy without
    weights. A module that needs values (a tensor kept outside its buffers, a data-dependent branch)
    is run on zeros instead. Layers called through ``torch.nn.functional`` are not counted.
    """
    if isinstance(model, nn.Module):
        net = copy.deepcopy(model).to("meta")
    else:
        with torch.device("meta"):
            net = build_detector(
                get_architecture(model) if isinstance(model, str) else model, seed=0
            )
    try:
        layers = _run(net, width, height)
    except RuntimeError:
        if not isinstance(model, nn.Module):
            raise
        layers = _run(copy.deepcopy(model), width, height)
    parts: Counter[str] = Counter()
    for name, macs in layers.items():
        parts.update(dict.fromkeys(_parts_of(name, net), macs))
    return Complexity(
        params=sum(p.numel() for p in net.parameters()),
        macs=sum(layers.values()),
        parts=dict(parts),
    )


def count_as_extd(model: Architecture | str, width: int, height: int) -> int:
    """Multiply-accumulates as the EXTD paper counts them; :func:`count` counts what really runs.

    The authors' program (compute_flops of their train.py) iterates over the layers instead of
    running them. So the backbone counts for one of its six passes, and all later layers count as if
    each level had the size of the finest.
    """
    with torch.device("meta"):
        net = build_detector(get_architecture(model) if isinstance(model, str) else model, seed=0)
    macs, stride = 0, 1
    for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
        stride *= conv.stride[0]
        macs += conv.weight.numel() * (width // stride) * (height // stride)
    return macs


def _run(net: nn.Module, width: int, height: int) -> dict[str, int]:
    """Run ``net`` on zeros; return the multiply-accumulates of each layer by its dotted name."""
    macs: dict[str, int] = {}
    for name, module in net.named_modules():
        if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)):
            macs[name] = 0
            module.register_forward_hook(_hook(name, macs))
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    if device.type == "meta":
        # Without values, normalisation has no effect but would take most of the time.
        for norm in (m for m in net.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))):
            norm.forward = lambda input: input  # type: ignore[method-assign]
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, height, width, device=device))
    return macs


def _hook(
    name: str, macs: dict[str, int]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        macs[name] += layer_macs(module, inputs[0], output)

    return add


def layer_macs(layer: nn.Module, source: Tensor, output: Tensor) -> int:
    """Return the multiply-accumulates of one run of a (transposed) convolution or linear layer.

    Each output element of a convolution is multiplied with weight.numel / out_channels weights;
    each input element of a transposed convolution with weight.numel / in_channels weights.
    """
    weight = layer.weight.numel()  # type: ignore[operator]
    if isinstance(layer, CONVOLUTIONS):
        return output.numel() * weight // layer.out_channels
    if isinstance(layer, TRANSPOSED):
        return source.numel() * weight // layer.in_channels
    assert isinstance(layer, nn.Linear)
    return source.numel() * layer.out_features


def _parts_of(name: str, net: nn.Module) -> list[str]:
    """Return the parts that the layer called ``name`` belongs to.

    ``backbone.stages.i`` of n stages is c(6 - n + i) if the backbone ends at stride 32 = 2^5, and
    c(8 - n + i) in the S3FD family, whose backbones end at stride 128 = 2^7.
    """
    path = name.split(".")
    parts = [path[0]]
    backbone = getattr(net, "backbone", None)
    stages = getattr(backbone, "stages", None)
    if path[:2] == ["backbone", "stem"]:
        parts.append("stem")
    elif path[:2] == ["backbone", "stages"] and isinstance(stages, nn.ModuleList):
        last = 5 if len(backbone.channels) == 3 else 7  # type: ignore[union-attr]
        parts.append(f"c{last + 1 - len(stages) + int(path[2])}")
    return parts
