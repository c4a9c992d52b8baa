"""Feature pyramids over three backbone features (strides 8, 16, 32), and :func:`build_neck`."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from edgeface.architecture.specs import AutoFEMSpec, Neck
from edgeface.architecture.strides import STRIDES
from edgeface.errors import ModelError
from edgeface.models.asfd import AutoFEM
from edgeface.models.blocks import (
    Pyramid,
    conv_bias,
    conv_bn,
    require_maps,
    require_sizes,
    require_width,
)
from edgeface.models.eresfd import SepFPN
from edgeface.models.extd import EXTDNeck


class FPN(Pyramid):
    """Top-down pyramid with bilinear upsampling.

    Bilinear, because nearest resize falls off the fast INT8 path of the TFLite CPU delegate.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv_bn(c, channels, 1) for c in in_channels)
        self.out_channels = channels

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        for i in (1, 0):
            maps[i] = maps[i] + F.interpolate(
                maps[i + 1], scale_factor=2.0, mode="bilinear", align_corners=False
            )
        return tuple(maps)


class PAFPN(Pyramid):
    """Path-aggregation pyramid of SCRFD: convolutions with bias, no normalisation or activation.

    Top-down: 1x1 laterals, nearest upsample and add, 3x3 on each level. Bottom-up: a 3x3 stride-2
    convolution of the level below (before its output convolution), add, then a 3x3 output
    convolution on the two coarser levels. Initial weights are Xavier-uniform and biases zero, as in
    the authors' code.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv_bias(c, channels, 1) for c in in_channels)
        self.smooth = nn.ModuleList(conv_bias(channels, channels, 3) for _ in in_channels)
        self.down = nn.ModuleList(conv_bias(channels, channels, 3, 2) for _ in in_channels[1:])
        self.output = nn.ModuleList(conv_bias(channels, channels, 3) for _ in in_channels[1:])
        self.out_channels = channels
        for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            nn.init.xavier_uniform_(conv.weight)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        for i in (1, 0):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], scale_factor=2.0, mode="nearest")
        maps = [smooth(m) for smooth, m in zip(self.smooth, maps, strict=True)]
        for i in (1, 2):
            maps[i] = maps[i] + self.down[i - 1](maps[i - 1])
        return (maps[0], self.output[0](maps[1]), self.output[1](maps[2]))


class NoNeck(Pyramid):
    """No neck: the head reads the backbone's maps, which must all have one width."""

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        require_width("neck none", in_channels, channels)
        self.out_channels = channels

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return features


def build_neck(spec: Neck, in_channels: tuple[int, ...]) -> Pyramid:
    """Build the neck ``spec.kind``. Raises ModelError on a specification that cannot be built."""
    kinds: dict[str, Callable[[tuple[int, ...], int], Pyramid]] = {
        "fpn": FPN,
        "pafpn": PAFPN,
        "none": NoNeck,
        "extd": EXTDNeck,
        "sepfpn": SepFPN,
    }
    require_sizes(f"neck {spec.kind}", channels=spec.channels)
    if isinstance(spec, AutoFEMSpec):
        return AutoFEM(in_channels, spec)
    if spec.kind in ("fpn", "pafpn"):
        require_maps(f"neck {spec.kind}", len(in_channels), len(STRIDES))
    if spec.kind not in kinds:
        raise ModelError(f"unknown neck {spec.kind!r} (known: {', '.join(kinds)}, autofem)")
    return kinds[spec.kind](in_channels, spec.channels)
