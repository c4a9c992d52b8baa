"""EXTD: backbone and neck (Yoo, Han and Chung, arXiv 1906.06579, 2019).

The paper is "EXTD: Extremely Tiny Face Detector via Iterative Filter Reuse".
One small group of blocks halves the size. It runs six times, each time on its own output, so six
maps need the weights of one::

    image -> stem -> first -> [blocks] -> f1 -> [blocks] -> f2 -> ... -> [blocks] -> f6
                              stride 4           8                       128

Two forms: SSD (the head reads f1 to f6; neck "none") and FPN (:class:`EXTDNeck`). Three widths,
three activations. Details that the paper leaves open follow the released networks, which are FPN
with PReLU: a PReLU has one slope for all channels, depthwise convolutions have a bias, and only the
narrowest network has an activation after a block's projection.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from edgeface.architecture.specs import EXTDSpec
from edgeface.architecture.strides import S3FD_STRIDES
from edgeface.errors import ModelError
from edgeface.models.blocks import ConvNorm, Extractor, Pyramid, conv_bn, require_width

STEM_CHANNELS = 64
BLOCKS: dict[int, tuple[tuple[int, int], ...]] = {
    32: ((64, 1), (64, 1), (128, 1), (128, 1), (64, 1), (64, 2)),
    48: ((96, 1), (96, 1), (192, 1), (192, 2)),
    64: ((128, 1), (128, 1), (256, 1), (256, 2)),
}
"""Width -> (hidden channels, stride) of each block that runs six times."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "prelu": nn.PReLU,
    "lrelu": lambda: nn.LeakyReLU(0.25),  # initial slope of PReLU
    "relu": nn.ReLU,
}


class InvertedResidual(nn.Module):
    """1x1 to ``hidden``, 3x3 depthwise, 1x1 to ``out_channels``; adds the input if shapes agree.

    The first 1x1 is left out if ``hidden`` equals ``in_channels``. ``tail``: apply an activation
    after the last batch normalisation, before the sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int,
        stride: int,
        activation: Callable[[], nn.Module],
        tail: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers += [conv_bn(in_channels, hidden, 1, relu=False), activation()]
        layers += [
            conv_bn(hidden, hidden, 3, stride, groups=hidden, bias=True, relu=False),
            activation(),
            conv_bn(hidden, out_channels, 1, relu=False),
        ]
        if tail:
            layers.append(activation())
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class EXTD(Extractor):
    """[N, 3, H, W] -> six maps [N, spec.widths[0], ceil(H / s), ceil(W / s)], s = 4 to 128.

    All six passes share weights and running statistics of batch normalisation. In training, each
    pass is normalised by its own batch statistics and updates the running statistics, so these are
    updated six times per step, as in the authors' code. The initial weights follow that code, too:
    Xavier-uniform with zero biases (the paper says He; their train.py overrides that).
    """

    def __init__(self, spec: EXTDSpec) -> None:
        super().__init__()
        (width,) = spec.widths
        for name, value, known in (
            ("widths[0]", width, BLOCKS),
            ("activation", spec.activation, ACTIVATIONS),
        ):
            if value not in known:
                raise ModelError(
                    f"backbone extd: {name} is {value!r}, accepted: {', '.join(map(str, known))}"
                )
        activation, tail = ACTIVATIONS[spec.activation], width == min(BLOCKS)
        self.stem = nn.Sequential(conv_bn(3, STEM_CHANNELS, 3, 2, relu=False), activation())
        self.first = InvertedResidual(STEM_CHANNELS, width, STEM_CHANNELS, 1, activation, tail)
        self.blocks = nn.Sequential(
            *(
                InvertedResidual(width, width, hidden, stride, activation, tail)
                for hidden, stride in BLOCKS[width]
            )
        )
        self.channels = (width,) * len(S3FD_STRIDES)
        for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            nn.init.xavier_uniform_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.first(self.stem(x))
        maps = []
        for _ in self.channels:
            x = self.blocks(x)
            maps.append(x)
        return tuple(maps)


class EXTDNeck(Pyramid):
    """Top-down pyramid.

    Each step resizes bilinearly to the size of the next finer map, then applies 3x3 depthwise, 1x1,
    batch norm and ReLU, and adds that map. The coarsest map is unchanged. ``up[0]`` is the coarsest
    step.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        require_width("neck extd", in_channels, channels)
        self.up = nn.ModuleList(
            nn.Sequential(
                ConvNorm(channels, channels, 3, groups=channels, relu=False),
                conv_bn(channels, channels, 1),
            )
            for _ in in_channels[1:]
        )
        self.out_channels = channels

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = [features[-1]]
        for up, finer in zip(self.up, features[-2::-1], strict=True):
            resized = F.interpolate(
                maps[-1], size=finer.shape[2:], mode="bilinear", align_corners=False
            )
            maps.append(up(resized) + finer)
        return tuple(maps[::-1])


_RENAMED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^head\.(\w+)\.(\d)\.conv\.", r"\1.\2."),
    (r"^neck\.up\.(\d)\.0\.conv\.", r"upfeat.\1.0."),
    (r"^neck\.up\.(\d)\.1\.conv\.", r"upfeat.\1.1."),
    (r"^neck\.up\.(\d)\.1\.norm\.", r"upfeat.\1.2."),
    (r"^backbone\.stem\.", "base.0."),
    (r"^backbone\.first\.layers\.", "base.1.conv."),
    (r"^backbone\.blocks\.(\d)\.layers\.", lambda m: f"base.{int(m[1]) + 2}.conv."),
    (
        r"^(base\.\d\.(?:conv\.)?)(\d)\.(conv\.|norm\.)?",
        lambda m: f"{m[1]}{_their_layer(m[2], m[3])}.",
    ),
)
"""Pattern and replacement of each step from our names to the authors'; applied in order."""


def original_key(our_key: str) -> str:
    """Name of our tensor in the authors' checkpoints; see :mod:`edgeface.zoo.importing`."""
    for pattern, replacement in _RENAMED:
        our_key = re.sub(pattern, replacement, our_key)
    return our_key


def _their_layer(index: str, part: str | None) -> int:
    """Index of the authors' layer for our layer ``index`` and its ``part``.

    Our even layers hold convolution and normalisation, our odd ones the activation. The authors
    list these three separately, so two of our layers are three of theirs.
    """
    return int(index) // 2 * 3 + ("conv.", "norm.", None).index(part)
