"""The known ncnn layer types: their parameters, weights and output shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import ModelError
from edgeface.schema import short

MAX_FANOUT = 1 << 12
"""largest number of bottoms or of tops of one layer"""

Param = int | float | tuple[int | float, ...]
Shape = tuple[int, ...]
"""channels, height, width of an activation; (values,) after InnerProduct"""

CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
WEIGHTED = (*CONVOLUTIONS, "InnerProduct")
"""Layer types with a weight matrix; only these can be int8."""
ACTIVATION_VALUES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 0, 5: 0, 6: 2}
"""activation (none, relu, leaky relu, clip, sigmoid, mish, hard swish) -> number of parameters"""


@dataclass(frozen=True, eq=False)
class NcnnLayer:
    """One line of the ``.param`` file, with its weights."""

    type: str
    name: str
    bottoms: tuple[str, ...]
    """names of the blobs it reads"""
    tops: tuple[str, ...]
    """names of the blobs it writes"""
    params: Mapping[int, Param] = field(default_factory=dict)
    """id -> value; a missing id has ncnn's default"""
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """``weight`` (float32, float16 or int8), ``bias``, ``weight_scales``, ``bottom_scale``,
    ``top_scale``, ``gamma``, ``beta``, ``data``: flat, in the order of the file"""

    def integer(self, key: int, default: int = 0) -> int:
        """Integer parameter ``key``."""
        value = self.params.get(key, default)
        assert isinstance(value, int)
        return value

    def number(self, key: int, default: float) -> float:
        """Number parameter ``key``."""
        value = self.params.get(key, default)
        assert isinstance(value, float)
        return value

    @property
    def int8(self) -> bool:
        """True if the layer computes with 8-bit integers."""
        return self.type in WEIGHTED and self.integer(8) != 0

    @property
    def requantises(self) -> bool:
        """True if the layer's output is 8-bit integers."""
        return self.type in WEIGHTED and self.integer(8) > 100


@dataclass(frozen=True)
class Segment:
    """A run of values in the ``.bin`` file."""

    name: str
    count: int
    tagged: bool = False


def refused(layer: NcnnLayer, what: str) -> ModelError:
    """A ModelError saying that ``layer`` has ``what``."""
    return ModelError(f"ncnn {layer.type} {short(layer.name)} has {what}")


def _no_weights(layer: NcnnLayer) -> list[Segment]:
    return []


def _weighted_segments(layer: NcnnLayer) -> list[Segment]:
    """Weights, bias and, for an int8 layer, scales."""
    dense = layer.type == "InnerProduct"
    outputs, bias = layer.integer(0), layer.integer(1 if dense else 5)
    segments = [Segment("weight", layer.integer(2 if dense else 6), tagged=True)]
    segments += [Segment("bias", outputs)] * bias
    if layer.int8:
        scales = layer.integer(7, 1) if layer.type == "ConvolutionDepthWise" else outputs
        segments += [Segment("weight_scales", scales), Segment("bottom_scale", 1)]
    if layer.requantises:
        segments += [Segment("top_scale", 1)]
    return segments


def _memory_segments(layer: NcnnLayer) -> list[Segment]:
    return [Segment("data", math.prod(_memory_shape(layer, ())))]


def _group_norm_segments(layer: NcnnLayer) -> list[Segment]:
    channels = layer.integer(1)
    return [Segment("gamma", channels), Segment("beta", channels)] * layer.integer(3, 1)


def _same_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    return bottoms[0]


def _window(layer: NcnnLayer, side: int, kernel: int, dilation: int, stride: int, pads: int) -> int:
    """Number of positions of a window along one side. Raises ModelError if it does not fit."""
    room = side + pads - dilation * (kernel - 1) - 1
    if room < 0:
        raise refused(layer, f"a window of {kernel} values over {side}")
    return room // stride + 1


def _convolution_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    get = layer.integer
    channels, height, width = _image(layer, bottoms[0])
    kernel_w, outputs = get(1), get(0)
    kernel_h, group = get(11, kernel_w), get(7, 1)
    if channels % group or outputs % group:
        raise refused(layer, f"{channels} channels to {outputs} in {group} groups")
    _check_count(layer, get(6), outputs * (channels // group) * kernel_w * kernel_h)
    left, top = get(4), get(14, get(4))
    return (
        outputs,
        _window(
            layer, height, kernel_h, get(12, get(2, 1)), get(13, get(3, 1)), top + get(16, top)
        ),
        _window(layer, width, kernel_w, get(2, 1), get(3, 1), left + get(15, left)),
    )


def _dense_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    _check_count(layer, layer.integer(2), layer.integer(0) * math.prod(bottoms[0]))
    return (layer.integer(0),)


def _pooling_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    get = layer.integer
    channels, height, width = _image(layer, bottoms[0])
    left, kernel_w, kernel_h = get(3), get(1), get(11, get(1))
    top = get(13, left)
    if max(left, get(14, left)) >= kernel_w or max(top, get(15, top)) >= kernel_h:
        raise refused(
            layer, f"a padding that is not smaller than its window of {kernel_w}x{kernel_h}"
        )
    return (
        channels,
        _window(layer, height, kernel_h, 1, get(12, get(2, 1)), top + get(15, top)),
        _window(layer, width, kernel_w, 1, get(2, 1), left + get(14, left)),
    )


def _interp_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    channels, height, width = _image(layer, bottoms[0])
    if 3 in layer.params or 4 in layer.params:
        return (channels, layer.integer(3), layer.integer(4))
    # As ncnn computes it, in float32.
    return (
        channels,
        *(
            int(np.float32(side) * np.float32(layer.number(key, 1.0)))
            for key, side in ((1, height), (2, width))
        ),
    )


def _group_norm_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    group, channels = layer.integer(0, 1), layer.integer(1)
    if _image(layer, bottoms[0])[0] != channels or channels % group:
        raise refused(layer, f"{group} groups of {channels} channels, it reads {bottoms[0][0]}")
    return bottoms[0]


def _binary_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    if len(bottoms) != (1 if layer.integer(1) else 2):
        raise refused(layer, f"{len(bottoms)} bottoms")
    by_channel = (*bottoms[0][:1], 1, 1)
    if bottoms[-1] not in (bottoms[0], by_channel):
        raise refused(layer, f"operands of {bottoms[0]} and {bottoms[-1]}")
    return bottoms[0]


def _memory_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    return (layer.integer(2), layer.integer(1), layer.integer(0))


def _sum_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    factors = layer.params.get(1, ())
    if (
        len(set(bottoms)) != 1
        or not isinstance(factors, tuple)
        or len(factors) not in (0, len(bottoms))
    ):
        raise refused(layer, f"operands of {' and '.join(map(str, bottoms))}, factors {factors}")
    return bottoms[0]


def _concat_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    channels, sizes = zip(
        *((shape[0], shape[1:]) for shape in (_image(layer, b) for b in bottoms)), strict=True
    )
    if len(set(sizes)) != 1:
        raise refused(layer, f"parts of {' and '.join(map(str, bottoms))}")
    return (sum(channels), *sizes[0])


def _slice_shape(layer: NcnnLayer, bottoms: Sequence[Shape]) -> Shape:
    """Shape of each part; all parts are equal."""
    channels, height, width = _image(layer, bottoms[0])
    sizes, count = layer.params[0], len(layer.tops)
    assert isinstance(sizes, tuple)
    part = channels // count
    if channels % count or len(sizes) != count or any(size not in (part, _REST) for size in sizes):
        raise refused(layer, f"parts of {sizes} in {channels} channels: accepted are equal ones")
    return (part, height, width)


def _image(layer: NcnnLayer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise refused(layer, "a bottom that is no image")
    return shape[0], shape[1], shape[2]


def _check_count(layer: NcnnLayer, stated: int, needed: int) -> None:
    if stated != needed:
        raise refused(layer, f"{stated} weights, its shape needs {needed}")


@dataclass(frozen=True)
class _Range:
    """Values that a parameter may have; ``only`` overrides the limits.

    For a tuple, ``high`` is the largest number of items.
    """

    kind: type
    low: float = 0
    high: float = 0
    only: tuple[int, ...] = ()
    items: type = float
    """type of the items of a tuple"""

    def accepts(self, value: Param) -> bool:
        """True if ``value`` has the right type and is in range.

        ncnn stores a value in the type in which it is written; an integer read as a float, or the
        reverse, is nonsense.
        """
        if self.only:
            return type(value) is int and value in self.only
        if self.kind is tuple:
            return (
                isinstance(value, tuple)
                and len(value) <= self.high
                and all(type(v) is self.items for v in value)
            )
        return type(value) is self.kind and self.low <= value <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class _Kind:
    """Rules for one layer type."""

    bottoms: tuple[int, int]
    """fewest and most; ``tops`` likewise"""
    tops: tuple[int, int]
    shape: Callable[[NcnnLayer, Sequence[Shape]], Shape] = _same_shape
    params: Mapping[int, _Range] = field(default_factory=dict)
    segments: Callable[[NcnnLayer], list[Segment]] = _no_weights


def _only(*values: int) -> _Range:
    return _Range(int, only=values)


_COUNT = _Range(int, 1, (1 << 31) - 1)
_SIDE = _Range(int, 1, 63)
_PAD = _Range(int, 0, 63)
_NUMBER = _Range(float, -3e38, 3e38)
_FLAG = _only(0, 1)
_ACTIVATION = {9: _only(*ACTIVATION_VALUES), 10: _Range(tuple, high=2)}
_WINDOW = {1: _SIDE, 11: _SIDE, 3: _SIDE, 13: _SIDE, 4: _PAD, 14: _PAD, 15: _PAD, 16: _PAD}
_CONVOLUTION = {
    0: _COUNT,
    2: _SIDE,
    12: _SIDE,
    5: _FLAG,
    6: _COUNT,
    18: _NUMBER,
    **_WINDOW,
    **_ACTIVATION,
}
_POOLING = {
    0: _FLAG,
    1: _SIDE,
    11: _SIDE,
    2: _SIDE,
    12: _SIDE,
    3: _PAD,
    13: _PAD,
    14: _PAD,
    15: _PAD,
    4: _only(0),
    5: _only(1),
    6: _FLAG,
    7: _only(0),
}
_REST = -233
"""size of a part of Slice that takes an equal share of the remaining channels"""
REQUIRED: dict[str, tuple[int, ...]] = {
    "Convolution": (0, 1, 6),
    "ConvolutionDepthWise": (0, 1, 6, 7),
    "InnerProduct": (0, 2),
    "Pooling": (1, 5),
    "GroupNorm": (0, 1),
    "Interp": (0,),
    "MemoryData": (0, 1, 2),
    "Slice": (0,),
}

KINDS: dict[str, _Kind] = {
    "Input": _Kind((0, 0), (1, 1), params={0: _COUNT, 1: _COUNT, 2: _only(3)}),
    "Split": _Kind((1, 1), (2, MAX_FANOUT)),
    "ReLU": _Kind((1, 1), (1, 1), params={0: _NUMBER}),
    "Convolution": _Kind(
        (1, 1),
        (1, 1),
        _convolution_shape,
        {**_CONVOLUTION, 8: _only(0, 2, 102)},
        _weighted_segments,
    ),
    "ConvolutionDepthWise": _Kind(
        (1, 1),
        (1, 1),
        _convolution_shape,
        {**_CONVOLUTION, 7: _COUNT, 8: _only(0, 1, 101)},
        _weighted_segments,
    ),
    "InnerProduct": _Kind(
        (1, 1),
        (1, 1),
        _dense_shape,
        {0: _COUNT, 1: _FLAG, 2: _COUNT, 8: _only(0, 2), **_ACTIVATION},
        _weighted_segments,
    ),
    "BinaryOp": _Kind(
        (1, 2), (1, 1), _binary_shape, {0: _only(0, 1, 2, 3, 4, 5), 1: _FLAG, 2: _NUMBER}
    ),
    "MemoryData": _Kind(
        (0, 0), (1, 1), _memory_shape, {0: _COUNT, 1: _COUNT, 2: _COUNT}, _memory_segments
    ),
    "Eltwise": _Kind(
        (2, MAX_FANOUT), (1, 1), _sum_shape, {0: _only(1), 1: _Range(tuple, high=MAX_FANOUT)}
    ),
    "Concat": _Kind((1, MAX_FANOUT), (1, 1), _concat_shape, {0: _only(0)}),
    "Slice": _Kind(
        (1, 1),
        (2, MAX_FANOUT),
        _slice_shape,
        {0: _Range(tuple, high=MAX_FANOUT, items=int), 1: _only(0)},
    ),
    "Interp": _Kind(
        (1, 1),
        (1, 1),
        _interp_shape,
        {
            0: _only(1, 2),
            1: _Range(float, 0.01, 64),
            2: _Range(float, 0.01, 64),
            3: _COUNT,
            4: _COUNT,
            6: _FLAG,
        },
    ),
    "GroupNorm": _Kind(
        (1, 1),
        (1, 1),
        _group_norm_shape,
        {0: _COUNT, 1: _COUNT, 2: _NUMBER, 3: _FLAG},
        _group_norm_segments,
    ),
    "Pooling": _Kind((1, 1), (1, 1), _pooling_shape, _POOLING),
}
