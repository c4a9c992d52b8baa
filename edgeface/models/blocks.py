"""Building blocks shared by all networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import edgeface.models.first_calls  # noqa: F401
from edgeface.errors import ModelError

OUTPUT_KERNELS = (1, 3)
"""accepted kernel sizes of a head's output convolutions: with an even one, maps would shrink"""


class ConvNorm(nn.Module):
    """Convolution, optional normalisation, optional ReLU: [N, in, H, W] -> [N, out, H', W'].

    All networks use it for all their convolutions, so one loop folds all batch normalisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        relu: bool = True,
    ) -> None:
        super().__init__()
        pad = dilation * (kernel - 1) // 2 if padding is None else padding
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, pad, dilation, groups, bias
        )
        self.norm = norm
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        conv, stride = self.conv, self.conv.stride[0]
        if self.training and stride > 1 and conv.kernel_size == (1, 1):
            # Gives the same values without the stride. In torch 2.13 on CPUs with AVX-512, the
            # backward pass of a strided 1x1 convolution of 8 channels, channels last, ends the
            # process.
            x = torch.nn.functional.conv2d(
                x[:, :, ::stride, ::stride], conv.weight, conv.bias, groups=conv.groups
            )
        else:
            x = conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return torch.relu(x) if self.relu else x

    def fold(self) -> None:
        """Fold batch norm (evaluation mode) into the convolution; group norm stays."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = None


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    relu: bool = True,
    groups: int = 1,
    bias: bool = False,
    padding: int | None = None,
    eps: float = 1e-5,
) -> ConvNorm:
    """ConvNorm with batch normalisation."""
    return ConvNorm(
        in_channels,
        out_channels,
        kernel,
        stride,
        padding=padding,
        groups=groups,
        bias=bias,
        norm=nn.BatchNorm2d(out_channels, eps=eps),
        relu=relu,
    )


def conv_bias(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> ConvNorm:
    """Bare convolution with bias: no normalisation, no activation."""
    return ConvNorm(in_channels, out_channels, kernel, stride, bias=True, relu=False)


def require_sizes(where: str, minimum: int = 1, **values: object) -> None:
    """Raise ModelError unless every value is a whole number of at least ``minimum``.

    The message begins with ``where``.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ModelError(
                f"{where}: {name} is {value!r}, accepted: a whole number of at least {minimum}"
            )


def require_output_kernel(where: str, kernel: int) -> None:
    """Raise ModelError, beginning with ``where``, for a size that output convolutions cannot
    have."""
    if kernel not in OUTPUT_KERNELS:
        raise ModelError(
            f"{where}: kernel is {kernel}, accepted: {' or '.join(map(str, OUTPUT_KERNELS))}"
        )


def require_maps(where: str, given: int, wanted: int) -> None:
    """Raise ModelError, beginning with ``where``, unless a backbone gives as many maps as are
    read."""
    if given != wanted:
        raise ModelError(
            f"{where} reads {wanted} maps, the backbone gives {given}, accepted: a backbone with"
            f" {wanted}"
        )


def require_width(where: str, in_channels: tuple[int, ...], channels: int) -> None:
    """Raise ModelError, beginning with ``where``, unless all maps have ``channels`` channels."""
    if set(in_channels) != {channels}:
        raise ModelError(
            f"{where}: channels is {channels}, accepted: the width of all maps of the backbone,"
            f" which is {' and '.join(map(str, sorted(set(in_channels))))}"
        )


class BasicResidual(nn.Module):
    """ReLU(x + 3x3(ReLU(3x3(x)))) of unchanged width and stride 1.

    The last batch norm scale starts at 0, so the convolutions initially add nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels, 3)
        self.second = conv_bn(channels, channels, 3, relu=False)
        assert self.second.norm is not None
        nn.init.zeros_(self.second.norm.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Residual(nn.Module):
    """branch(x) + shortcut(x), then ReLU unless ``relu`` is False.

    The branch ends in batch norm without activation.
    """

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module, relu: bool = True) -> None:
        super().__init__()
        self.branch, self.shortcut, self.relu = branch, shortcut, relu

    def forward(self, x: Tensor) -> Tensor:
        total = self.branch(x) + self.shortcut(x)
        return torch.relu(total) if self.relu else total

    @property
    def last_scale(self) -> nn.Parameter:
        """Scale of the whole branch; it starts at 0, where the block equals its shortcut."""
        last = self.branch[-1]
        if not (isinstance(last, ConvNorm) and isinstance(last.norm, nn.BatchNorm2d)):
            # An AttributeError, because tracing calls hasattr.
            raise AttributeError("a folded block has no scale of its own")
        return last.norm.weight


class Extractor(nn.Module):
    """A backbone: [N, 3, H, W] -> one map for each entry of ``channels``, finest first."""

    channels: tuple[int, ...]
    """widths of the outputs"""


class Pyramid(nn.Module):
    """A neck: the backbone's maps -> as many maps of one width, finest first."""

    out_channels: int


class StagedBackbone(Extractor):
    """A stem and stages that halve the size; outputs the last three maps (strides 8, 16, 32)."""

    stem: nn.Module
    stages: nn.ModuleList
    kept = slice(-3, None)
    """stages whose features are the output; a subclass may keep others"""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features[self.kept])
