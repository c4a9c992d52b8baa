"""EResFD (Jeong et al., WACV 2024, arXiv 2204.01209): few and narrow standard convolutions.

    image 3 x H x W
      5x5 /4, 3x3, 3x3, block   c0  stride 4
      blocks, the first /2      c1  stride 8
      ...                       c5  stride 128
      SepFPN                    p0 ... p5: each map mixed with the coarser one and its original
      context module, each map  3x3 convolutions in cascade, outputs concatenated
      S3FD head, 1x1

All maps have the same width; the stem's first two layers have half of it. The authors scale widths
of 128 and 256 by a width multiplier, which is 1/16 in the network whose weights they released.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeface.architecture.specs import EResNetSpec
from edgeface.architecture.strides import S3FD_STRIDES
from edgeface.errors import ModelError
from edgeface.models.blocks import ConvNorm, Extractor, Pyramid, Residual, conv_bn, require_width

LEVELS = len(S3FD_STRIDES)
SEPARATED = 4
"""Below this level, the top-down path restarts from the backbone's map of this level (the authors'
sep_idx)."""
MIX_EPS = 1e-4
Shares = Tensor | tuple[float, ...]


class EResNet(Extractor):
    """[N, 3, H, W] -> six maps at strides 4 to 128, ceil(H / s) x ceil(W / s).

    ``widths``: the first two layers, then all others. ``depths``: blocks at strides 8, 16, ...,
    128.
    """

    def __init__(self, spec: EResNetSpec) -> None:
        super().__init__()
        narrow, width = spec.widths
        self.stem = nn.Sequential(
            conv_bn(3, narrow, 5, 4, relu=False),
            conv_bn(narrow, narrow, 3),
            conv_bn(narrow, width, 3),
            _block(width, 1),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(_block(width, 2), *(_block(width, 1) for _ in range(depth - 1)))
            for depth in spec.depths
        )
        self.channels = (width,) * LEVELS
        _initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return tuple(maps)


def _block(width: int, stride: int) -> Residual:
    """Two 3x3 convolutions and a shortcut (1x1 if the size changes), without ReLU on the sum."""
    shortcut = [conv_bn(width, width, 1, stride, relu=False)] if stride > 1 else []
    return Residual(
        nn.Sequential(conv_bn(width, width, 3, stride), conv_bn(width, width, 3, relu=False)),
        nn.Sequential(*shortcut),
        relu=False,
    )


class SepFPN(Pyramid):
    """Separated feature pyramid with a context module on each map: six maps -> six of equal width.

    Mix k adds two maps with learned shares: column k of ``weights``, made non-negative by ReLU and
    divided by its sum + eps, twice::

        c5 ---------------------------> p5
        c4 --1x1-- mix 4 -- up(p5) ---> p4 --3x3-- mix 8 -- c4
        c3 --1x1-- mix 3 -- up(c4) ---> p3 --3x3-- mix 7 -- c3     not up(p4): the path restarts
        c2 --1x1-- mix 2 -- up(p3) ---> p2 --3x3-- mix 6 -- c2
        c1 --1x1-- mix 1 -- up(p2) ---> p1 --3x3-- mix 5 -- c1
        c0 --1x1-- mix 0 -- up(p1) ---> p0

    The left half runs first, for all levels: up(p) reads p before its 3x3.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        require_width("neck sepfpn", in_channels, channels)
        if len(in_channels) != LEVELS or channels % 4:
            raise ModelError(
                f"neck sepfpn: channels is {channels} on {len(in_channels)} maps, accepted: a"
                f" multiple of 4 on {LEVELS} maps"
            )
        self.lateral = nn.ModuleList(conv_bn(channels, channels, 1) for _ in range(LEVELS - 1))
        self.smooth = nn.ModuleList(conv_bn(channels, channels, 3) for _ in range(LEVELS - 2))
        self.weights = nn.Parameter(torch.full((2, 9), 0.5))
        """[2, mixes]: row 0 for the output of the convolution, row 1 for the other map"""
        self.context = nn.ModuleList(ContextModule(channels) for _ in range(LEVELS))
        self.upsample: Callable[[Tensor, Tensor], Tensor] = upsample
        self.out_channels = channels
        _initialise(self)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        own, other = self.shares()
        maps = [
            *(lateral(x) for lateral, x in zip(self.lateral, features[:-1], strict=True)),
            features[-1],
        ]
        for i in reversed(range(LEVELS - 1)):
            above = features[SEPARATED] if i + 1 == SEPARATED else maps[i + 1]
            # Weighted before upsampling: a quarter of the work.
            maps[i] = _times(maps[i], own[i]) + self.upsample(_times(above, other[i]), maps[i])
        for i, smooth in enumerate(self.smooth, 1):
            maps[i] = _times(smooth(maps[i]), own[i + 4]) + _times(features[i], other[i + 4])
        return tuple(context(x) for context, x in zip(self.context, maps, strict=True))

    def shares(self) -> tuple[Shares, Shares]:
        """Factors of each mix: for the output of the convolution, and for the other map."""
        weights = torch.relu(self.weights)
        weights = weights / (weights.sum(0) + MIX_EPS)
        own, other = weights / (weights.sum(0) + MIX_EPS)
        return own, other

    def folded(self) -> FoldedSepFPN:
        """Return an equivalent neck with constant shares."""
        return FoldedSepFPN(self)


class FoldedSepFPN(SepFPN):
    """SepFPN for deployment, made after batch normalisation was folded.

    The factor of a convolution with ReLU is not negative, so it is folded into the weights. The
    factor of the other map becomes a constant.
    """

    def __init__(self, neck: SepFPN) -> None:
        Pyramid.__init__(self)
        self.lateral, self.smooth = copy.deepcopy(neck.lateral), copy.deepcopy(neck.smooth)
        self.context, self.upsample, self.out_channels = (
            neck.context,
            neck.upsample,
            neck.out_channels,
        )
        own, other = neck.shares()
        self.factors = tuple(float(share) for share in other)
        for layer, share in zip((*self.lateral, *self.smooth), own, strict=True):
            assert isinstance(layer, ConvNorm) and layer.conv.bias is not None
            layer.conv.weight.mul_(share)
            layer.conv.bias.mul_(share)

    def shares(self) -> tuple[Shares, Shares]:
        return (1.0,) * len(self.factors), self.factors


def _times(x: Tensor, share: Tensor | float) -> Tensor:
    return x if isinstance(share, float) and share == 1 else x * share


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Enlarge ``x`` to the size of ``like`` with the nearest value.

    For n rows (columns) of ``x``, ``like`` has 2n or 2n - 1. So each cell takes the value at half
    its row and column, rounded down.
    """
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


class ContextModule(nn.Module):
    """Cascade of 3x3 convolutions whose outputs are concatenated.

    Half of the channels have a receptive field of 3x3 cells, a quarter 7x7, a quarter 11x11.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.near = conv_bn(channels, half, 3)
        self.middle = nn.Sequential(conv_bn(half, quarter, 3), conv_bn(quarter, quarter, 3))
        self.far = nn.Sequential(conv_bn(quarter, quarter, 3), conv_bn(quarter, quarter, 3))

    def forward(self, x: Tensor) -> Tensor:
        near = self.near(x)
        middle = self.middle(near)
        return torch.cat((near, middle, self.far(middle)), 1)


def _initialise(net: nn.Module) -> None:
    """Initialise as the authors' code does: normal convolutions (fan out), batch norm scale 0.5."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            taps = module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, std=math.sqrt(2 / (taps * module.out_channels)))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)


_THEIRS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^backbone\.stem\.3\.", "base.conv4."),
    (r"^backbone\.stem\.(\d)\.", lambda m: f"base.conv{int(m[1]) + 1}."),
    (r"^backbone\.stages\.(\d)\.", lambda m: f"base.m0.b2_{int(m[1]) + 1}."),
    (r"\bbranch\.", "res_layer."),
    (r"\bshortcut\.", "shortcut_layer."),
    (r"^neck\.weights$", "base.m0.fpn.w1"),
    (r"^neck\.lateral\.(\d)\.", r"base.m0.fpn.laterals.\1.conv."),
    (r"^neck\.smooth\.(\d)\.", r"base.m0.fpn.itm.\1.conv."),
    (r"^neck\.context\.", "base.m0.FEM_"),
    (r"\bnear\.", "res_branch1."),
    (r"\bmiddle\.", "res_branch2."),
    (r"\bfar\.", "res_branch3."),
    (r"^head\.(\w+\.\d)\.conv\.", r"\1."),
    # In their code, convolution, normalisation and ReLU are three entries of one list.
    (
        r"(?:\b(\d)\.)?(conv|norm)\.(\w+)$",
        lambda m: f"{3 * int(m[1] or 0) + (m[2] == 'norm')}.{m[3]}",
    ),
)


def original_key(our_key: str) -> str:
    """Name, in the authors' released weights, of the tensor ``our_key`` of our state dict."""
    for pattern, theirs in _THEIRS:
        our_key = re.sub(pattern, theirs, our_key)
    return our_key
