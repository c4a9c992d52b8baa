"""Backbones of ASFD: MobileNetV1 or ResNet-18 to 152, continued to strides 64 and 128.

    image 3 x H x W
      stem           H/2 (MobileNetV1), H/4 (ResNet: 7x7 /2, then max-pool /2)
      c2 c3 c4 c5    strides 4, 8, 16, 32
      c6 c7          strides 64, 128: on a ResNet 1x1 to a quarter, then 3x3 /2; on MobileNetV1
                     3x3 /2 alone

The ResNets have the shape for which ImageNet weights are common: a bottleneck block has its stride
on the 3x3 and on the 1x1 of the shortcut. C6 and C7 of the ResNets follow the authors' released
code.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from torch import nn

from edgeface.architecture.specs import ASFDSpec, MobileNetSpec
from edgeface.errors import ModelError
from edgeface.models.blocks import StagedBackbone, conv_bn
from edgeface.models.scrfd import MobileNetV1, initialise, resnet_stages

BLOCKS = ("depthwise", "basic", "bottleneck")
MIN_INNER = 128
"""Least number of channels between the 1x1 and the 3x3 of c6 and of c7 on a ResNet."""


class ASFDBackbone(StagedBackbone):
    """[N, 3, H, W] -> (c2, ..., c7), ceil(H / s) x ceil(W / s) at strides s of 4 to 128.

    ``widths``: outputs of the stem and of c2 to c7 (the first convolution of MobileNetV1 has half
    the width of the stem); ``depths``: blocks of c2 to c5.
    """

    kept = slice(None)

    def __init__(self, spec: ASFDSpec) -> None:
        super().__init__()
        if spec.block not in BLOCKS:
            raise ModelError(
                f"backbone asfd: unknown block {spec.block!r} (known: {', '.join(BLOCKS)})"
            )
        stem, *c2_to_c5 = spec.widths[:5]
        self.stem: nn.Module
        if spec.block == "depthwise":
            widths = (max(1, stem // 2), stem, *c2_to_c5)
            net = MobileNetV1(MobileNetSpec(widths, spec.depths))
            self.stem, stages = net.stem, net.stages
        else:
            self.stem = nn.Sequential(conv_bn(3, stem, 7, 2), nn.MaxPool2d(3, 2, 1))
            stages = resnet_stages(dataclasses.replace(spec, widths=spec.widths[:5]), pooled=False)
        self.stages = nn.ModuleList(
            [*stages, *(_extra(*pair, spec.block) for pair in pairwise(spec.widths[4:]))]
        )
        self.channels = spec.widths[1:]
        initialise(self)


def _extra(in_channels: int, out_channels: int, block: str) -> nn.Sequential:
    """c6 or c7, which halves the size of its input."""
    if block == "depthwise":
        return nn.Sequential(conv_bn(in_channels, out_channels, 3, 2))
    inner = max(in_channels // 4, MIN_INNER)
    return nn.Sequential(conv_bn(in_channels, inner, 1), conv_bn(inner, out_channels, 3, 2))
