"""ncnn model files, read and written without ncnn: the ``.param`` text and the ``.bin`` weights.

    7767517                                                    magic
    3 3                                                        layers, blobs
    Input        input 0 1 input                               type name #bottoms #tops bottoms tops id=value ...
    Convolution  conv  1 1 input 1 0=8 1=3 5=1 6=216 9=1
    ReLU         relu  1 1 1 2

    .bin, layer by layer:   tag (u32) + weights   0 float32 | 0x01306B47 float16 | 0x000D4B38 int8, padded to 4 bytes
                            the rest              float32 without a tag: biases, scales, normalisation

ncnn itself trusts its files: a wrong count makes it read or write outside its buffers. Everything that is handed to it
passes through :func:`parse_model` and :meth:`NcnnModel.shapes` first. They accept only layer types and parameters that
are known here, and take time and memory in proportion to the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import ModelError
from edgeface.schema import short

MAGIC = 7767517
MAX_PARAM_BYTES = 4 << 20
MAX_LAYERS = 5_000
MAX_BLOB_ELEMENTS = 1 << 29
"""of one activation: 2 GiB in float32"""
MAX_FANOUT = 1 << 12
"""bottoms or tops of one layer"""

Param = int | float | tuple[int | float, ...]
Shape = tuple[int, ...]
"""channels, height, width of an activation; (values,) after InnerProduct"""

_TAGS: dict[np.dtype[Any], int] = {np.dtype("<f4"): 0, np.dtype("<f2"): 0x01306B47, np.dtype("i1"): 0x000D4B38}
_TYPES = {tag: dtype for dtype, tag in _TAGS.items()}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_INT = re.compile(r"-?[0-9]{1,10}")
_FLOAT = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?(e[+-]?[0-9]{1,2})?")
"""ncnn's reader counts decimals in 32 bits, so a tenth one would overflow"""
_VALUE_CHARACTERS = 15
"""ncnn's reader cuts a value off here"""
_ARRAY = -23300
"""id 10 holding a list is written as -23310=count,value,..."""
_ACTIVATION_VALUES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 0, 5: 0, 6: 2}
"""none, relu, leaky relu, clip, sigmoid, mish, hard swish: how many parameters each has"""


@dataclass(frozen=True, eq=False)
class Layer:
    """One line of the ``.param`` file, with its weights."""

    type: str
    name: str
    bottoms: tuple[str, ...]
    """names of the blobs it reads"""
    tops: tuple[str, ...]
    """names of the blobs it writes"""
    params: Mapping[int, Param] = field(default_factory=dict)
    """id -> value; an id that is left out has ncnn's default"""
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """``weight`` (float32, float16 or int8), ``bias``, ``weight_scales``, ``bottom_scale``, ``top_scale``, ``gamma``,
    ``beta``, ``data``: flat, in the order of the file"""

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
        """Does it compute with 8-bit integers?"""
        return self.type in WEIGHTED and self.integer(8) != 0

    @property
    def requantises(self) -> bool:
        """Does it hand 8-bit integers to the next layer?"""
        return self.type in WEIGHTED and self.integer(8) > 100


@dataclass(frozen=True, eq=False)
class NcnnModel:
    """A whole model, in the order of its file, which is an order of execution."""

    layers: tuple[Layer, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the blobs that a caller fills in."""
        return tuple(layer.tops[0] for layer in self.layers if layer.type == "Input")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the blobs that no layer reads."""
        read = {name for layer in self.layers for name in layer.bottoms}
        return tuple(name for layer in self.layers for name in layer.tops if name not in read)

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) that the file states, or those given where it takes any."""
        layer = next(layer for layer in self.layers if layer.type == "Input")
        return layer.integer(1, height), layer.integer(0, width)

    def shapes(self, width: int, height: int) -> dict[str, Shape]:
        """Blob -> (channels, height, width) for an image of ``width`` x ``height`` px.

        Raises ModelError where a layer does not fit what it reads: shapes that differ, a weight count that belongs to
        other channels, sizes below 1 or beyond memory, 8-bit integers where ncnn expects floats.
        """
        found: dict[str, Shape] = {}
        eight_bit: set[str] = set()
        for layer in self.layers:
            _check_integers(layer, eight_bit)
            bottoms = [found[name] for name in layer.bottoms]
            shape = (3, height, width) if layer.type == "Input" else _KINDS[layer.type].shape(layer, bottoms)
            if layer.type == "Input" and self.input_size(width, height) != (height, width):
                raise _bad(layer, f"the size {'x'.join(map(str, self.input_size(0, 0)[::-1]))}, not {width}x{height}")
            if min(shape) < 1 or math.prod(shape) > MAX_BLOB_ELEMENTS:
                raise _bad(layer, f"an output of {'x'.join(map(str, shape))} values")
            found.update(dict.fromkeys(layer.tops, shape))
        for name in self.outputs:
            if name in eight_bit:
                raise ModelError(f"ncnn output {short(name)} holds 8-bit integers: the layer before it requantises")
        return found


def parse_model(param: bytes, weights: bytes) -> NcnnModel:
    """Read both files. Raises ModelError on anything unknown, inconsistent, missing or left over."""
    reader = _Reader(weights)
    layers = []
    for layer in parse_param(param):
        values = {s.name: reader.take(s, layer) for s in _KINDS[layer.type].segments(layer)}
        layers.append(Layer(layer.type, layer.name, layer.bottoms, layer.tops, layer.params, values))
    reader.finish()
    return NcnnModel(tuple(layers))


def parse_param(content: bytes) -> tuple[Layer, ...]:
    """Read the text file: layers without their weights. Raises ModelError."""
    if len(content) > MAX_PARAM_BYTES:
        raise ModelError(f"an ncnn .param file of {len(content)} bytes: accepted are at most {MAX_PARAM_BYTES >> 20} "
                         "MiB")
    if any(byte != 0x0A and not 0x20 <= byte < 0x7F for byte in set(content)):
        raise ModelError("an ncnn .param file holds bytes that are no plain text: a .param file in ncnn's binary form, "
                         "or not one at all")
    lines = content.decode("ascii").split("\n")
    if lines[0].strip() != str(MAGIC) or len(lines) < 2:
        raise ModelError(f"an ncnn .param file starts with {MAGIC}, this one with {short(lines[0])}")
    body = [line for line in lines[2:] if line.strip()]
    counts = [_integer(token, "the second line") for token in lines[1].split()]
    layers = tuple(_parse_line(line) for line in body[:MAX_LAYERS])
    blobs = sum(len(layer.tops) for layer in layers)
    if counts != [len(body), blobs] or not 0 < len(body) <= MAX_LAYERS:
        raise ModelError(f"the ncnn .param file announces {short(lines[1])} layers and blobs, it has {len(body)} and "
                         f"{blobs}")
    _check_graph(layers)
    return layers


def dump_param(model: NcnnModel) -> bytes:
    """Text file of ``model``; equal models give equal bytes."""
    blobs = sum(len(layer.tops) for layer in model.layers)
    lines = [str(MAGIC), f"{len(model.layers)} {blobs}"]
    for layer in model.layers:
        head = f"{layer.type:<24} {layer.name:<24} {len(layer.bottoms)} {len(layer.tops)}"
        params = (_write_param(key, layer.params[key]) for key in sorted(layer.params))
        lines.append(" ".join((head, *layer.bottoms, *layer.tops, *params)))
    return "\n".join((*lines, "")).encode("ascii")


def dump_bin(model: NcnnModel) -> bytes:
    """Weight file of ``model``."""
    parts = []
    for layer in model.layers:
        for segment in _KINDS[layer.type].segments(layer):
            values = np.ascontiguousarray(layer.weights[segment.name]).ravel()
            assert values.size == segment.count, (layer.name, segment, values.size)
            if segment.tagged:
                parts.append(_TAGS[values.dtype].to_bytes(4, "little"))
            data = values.tobytes() if segment.tagged else values.astype("<f4").tobytes()
            parts.append(data + bytes(-len(data) % 4))
    return b"".join(parts)


# Weights ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """A run of values in the ``.bin`` file."""

    name: str
    count: int
    tagged: bool = False


class _Reader:
    """The ``.bin`` file, read front to back, never past its end."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, segment: Segment, layer: Layer) -> NDArray[Any]:
        dtype: np.dtype[Any] = np.dtype("<f4")
        if segment.tagged:
            tag = int.from_bytes(self._bytes(4, layer), "little")
            if tag not in _TYPES:
                raise _bad(layer, f"weights of an unknown kind (tag 0x{tag:08X})")
            dtype = _TYPES[tag]
            if (dtype == np.int8) != layer.int8:
                raise _bad(layer, f"weights of type {dtype.name} where parameter 8 is {layer.integer(8)}")
        size = segment.count * dtype.itemsize
        values = np.frombuffer(self._bytes(size + -size % 4, layer), dtype, segment.count)
        if dtype != np.int8 and not np.isfinite(values).all():
            raise _bad(layer, f"a {segment.name} that is not a finite number")
        if segment.name.endswith(("scale", "scales")) and (values < 0).any():
            raise _bad(layer, f"a negative {segment.name}")
        return values

    def finish(self) -> None:
        if self._at != len(self._content):
            raise ModelError(f"the ncnn .bin file has {len(self._content) - self._at} bytes more than its layers need")

    def _bytes(self, count: int, layer: Layer) -> bytes:
        if count > len(self._content) - self._at:
            raise _bad(layer, f"{count} bytes of weights, the .bin file has {len(self._content) - self._at} left")
        self._at += count
        return self._content[self._at - count : self._at]


def _no_weights(layer: Layer) -> list[Segment]:
    return []


def _weighted_segments(layer: Layer) -> list[Segment]:
    """Weights, bias, and of an int8 layer its scales."""
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


def _memory_segments(layer: Layer) -> list[Segment]:
    return [Segment("data", math.prod(_memory_shape(layer, ())))]


def _group_norm_segments(layer: Layer) -> list[Segment]:
    channels = layer.integer(1)
    return [Segment("gamma", channels), Segment("beta", channels)] * layer.integer(3, 1)


# Shapes -------------------------------------------------------------------------------------------------------------


def _same_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    return bottoms[0]


def _window(layer: Layer, side: int, kernel: int, dilation: int, stride: int, pads: int) -> int:
    """Positions of a window along one side."""
    room = side + pads - dilation * (kernel - 1) - 1
    if room < 0:
        raise _bad(layer, f"a window of {kernel} values over {side}")
    return room // stride + 1


def _convolution_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    get = layer.integer
    channels, height, width = _image(layer, bottoms[0])
    kernel_w, outputs = get(1), get(0)
    kernel_h, group = get(11, kernel_w), get(7, 1)
    if channels % group or outputs % group:
        raise _bad(layer, f"{channels} channels to {outputs} in {group} groups")
    _check_count(layer, get(6), outputs * (channels // group) * kernel_w * kernel_h)
    left, top = get(4), get(14, get(4))
    return (outputs,
            _window(layer, height, kernel_h, get(12, get(2, 1)), get(13, get(3, 1)), top + get(16, top)),
            _window(layer, width, kernel_w, get(2, 1), get(3, 1), left + get(15, left)))


def _dense_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    _check_count(layer, layer.integer(2), layer.integer(0) * math.prod(bottoms[0]))
    return (layer.integer(0),)


def _pooling_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    get = layer.integer
    channels, height, width = _image(layer, bottoms[0])
    left, kernel_w, kernel_h = get(3), get(1), get(11, get(1))
    top = get(13, left)
    if max(left, get(14, left)) >= kernel_w or max(top, get(15, top)) >= kernel_h:
        raise _bad(layer, f"a padding that is not smaller than its window of {kernel_w}x{kernel_h}")
    return (channels,
            _window(layer, height, kernel_h, 1, get(12, get(2, 1)), top + get(15, top)),
            _window(layer, width, kernel_w, 1, get(2, 1), left + get(14, left)))


def _interp_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    channels, height, width = _image(layer, bottoms[0])
    if 3 in layer.params or 4 in layer.params:
        return (channels, layer.integer(3), layer.integer(4))
    # As ncnn computes it, in float32.
    return (channels, *(int(np.float32(side) * np.float32(layer.number(key, 1.0)))
                        for key, side in ((1, height), (2, width))))


def _group_norm_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    group, channels = layer.integer(0, 1), layer.integer(1)
    if _image(layer, bottoms[0])[0] != channels or channels % group:
        raise _bad(layer, f"{group} groups of {channels} channels, it reads {bottoms[0][0]}")
    return bottoms[0]


def _binary_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    if len(bottoms) != (1 if layer.integer(1) else 2):
        raise _bad(layer, f"{len(bottoms)} bottoms")
    by_channel = (*bottoms[0][:1], 1, 1)
    if bottoms[-1] not in (bottoms[0], by_channel):
        raise _bad(layer, f"operands of {bottoms[0]} and {bottoms[-1]}")
    return bottoms[0]


def _memory_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    return (layer.integer(2), layer.integer(1), layer.integer(0))


def _sum_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    factors = layer.params.get(1, ())
    if len(set(bottoms)) != 1 or not isinstance(factors, tuple) or len(factors) not in (0, len(bottoms)):
        raise _bad(layer, f"operands of {' and '.join(map(str, bottoms))}, factors {factors}")
    return bottoms[0]


def _concat_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    channels, sizes = zip(*((shape[0], shape[1:]) for shape in (_image(layer, b) for b in bottoms)), strict=True)
    if len(set(sizes)) != 1:
        raise _bad(layer, f"parts of {' and '.join(map(str, bottoms))}")
    return (sum(channels), *sizes[0])


def _slice_shape(layer: Layer, bottoms: Sequence[Shape]) -> Shape:
    """Of each part: all are equal."""
    channels, height, width = _image(layer, bottoms[0])
    sizes, count = layer.params[0], len(layer.tops)
    assert isinstance(sizes, tuple)
    part = channels // count
    if channels % count or len(sizes) != count or any(size not in (part, _REST) for size in sizes):
        raise _bad(layer, f"parts of {sizes} in {channels} channels: accepted are equal ones")
    return (part, height, width)


def _image(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise _bad(layer, "a bottom that is no image")
    return shape[0], shape[1], shape[2]


def _check_count(layer: Layer, stated: int, needed: int) -> None:
    if stated != needed:
        raise _bad(layer, f"{stated} weights, its shape needs {needed}")


def _check_integers(layer: Layer, eight_bit: set[str]) -> None:
    """Follow 8-bit activations: from a layer that requantises, through Split, to int8 convolutions and nothing else."""
    reads = any(name in eight_bit for name in layer.bottoms)
    if reads and not (layer.int8 and layer.type in CONVOLUTIONS) and layer.type != "Split":
        raise _bad(layer, "8-bit integers to read, which only int8 convolutions can")
    if layer.requantises or (reads and layer.type == "Split"):
        eight_bit.update(layer.tops)


# The layers that are known ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Range:
    """Values that a parameter may have; ``only`` overrides the limits."""

    kind: type
    low: float = 0
    high: float = 0
    only: tuple[int, ...] = ()
    items: type = float
    """of a tuple"""

    def accepts(self, value: Param) -> bool:
        """ncnn keeps what is written as it is written: an integer read as a float, or the reverse, is nonsense."""
        if self.only:
            return type(value) is int and value in self.only
        if self.kind is tuple:
            return isinstance(value, tuple) and len(value) <= self.high and all(type(v) is self.items for v in value)
        return type(value) is self.kind and self.low <= value <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class _Kind:
    """What there is to know of a layer type."""

    bottoms: tuple[int, int]
    """fewest and most"""
    tops: tuple[int, int]
    shape: Callable[[Layer, Sequence[Shape]], Shape] = _same_shape
    params: Mapping[int, _Range] = field(default_factory=dict)
    segments: Callable[[Layer], list[Segment]] = _no_weights


def _only(*values: int) -> _Range:
    return _Range(int, only=values)


_COUNT = _Range(int, 1, (1 << 31) - 1)
_SIDE = _Range(int, 1, 63)
_PAD = _Range(int, 0, 63)
_NUMBER = _Range(float, -3e38, 3e38)
_FLAG = _only(0, 1)
_ACTIVATION = {9: _only(*_ACTIVATION_VALUES), 10: _Range(tuple, high=2)}
_WINDOW = {1: _SIDE, 11: _SIDE, 3: _SIDE, 13: _SIDE, 4: _PAD, 14: _PAD, 15: _PAD, 16: _PAD}
_CONVOLUTION = {0: _COUNT, 2: _SIDE, 12: _SIDE, 5: _FLAG, 6: _COUNT, 18: _NUMBER, **_WINDOW, **_ACTIVATION}
_POOLING = {0: _FLAG, 1: _SIDE, 11: _SIDE, 2: _SIDE, 12: _SIDE, 3: _PAD, 13: _PAD, 14: _PAD, 15: _PAD, 4: _only(0),
            5: _only(1), 6: _FLAG, 7: _only(0)}
_REST = -233
"""a part of Slice that takes its share of what is left"""
_REQUIRED: dict[str, tuple[int, ...]] = {
    "Convolution": (0, 1, 6), "ConvolutionDepthWise": (0, 1, 6, 7), "InnerProduct": (0, 2), "Pooling": (1, 5),
    "GroupNorm": (0, 1), "Interp": (0,), "MemoryData": (0, 1, 2), "Slice": (0,),
}

_KINDS: dict[str, _Kind] = {
    "Input": _Kind((0, 0), (1, 1), params={0: _COUNT, 1: _COUNT, 2: _only(3)}),
    "Split": _Kind((1, 1), (2, MAX_FANOUT)),
    "ReLU": _Kind((1, 1), (1, 1), params={0: _NUMBER}),
    "Convolution": _Kind((1, 1), (1, 1), _convolution_shape, {**_CONVOLUTION, 8: _only(0, 2, 102)}, _weighted_segments),
    "ConvolutionDepthWise": _Kind((1, 1), (1, 1), _convolution_shape,
                                  {**_CONVOLUTION, 7: _COUNT, 8: _only(0, 1, 101)}, _weighted_segments),
    "InnerProduct": _Kind((1, 1), (1, 1), _dense_shape,
                          {0: _COUNT, 1: _FLAG, 2: _COUNT, 8: _only(0, 2), **_ACTIVATION}, _weighted_segments),
    "BinaryOp": _Kind((1, 2), (1, 1), _binary_shape, {0: _only(0, 1, 2, 3, 4, 5), 1: _FLAG, 2: _NUMBER}),
    "MemoryData": _Kind((0, 0), (1, 1), _memory_shape, {0: _COUNT, 1: _COUNT, 2: _COUNT}, _memory_segments),
    "Eltwise": _Kind((2, MAX_FANOUT), (1, 1), _sum_shape, {0: _only(1), 1: _Range(tuple, high=MAX_FANOUT)}),
    "Concat": _Kind((1, MAX_FANOUT), (1, 1), _concat_shape, {0: _only(0)}),
    "Slice": _Kind((1, 1), (2, MAX_FANOUT), _slice_shape,
                   {0: _Range(tuple, high=MAX_FANOUT, items=int), 1: _only(0)}),
    "Interp": _Kind((1, 1), (1, 1), _interp_shape,
                    {0: _only(1, 2), 1: _Range(float, 0.01, 64), 2: _Range(float, 0.01, 64), 3: _COUNT, 4: _COUNT,
                     6: _FLAG}),
    "GroupNorm": _Kind((1, 1), (1, 1), _group_norm_shape, {0: _COUNT, 1: _COUNT, 2: _NUMBER, 3: _FLAG},
                       _group_norm_segments),
    "Pooling": _Kind((1, 1), (1, 1), _pooling_shape, _POOLING),
}
CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
WEIGHTED = (*CONVOLUTIONS, "InnerProduct")
"""Layer types with a matrix of weights: those that can be int8."""


# Text ---------------------------------------------------------------------------------------------------------------


def _parse_line(line: str) -> Layer:
    tokens = line.split()
    if len(tokens) < 4 or not all(_NAME.fullmatch(token) for token in tokens[:2]):
        raise ModelError(f"an ncnn layer is written 'type name bottoms tops ...', not {short(line)}")
    kind, name = tokens[:2]
    if kind not in _KINDS:
        raise ModelError(f"ncnn layer {short(name)} has the type {short(kind)} (known: {', '.join(_KINDS)})")
    bottoms, tops = (_integer(token, short(name)) for token in tokens[2:4])
    known = _KINDS[kind]
    if not (known.bottoms[0] <= bottoms <= known.bottoms[1] and known.tops[0] <= tops <= known.tops[1]):
        raise ModelError(f"ncnn {kind} {short(name)}: {bottoms} bottoms and {tops} tops")
    names, rest = tokens[4 : 4 + bottoms + tops], tokens[4 + bottoms + tops :]
    if len(names) != bottoms + tops or not all(_NAME.fullmatch(blob) for blob in names):
        raise ModelError(f"ncnn {kind} {short(name)}: {bottoms + tops} names of blobs are to follow its counts")
    layer = Layer(kind, name, tuple(names[:bottoms]), tuple(names[bottoms:]), _parse_params(rest, kind, name))
    _check_params(layer)
    return layer


def _parse_params(tokens: Sequence[str], kind: str, name: str) -> dict[int, Param]:
    params: dict[int, Param] = {}
    for token in tokens:
        key, equals, text = token.partition("=")
        number = _integer(key, short(name))
        value: Param
        if number <= _ARRAY:
            number, (count, *items) = _ARRAY - number, text.split(",")
            value = tuple(_value(item, name) for item in items)
            if _integer(count, short(name)) != len(value):
                raise ModelError(f"ncnn {kind} {short(name)}: the list {short(token)} has {len(value)} values")
        else:
            value = _value(text, name)
        if not equals or number in params or number not in _KINDS[kind].params:
            raise ModelError(f"ncnn {kind} {short(name)}: parameter {short(token)} is unknown or given twice")
        params[number] = value
    return params


def _check_params(layer: Layer) -> None:
    """Every parameter in its range, none missing, and those that depend on each other in agreement."""
    for key, value in layer.params.items():
        if not _KINDS[layer.type].params[key].accepts(value):
            raise _bad(layer, f"parameter {key} = {short(value)}")
    for key in _REQUIRED.get(layer.type, ()):
        if key not in layer.params:
            raise _bad(layer, f"no parameter {key}")
    values = layer.params.get(10, ())
    assert isinstance(values, tuple)
    if 9 in _KINDS[layer.type].params and len(values) != _ACTIVATION_VALUES[layer.integer(9)]:
        raise _bad(layer, f"activation {layer.integer(9)} with {len(values)} parameters")


def _check_graph(layers: Sequence[Layer]) -> None:
    """Names are used once, blobs are written before they are read, and read at most once (Split copies)."""
    names: set[str] = set()
    written: set[str] = set()
    read: set[str] = set()
    for layer in layers:
        if layer.name in names:
            raise _bad(layer, "a name that another layer has")
        names.add(layer.name)
        for blob in layer.bottoms:
            if blob not in written or blob in read:
                raise _bad(layer, f"bottom {short(blob)}, which "
                                  f"{'two layers read' if blob in read else 'no layer before it writes'}")
            read.add(blob)
        for blob in layer.tops:
            if blob in written:
                raise _bad(layer, f"top {short(blob)}, which is written twice")
            written.add(blob)
    if sum(layer.type == "Input" for layer in layers) != 1:
        raise ModelError("an ncnn model of ours has exactly one Input layer")


def _write_param(key: int, value: Param) -> str:
    if isinstance(value, tuple):
        return f"{_ARRAY - key}={','.join((str(len(value)), *map(_write_value, value)))}"
    return f"{key}={_write_value(value)}"


def _write_value(value: int | float) -> str:
    """ncnn takes a value with a point or an ``e`` for a float; shortest digits that give the same float32."""
    if isinstance(value, int):
        return str(value)
    text = str(np.float32(value))
    if not _FLOAT.fullmatch(text):
        text = np.format_float_scientific(np.float32(value))
    assert _FLOAT.fullmatch(text) and len(text) <= _VALUE_CHARACTERS, text
    return text


def _value(text: str, name: str) -> int | float:
    if len(text) <= _VALUE_CHARACTERS:
        if _INT.fullmatch(text):
            return _integer(text, short(name))
        if _FLOAT.fullmatch(text):
            return float(np.float32(text)) if abs(float(text)) < 3e38 else _refuse(text, name)
    return _refuse(text, name)


def _integer(text: str, where: str) -> int:
    value = int(text) if _INT.fullmatch(text) else None
    if value is None or not -(1 << 31) <= value < 1 << 31:
        raise ModelError(f"ncnn .param, {where}: expected a whole number, got {short(text)}")
    return value


def _refuse(text: str, name: str) -> float:
    raise ModelError(f"ncnn layer {short(name)}: expected a number of at most {_VALUE_CHARACTERS} characters, got "
                     f"{short(text)}")


def _bad(layer: Layer, what: str) -> ModelError:
    return ModelError(f"ncnn {layer.type} {short(layer.name)} has {what}")
