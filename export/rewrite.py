"""Rewrites networks with operators that a target has, or has in INT8, without changing the results.

PReLU and LeakyReLU with one slope for all channels become a multiplication and a comparison::

    slope a <= 1:  max(x, a x)         slope a > 1:  min(x, a x)

TFLite's quantizer keeps PRELU and LEAKY_RELU in float, between two conversions, but quantises MUL
and MAXIMUM.

A minimum becomes the negated maximum of negated values: the quantizer has MAXIMUM but no MINIMUM,
and outputs must be all INT8 or all float.

Nearest upsampling to twice the size becomes a transposed convolution of stride 2 whose 2x2 kernels
are ones from each channel to itself and zeros elsewhere; from n rows to 2n - 1, the last row is cut
off. XNNPACK has kernels for transposed convolution but not for nearest resize, which in TFLite also
rounds the other way if the ratio is not 2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeface.models.detector import FaceNet
from edgeface.models.eresfd import SepFPN
from edgeface.models.s3fd import FoldedS3FDHead


class SlopedMaximum(nn.Module):
    """PReLU with one slope, as max(x, slope x) or min(x, slope x)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        scaled = x * self.slope
        return torch.maximum(x, scaled) if self.slope <= 1 else torch.minimum(x, scaled)


class MaximumHead(nn.Module):
    """FoldedS3FDHead that computes the smallest of three logits as minus the largest of the negated
    logits."""

    def __init__(self, head: FoldedS3FDHead) -> None:
        super().__init__()
        self.head, self.signs = head, head.signs
        head.signs = (1.0,) * len(self.signs)
        with torch.no_grad():
            for layer, sign in zip(head.conf, self.signs, strict=True):
                for parameter in layer.parameters():
                    parameter.mul_(sign)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs = list(self.head(maps))
        kinds = len(outputs) // len(self.signs)  # the logits are a level's first output
        for level, sign in enumerate(self.signs):
            if sign < 0:
                outputs[kinds * level] = outputs[kinds * level] * sign
        return tuple(outputs)


class Doubled(nn.Module):
    """:func:`edgeface.models.eresfd.upsample` as a transposed convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.ConvTranspose2d(channels, channels, 2, 2, bias=False)
        self.spread.weight = nn.Parameter(
            torch.eye(channels)[:, :, None, None].repeat(1, 1, 2, 2), False
        )

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        doubled: Tensor = self.spread(x)
        return (
            doubled
            if doubled.shape[2:] == like.shape[2:]
            else doubled[:, :, : like.shape[2], : like.shape[3]]
        )


def without_prelu(network: FaceNet) -> FaceNet:
    """A copy of ``network`` with SlopedMaximum for PReLU with one slope and for LeakyReLU."""

    def sloped(child: nn.Module) -> nn.Module | None:
        slope = _slope(child)
        return None if slope is None else SlopedMaximum(slope)

    network = copy.deepcopy(network)
    _replace(network, sloped)
    return network


def with_leaky_relu(network: FaceNet) -> FaceNet:
    """A copy of ``network`` with LeakyReLU for PReLU with one slope, which makes the slope a number
    in the graph."""

    def leaky(child: nn.Module) -> nn.Module | None:
        slope = _slope(child) if isinstance(child, nn.PReLU) else None
        return None if slope is None else nn.LeakyReLU(slope)

    network = copy.deepcopy(network)
    _replace(network, leaky)
    return network


def without_minimum(network: FaceNet) -> FaceNet:
    """A copy of ``network`` (folded) with MaximumHead for a head that has a minimum."""
    network = copy.deepcopy(network)
    if isinstance(network.head, FoldedS3FDHead) and min(network.head.signs) < 0:
        network.head = MaximumHead(network.head)
    return network


def without_nearest(network: FaceNet) -> FaceNet:
    """A copy of ``network`` whose SepFPN upsamples by transposed convolutions."""
    network = copy.deepcopy(network)
    if isinstance(network.neck, SepFPN):
        network.neck.upsample = Doubled(network.neck.out_channels)
    return network


def _slope(module: nn.Module) -> float | None:
    """Slope of a LeakyReLU, or of a PReLU with one slope for all channels; None for others."""
    if isinstance(module, nn.PReLU) and module.num_parameters == 1:
        return float(module.weight.detach())
    return float(module.negative_slope) if isinstance(module, nn.LeakyReLU) else None


def _replace(network: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            new = replacement(child)
            if new is not None:
                setattr(module, name, new)
