"""The two backbone families of SCRFD (Guo et al., ICLR 2022).

They are MobileNetV1 (0.5G, 1G) and ResNetV1e (2.5G to 34G). Both give features at strides 8, 16 and
32 and are initialised as in the authors' code: Kaiming-normal (fan out) convolutions, and in
ResNetV1e a last scale of 0 in each residual branch.

The parameters and multiply-accumulates of all five networks settle these details:

- the MobileNetV1 stem is a strided convolution and one depthwise block of stride 1;
- the ResNetV1e stem is three 3x3 convolutions of width c/2, c/2, c and a 2x2 max-pool;
- the ResNetV1e shortcut projection is an average pool, then a 1x1 convolution *without* bias, and
  exists only where stride or width change;
- a bottleneck block is a quarter as wide inside as outside.
"""

from __future__ import annotations

from torch import nn

from edgeface.architecture.specs import ASFDSpec, MobileNetSpec, ResNetSpec
from edgeface.errors import ModelError
from edgeface.models.blocks import Residual, StagedBackbone, conv_bn

BOTTLENECK_EXPANSION = 4


class MobileNetV1(StagedBackbone):
    """[N, 3, H, W] -> (c3, c4, c5).

    ``widths``: outputs of the first convolution, the stem and c2 to c5; ``depths``: blocks of c2 to
    c5.
    """

    def __init__(self, spec: MobileNetSpec) -> None:
        super().__init__()
        widths = spec.widths
        self.stem = nn.Sequential(conv_bn(3, widths[0], 3, 2), *_depthwise(widths[0], widths[1], 1))
        self.stages = nn.ModuleList()
        for w_in, w_out, depth in zip(widths[1:], widths[2:], spec.depths, strict=False):
            layers = _depthwise(w_in, w_out, 2)
            for _ in range(depth - 1):
                layers += _depthwise(w_out, w_out, 1)
            self.stages.append(nn.Sequential(*layers))
        self.channels = widths[3:]
        initialise(self)


class ResNetV1e(StagedBackbone):
    """[N, 3, H, W] -> (c3, c4, c5).

    ``widths``: outputs of the stem and c2 to c5; ``depths``: blocks of c2 to c5. The stem ends in a
    max-pool at stride 4, which c2 keeps; c3, c4 and c5 halve the size in their first block.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        width = spec.widths[0]
        half = max(1, width // 2)
        self.stem = nn.Sequential(
            conv_bn(3, half, 3, 2), conv_bn(half, half, 3), conv_bn(half, width, 3), nn.MaxPool2d(2)
        )
        self.stages = resnet_stages(spec, pooled=True)
        self.channels = spec.widths[2:]
        initialise(self)


def resnet_stages(spec: ResNetSpec | ASFDSpec, pooled: bool) -> nn.ModuleList:
    """Stages c2 to c5 of a ResNet; c2 keeps the size of its input.

    ``widths`` starts with the stem. pooled: a shortcut halves the size by an average pool before
    its 1x1 convolution, otherwise by the stride of that convolution. Raises ModelError.
    """
    if spec.block not in ("basic", "bottleneck"):
        raise ModelError(f"{spec.kind}: unknown block {spec.block!r} (known: basic, bottleneck)")
    if spec.block == "bottleneck" and any(
        width % BOTTLENECK_EXPANSION for width in spec.widths[1:]
    ):
        raise ModelError(
            f"{spec.kind}: the stage widths of bottleneck blocks must be multiples of "
            f"{BOTTLENECK_EXPANSION}, got {', '.join(map(str, spec.widths[1:]))}"
        )
    stages = nn.ModuleList()
    width = spec.widths[0]
    for index, (w_out, depth) in enumerate(zip(spec.widths[1:], spec.depths, strict=True)):
        strides = [1 if index == 0 else 2] + [1] * (depth - 1)
        inputs = [width] + [w_out] * (depth - 1)
        stages.append(
            nn.Sequential(
                *(
                    _resnet_block(w_in, w_out, stride, spec.block, pooled)
                    for w_in, stride in zip(inputs, strides, strict=True)
                )
            )
        )
        width = w_out
    return stages


def _resnet_block(
    in_channels: int, out_channels: int, stride: int, block: str, pooled: bool
) -> Residual:
    """3x3, 3x3 (basic) or 1x1, 3x3, 1x1 (bottleneck); the first 3x3 has the stride."""
    if block == "basic":
        branch = nn.Sequential(
            conv_bn(in_channels, out_channels, 3, stride),
            conv_bn(out_channels, out_channels, 3, relu=False),
        )
    else:
        inner = out_channels // BOTTLENECK_EXPANSION
        branch = nn.Sequential(
            conv_bn(in_channels, inner, 1),
            conv_bn(inner, inner, 3, stride),
            conv_bn(inner, out_channels, 1, relu=False),
        )
    layers: list[nn.Module] = [nn.AvgPool2d(stride)] if pooled and stride > 1 else []
    if stride > 1 or in_channels != out_channels:
        layers.append(conv_bn(in_channels, out_channels, 1, 1 if pooled else stride, relu=False))
    return Residual(branch, nn.Sequential(*layers))


def _depthwise(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    """3x3 depthwise, then 1x1, each with batch norm and ReLU."""
    return [
        conv_bn(in_channels, in_channels, 3, stride, groups=in_channels),
        conv_bn(in_channels, out_channels, 1),
    ]


def initialise(net: nn.Module) -> None:
    """Initialise like the authors: Kaiming-normal (fan out) weights, residual branches at 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Residual):
            nn.init.zeros_(module.last_scale)
