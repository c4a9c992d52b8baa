"""The layers of an Architecture in order of execution, listed without building the network.

Scores and latency models read them. Listing needs only the standard library and takes microseconds,
building the module takes milliseconds; a search does this a hundred thousand times. Export folds
batch normalisation and ReLU into the convolution before them, so they are not listed as layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.specs import (
    Backbone,
    ConvNetSpec,
    PlainHeadSpec,
    PlainNetSpec,
    PyramidSpec,
    SCRFDHeadSpec,
)
from edgeface.architecture.structure import SuperBlock, parse, round8
from edgeface.errors import ModelError

KINDS = ("conv", "depthwise", "add", "resize")
BACKBONES = ("convnet", "plainnet")
COUNTED_AT = (640, 480)
"""width and height in px of the input for which multiply-accumulates are limited and quoted"""
CONVNET_STEM = (6, 4)
"""kernel size and stride"""
Block = SuperBlock | tuple[int, int, int]
"""super-block of a plainnet; or part of a convnet: input channels, output channels and number of
residuals, which is -1 for the stem"""
Group = tuple[str, int, int]
"""kind, kernel, stride"""


class Layer(NamedTuple):
    """One operator of the deployed network."""

    kind: str
    """conv, depthwise (one filter per channel), add (of two maps) or resize (to twice the size)"""
    kernel: int
    """side of the filter; 0 for add and resize"""
    stride: int
    in_channels: int
    out_channels: int
    width: int
    """width of the output in px"""
    height: int
    """height of the output in px"""
    shortcut: bool = False
    """True for a 1x1 convolution on the shortcut of a residual: it reads the residual's input"""

    @property
    def cells(self) -> int:
        """Number of positions in the output map."""
        return self.width * self.height

    @property
    def inputs(self) -> int:
        """Number of input channels that each output channel reads."""
        return 1 if self.kind == "depthwise" else self.in_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates, of convolutions only, as in :mod:`edgeface.models.complexity`."""
        return self.cells * self.kernel**2 * self.inputs * self.out_channels

    @property
    def params(self) -> int:
        """Number of weights and biases."""
        return self.macs // self.cells + self.out_channels * (self.kernel > 0)

    @property
    def values_read(self) -> int:
        """Number of values in its input or inputs."""
        if self.kind == "resize":
            return self.cells * self.in_channels // 4
        return self.cells * self.in_channels * (2 if self.kind == "add" else self.stride**2)

    @property
    def values_written(self) -> int:
        """Number of values in its output."""
        return self.cells * self.out_channels

    @property
    def group(self) -> Group:
        """The properties by which a runtime chooses the compute kernel for this layer."""
        return (self.kind, self.kernel, self.stride)

    @property
    def title(self) -> str:
        """Text such as ``conv 3x3 of stride 2``."""
        return (
            f"{self.kind} {self.kernel}x{self.kernel} of stride {self.stride}"
            if self.kernel
            else self.kind
        )

    def __str__(self) -> str:
        return (
            f"{self.title}, {self.in_channels} to {self.out_channels} channels at"
            f" {self.width}x{self.height}"
        )


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive layers that a search replaces as a unit: a super-block, the neck or the head.

    Parts are cached and compared by identity, which is fast.
    """

    layers: tuple[Layer, ...]
    out_channels: int
    stride: int
    """stride of its output relative to its input"""

    @property
    def path(self) -> tuple[Layer, ...]:
        """Its convolutions in sequence, without those on shortcuts."""
        return tuple(layer for layer in self.layers if layer.kernel and not layer.shortcut)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all its layers."""
        return sum(layer.macs for layer in self.layers)


def parts_of(architecture: Architecture, width: int, height: int) -> list[Part]:
    """The parts on an image of ``width`` x ``height`` px: blocks of the backbone, neck, head.

    Raises ModelError unless the backbone is one of :data:`BACKBONES`, the neck fpn and the head
    plain. The searches here produce only these; build and measure other networks instead. Also
    raises ModelError for sizes that are not multiples of 32 px and for malformed backbones.
    """
    backbone, neck, head = architecture.backbone, architecture.neck, architecture.head
    if backbone.kind not in BACKBONES or neck.kind != "fpn" or not isinstance(head, PlainHeadSpec):
        raise ModelError(
            f"{architecture.name}: layers are listed for backbones {' and '.join(BACKBONES)} with"
            f" neck fpn and head plain, this is {backbone.kind} with {neck.kind} and {head.kind}"
        )
    assert isinstance(neck, PyramidSpec)
    if width % 32 or height % 32 or min(width, height) < 32:
        raise ModelError(f"input {width}x{height}: width and height are multiples of 32")
    if min(neck.channels, head.channels, head.anchors, *getattr(backbone, "widths", ())) < 1:
        raise ModelError(f"{architecture.name}: widths and anchors must be at least 1")
    parts, channels, step = [], {}, 1
    for block in blocks_of(backbone):
        part = block_part(block, width // step, height // step)
        step *= part.stride
        channels[step] = part.out_channels  # the last block at a stride gives its feature
        parts.append(part)
    if not {8, 16, 32} <= set(channels):
        raise ModelError(
            f"{architecture.name}: its blocks end at stride {step}, a backbone has features at 8,"
            " 16, 32"
        )
    parts.append(_neck_part(neck, (channels[8], channels[16], channels[32]), width, height))
    parts.append(_head_part(head, neck.channels, width, height))
    return parts


def layers_of(architecture: Architecture, width: int, height: int) -> tuple[Layer, ...]:
    """The layers of all parts, in the order of :func:`parts_of`."""
    return tuple(layer for part in parts_of(architecture, width, height) for layer in part.layers)


def params_of(architecture: Architecture) -> int:
    """Parameters of the deployed network: weights and biases, batch normalisation folded."""
    return sum(layer.params for layer in layers_of(architecture, 32, 32))


def macs_of(architecture: Architecture, width: int, height: int) -> int:
    """Multiply-accumulates, equal to :func:`edgeface.models.complexity.count`."""
    return sum(part.macs for part in parts_of(architecture, width, height))


class _Walk:
    """Collects layers while it follows one map through the network."""

    def __init__(self, channels: int, width: int, height: int) -> None:
        self.channels, self.width, self.height = channels, width, height
        self.layers: list[Layer] = []

    def conv(self, out: int, kernel: int, stride: int = 1, depthwise: bool = False) -> None:
        self.width, self.height = self.width // stride, self.height // stride
        self._add("depthwise" if depthwise else "conv", out, kernel, stride)

    def add(self) -> None:
        self._add("add", self.channels, 0, 1)

    def _add(self, kind: str, out: int, kernel: int, stride: int) -> None:
        self.layers.append(Layer(kind, kernel, stride, self.channels, out, self.width, self.height))
        self.channels = out

    def shortcut(self, out: int, stride: int) -> None:
        """Add a 1x1 projection of the current map; the walk continues from the unprojected map."""
        self.layers.append(
            Layer(
                "conv",
                1,
                stride,
                self.channels,
                out,
                self.width // stride,
                self.height // stride,
                shortcut=True,
            )
        )


def blocks_of(backbone: Backbone) -> Sequence[Block]:
    """The blocks of a backbone of :data:`BACKBONES`, as :func:`block_part` takes them.

    Raises ModelError for a malformed backbone.
    """
    if isinstance(backbone, ConvNetSpec):
        return _convnet_blocks(backbone.widths, backbone.depths)
    assert isinstance(backbone, PlainNetSpec), backbone.kind
    return parse(backbone.structure)


@lru_cache(maxsize=1 << 16)
def block_part(block: Block, width: int, height: int) -> Part:
    """The layers of one block on an input map of ``width`` x ``height``.

    A block is a plainnet super-block (:mod:`edgeface.models.plainnet`) or the stem or a stage of a
    convnet.
    """
    if isinstance(block, tuple):
        return _convnet_part(block, width, height)
    walk, stride = _Walk(block.in_channels, width, height), block.stride
    for index in range(block.layers):
        if block.kind == "conv":
            walk.conv(block.out_channels, block.kernel, stride)
        elif block.kind == "separable":
            walk.conv(walk.channels, block.kernel, stride, depthwise=True)
            walk.conv(block.out_channels, 1)
        elif block.kind == "led":
            if index == 0:
                walk.conv(block.out_channels, block.kernel, stride)
            _residual(walk, block, block.out_channels, block.bottleneck, 1, False)
        else:
            for out, inner, step, project in _residuals(block, stride, index == 0):
                _residual(walk, block, out, inner, step, project)
        stride = 1
    return Part(tuple(walk.layers), block.out_channels, block.stride)


def _residuals(block: SuperBlock, stride: int, first: bool) -> Iterator[tuple[int, int, int, bool]]:
    """Yield (output width, inner width, stride, always projected) of each residual in a layer."""
    out, inner = block.out_channels, block.bottleneck
    if block.kind == "basic":
        yield out, inner, stride, first
    elif block.kind == "bottleneck":
        yield out, inner, stride, first
        yield out, inner, 1, False
    else:
        yield inner, round8(block.expansion * inner), stride, first
        yield out, round8(block.expansion * out), 1, False


def _residual(
    walk: _Walk, block: SuperBlock, out: int, inner: int, stride: int, project: bool
) -> None:
    if project or stride > 1 or walk.channels != out:
        walk.shortcut(out, stride)
    if block.kind in ("basic", "led"):
        walk.conv(inner, block.kernel, stride)
        walk.conv(out, block.kernel)
    else:
        walk.conv(inner, 1)
        walk.conv(inner, block.kernel, stride, depthwise=block.kind == "inverted")
        walk.conv(out, 1)
    walk.add()


def _convnet_blocks(widths: tuple[int, ...], depths: tuple[int, ...]) -> list[Block]:
    if len(widths) != 4 or len(depths) != 3:
        raise ModelError(
            f"convnet takes 4 widths and 3 depths, got {list(widths)} and {list(depths)}"
        )
    return [
        (3, widths[0], -1),
        *(
            (before, out, depth)
            for before, out, depth in zip(widths, widths[1:], depths, strict=False)
        ),
    ]


def _convnet_part(block: tuple[int, int, int], width: int, height: int) -> Part:
    in_channels, out, residuals = block
    walk = _Walk(in_channels, width, height)
    kernel, stride = CONVNET_STEM if residuals < 0 else (3, 2)
    walk.conv(out, kernel, stride)
    for _ in range(residuals):
        walk.conv(out, 3)
        walk.conv(out, 3)
        walk.add()
    return Part(tuple(walk.layers), out, stride)


@lru_cache(maxsize=1 << 12)
def _neck_part(neck: PyramidSpec, channels: tuple[int, ...], width: int, height: int) -> Part:
    layers = []
    for stride, in_channels in zip((8, 16, 32), channels, strict=True):
        layers.append(
            Layer("conv", 1, 1, in_channels, neck.channels, width // stride, height // stride)
        )
    for stride in (16, 8):
        walk = _Walk(neck.channels, width // stride, height // stride)
        walk.layers.append(
            Layer("resize", 0, 1, neck.channels, neck.channels, walk.width, walk.height)
        )
        walk.add()
        layers += walk.layers
    return Part(tuple(layers), neck.channels, 1)


def output_widths(head: PlainHeadSpec | SCRFDHeadSpec) -> tuple[int, ...]:
    """Channels of a level's output convolutions: scores, boxes and, if predicted, landmarks."""
    widths = (head.anchors, 4 * head.anchors)
    return (*widths, 2 * head.landmarks * head.anchors) if head.landmarks else widths


@lru_cache(maxsize=1 << 12)
def _head_part(head: PlainHeadSpec, channels: int, width: int, height: int) -> Part:
    layers = []
    for stride in (8, 16, 32):
        walk = _Walk(channels, width // stride, height // stride)
        for _ in range(head.stack):
            if head.depthwise:
                walk.conv(walk.channels, 3, depthwise=True)
            walk.conv(head.channels, 1 if head.depthwise else 3)
        for out in output_widths(head):
            walk.layers.append(
                Layer("conv", head.kernel, 1, walk.channels, out, walk.width, walk.height)
            )
        layers += walk.layers
    return Part(tuple(layers), head.channels, 1)
