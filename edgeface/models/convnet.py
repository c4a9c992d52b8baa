"""Our own backbone: only narrow standard convolutions and ReLU, and a stem of stride 4.

One 6x6 stride-4 stem replaces the usual pair of stride-2 convolutions. So the two largest
activations of a small detector are never written to memory, where most of its CPU time would go.
All other convolutions are 3x3, for which every runtime has fast float and INT8 kernels.

    image 3 x H x W
      stem 6x6 /4   widths[0]   H/4
      3x3 /2        widths[1]   H/8   + depths[0] residuals -> c3
      3x3 /2        widths[2]   H/16  + depths[1] residuals -> c4
      3x3 /2        widths[3]   H/32  + depths[2] residuals -> c5
"""

from __future__ import annotations

from torch import nn

from edgeface.architecture.specs import ConvNetSpec
from edgeface.models.blocks import BasicResidual, StagedBackbone, conv_bn


class ConvNet(StagedBackbone):
    """[N, 3, H, W] -> (c3, c4, c5) at strides 8, 16 and 32; H and W are multiples of 32."""

    def __init__(self, spec: ConvNetSpec) -> None:
        super().__init__()
        self.stem = conv_bn(3, spec.widths[0], 6, 4, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_bn(w_in, w_out, 3, 2), *(BasicResidual(w_out) for _ in range(depth)))
            for w_in, w_out, depth in zip(spec.widths, spec.widths[1:], spec.depths, strict=False)
        )
        self.channels = spec.widths[1:]
