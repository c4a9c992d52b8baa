"""PlainNet: DamoFD's backbones (Liu et al., ICLR 2023), built from their structure strings.

    image 3 x H x W
      SuperConv    stem   H/2
      super-block  c2     H/4
      super-block  c3     H/8    -> out
      super-block  c4     H/16   -> out
      super-block  c5     H/32   -> out

The published strings leave some points open. The parameters and multiply-accumulates of all four
networks settle them:

- bottleneck and inverted super-blocks run *two* residuals per inner layer, basic ones a single
  residual;
- the first residual of a super-block always has a projection (1x1 convolution *with* bias, then
  batch norm), the others only where stride or width change;
- the first residual of an inverted layer has the bottleneck width as its output; the second expands
  the *output* width;
- a super-block of stride 1 belongs to the stage before it; the feature of a stage is the output of
  its last block.

Three forms are ours: depthwise separable blocks, basic residuals led by a convolution that changes
stride and width (so that none has a projection), and a 6x6 stem of stride 4 that replaces stem and
c2 (:mod:`edgeface.models.convnet` says why it is fast).

Convolutions of DamoFD's networks start from the authors' initialisation (Xavier, gain 3.26), those
of our searches from torch's default, which is a fifth as large. Before a batch normalisation, the
scale of weights changes only how fast steps of a given size turn them. With torch's default, the
same network reached an AP hard of .388 instead of .330 in 19,200 crops of training.
"""

from __future__ import annotations

from torch import nn

from edgeface.architecture.specs import PlainNetSpec
from edgeface.architecture.structure import STEM_KERNEL, SuperBlock, parse, round8
from edgeface.errors import ModelError
from edgeface.models.blocks import Residual, StagedBackbone, conv_bn

BN_EPS = 1e-3
XAVIER_GAIN = 3.26033
"""Gain of the authors' initialisation."""
STEPS = ([2, 2, 2, 2, 2], [4, 2, 2, 2])
"""accepted strides of stem, c2, c3, c4 and c5; a stem of stride 4 also takes the place of c2"""


class PlainNet(StagedBackbone):
    """[N, 3, H, W] -> (c3, c4, c5) at strides 8, 16 and 32; H and W are multiples of 32."""

    def __init__(self, spec: PlainNetSpec) -> None:
        super().__init__()
        stages = _stages(parse(spec.structure))
        self.stem = nn.Sequential(
            *(layer for block in stages[0] for layer in build_super_block(block))
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(layer for block in stage for layer in build_super_block(block)))
            for stage in stages[1:]
        )
        self.channels = tuple(stage[-1].out_channels for stage in stages[-3:])
        for module in self.modules():
            if isinstance(module, Residual):  # starts as its shortcut
                nn.init.zeros_(module.last_scale)

    def draw_as_published(self) -> None:
        """Draw the convolutions anew, Xavier-normal as the authors do."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight, gain=XAVIER_GAIN)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def build_super_block(block: SuperBlock) -> list[nn.Module]:
    """Return the layers of one super-block, in order: ConvNorm and Residual."""
    layers: list[nn.Module] = []
    in_channels, stride = block.in_channels, block.stride
    for index in range(block.layers):
        layers += _INNER_LAYERS[block.kind](block, in_channels, stride, index == 0)
        in_channels, stride = block.out_channels, 1
    return layers


def _conv_layer(block: SuperBlock, in_channels: int, stride: int, first: bool) -> list[nn.Module]:
    # The 6x6 window of a stem of stride 4 covers one pixel more on each side than its 4x4 cell.
    padding = 1 if block.kernel == STEM_KERNEL else None
    return [
        conv_bn(in_channels, block.out_channels, block.kernel, stride, padding=padding, eps=BN_EPS)
    ]


def _separable_layer(
    block: SuperBlock, in_channels: int, stride: int, first: bool
) -> list[nn.Module]:
    return [
        conv_bn(in_channels, in_channels, block.kernel, stride, groups=in_channels, eps=BN_EPS),
        conv_bn(in_channels, block.out_channels, 1, eps=BN_EPS),
    ]


def _basic_layer(block: SuperBlock, in_channels: int, stride: int, first: bool) -> list[nn.Module]:
    inner, out = block.bottleneck, block.out_channels
    branch = nn.Sequential(
        conv_bn(in_channels, inner, block.kernel, stride, eps=BN_EPS),
        conv_bn(inner, out, block.kernel, relu=False, eps=BN_EPS),
    )
    return [_residual(branch, in_channels, out, stride, first)]


def _led_layer(block: SuperBlock, in_channels: int, stride: int, first: bool) -> list[nn.Module]:
    out = block.out_channels
    lead = [conv_bn(in_channels, out, block.kernel, stride, eps=BN_EPS)] if first else []
    return [*lead, *_basic_layer(block, out, 1, False)]


def _bottleneck_layer(
    block: SuperBlock, in_channels: int, stride: int, first: bool
) -> list[nn.Module]:
    def residual(width: int, step: int, project: bool) -> Residual:
        branch = _three(width, block.bottleneck, block.out_channels, block.kernel, step, groups=1)
        return _residual(branch, width, block.out_channels, step, project)

    return [residual(in_channels, stride, first), residual(block.out_channels, 1, False)]


def _inverted_layer(
    block: SuperBlock, in_channels: int, stride: int, first: bool
) -> list[nn.Module]:
    def residual(width: int, out: int, step: int, project: bool) -> Residual:
        inner = round8(block.expansion * out)
        return _residual(
            _three(width, inner, out, block.kernel, step, groups=inner), width, out, step, project
        )

    return [
        residual(in_channels, block.bottleneck, stride, first),
        residual(block.bottleneck, block.out_channels, 1, False),
    ]


_INNER_LAYERS = {
    "conv": _conv_layer,
    "separable": _separable_layer,
    "basic": _basic_layer,
    "led": _led_layer,
    "bottleneck": _bottleneck_layer,
    "inverted": _inverted_layer,
}


def _residual(
    branch: nn.Sequential, in_channels: int, out_channels: int, stride: int, project: bool
) -> Residual:
    """[N, in, H, W] -> [N, out, H/stride, W/stride].

    The shortcut has a projection if ``project`` is set or the shapes differ.
    """
    shortcut: nn.Module = nn.Identity()
    if project or stride > 1 or in_channels != out_channels:
        shortcut = conv_bn(in_channels, out_channels, 1, stride, bias=True, relu=False, eps=BN_EPS)
    return Residual(branch, shortcut)


def _three(
    in_channels: int, inner: int, out: int, kernel: int, stride: int, groups: int
) -> nn.Sequential:
    """1x1, then K x K with the stride, then 1x1 without activation."""
    return nn.Sequential(
        conv_bn(in_channels, inner, 1, eps=BN_EPS),
        conv_bn(inner, inner, kernel, stride, groups=groups, eps=BN_EPS),
        conv_bn(inner, out, 1, relu=False, eps=BN_EPS),
    )


def _stages(blocks: tuple[SuperBlock, ...]) -> list[list[SuperBlock]]:
    """Group super-blocks into stem, c2, c3, c4 and c5; each stride above 1 starts a stage.

    A stem of stride 4 also takes the place of c2. Raises ModelError for other stems and strides.
    """
    if blocks[0].kind != "conv" or blocks[0].in_channels != 3 or blocks[0].stride == 1:
        raise ModelError(
            f"plainnet structure: block 1, {blocks[0]}, cannot be the stem: accepted is "
            "SuperConvK3BNRELU(3,out,2,layers), K one of 3, 5, 7, or SuperConvK6BNRELU(3,out,4,1)"
        )
    stages: list[list[SuperBlock]] = []
    for block in blocks:
        if block.stride > 1:
            stages.append([])
        stages[-1].append(block)
    steps = [stage[0].stride for stage in stages]
    if steps not in STEPS:
        raise ModelError(
            f"plainnet structure: its strides are {steps}, accepted: {' or '.join(map(str, STEPS))}"
        )
    return stages
