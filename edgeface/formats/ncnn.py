"""ncnn model files, read and written without ncnn: the ``.param`` text and the ``.bin`` weights.

    7767517                                      magic
    3 3                                          layers, blobs
    Input        input 0 1 input                 type name #bottoms #tops bottoms tops id=value ...
    Convolution  conv  1 1 input 1 0=8 1=3 5=1 6=216 9=1
    ReLU         relu  1 1 1 2

    .bin, layer by layer:
    tag (u32) + weights    0 float32 | 0x01306B47 float16 | 0x000D4B38 int8, padded to 4 bytes
    the rest               float32 without a tag: biases, scales, normalisation

ncnn trusts its files: a wrong count makes it read or write outside its buffers. Every model that is
handed to it is therefore checked by :func:`parse_model` and :meth:`NcnnModel.shapes` first. They
accept only known layer types and parameters, and their time and memory are proportional to the size
of the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import ModelError
from edgeface.formats.ncnn_layers import (
    CONVOLUTIONS,
    KINDS,
    WEIGHTED,
    NcnnLayer,
    Segment,
    Shape,
    refused,
)
from edgeface.formats.ncnn_text import parse_param, write_param
from edgeface.schema import short

__all__ = [
    "CONVOLUTIONS",
    "WEIGHTED",
    "NcnnLayer",
    "NcnnModel",
    "dump_bin",
    "dump_param",
    "parse_model",
    "parse_param",
]

MAX_BLOB_ELEMENTS = 1 << 29
"""largest number of values in one activation: 2 GiB in float32"""

_TAGS: dict[np.dtype[Any], int] = {
    np.dtype("<f4"): 0,
    np.dtype("<f2"): 0x01306B47,
    np.dtype("i1"): 0x000D4B38,
}
_TYPES = {tag: dtype for dtype, tag in _TAGS.items()}


@dataclass(frozen=True, eq=False)
class NcnnModel:
    """A whole model; its layers are in file order, which is also an order of execution."""

    layers: tuple[NcnnLayer, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the blobs that the caller fills."""
        return tuple(layer.tops[0] for layer in self.layers if layer.type == "Input")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the blobs that no layer reads."""
        read = {name for layer in self.layers for name in layer.bottoms}
        return tuple(name for layer in self.layers for name in layer.tops if name not in read)

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) stated in the file, or the given size if the file states none."""
        layer = next(layer for layer in self.layers if layer.type == "Input")
        return layer.integer(1, height), layer.integer(0, width)

    def shapes(self, width: int, height: int) -> dict[str, Shape]:
        """Blob -> (channels, height, width) for an image of ``width`` x ``height`` px.

        Raises ModelError if a layer does not fit its inputs: shapes differ, the weight count does
        not match the channels, an output has a side below 1 or more than MAX_BLOB_ELEMENTS values,
        or 8-bit integers arrive where ncnn expects floats.
        """
        found: dict[str, Shape] = {}
        eight_bit: set[str] = set()
        for layer in self.layers:
            _check_integers(layer, eight_bit)
            bottoms = [found[name] for name in layer.bottoms]
            shape = (
                (3, height, width)
                if layer.type == "Input"
                else KINDS[layer.type].shape(layer, bottoms)
            )
            if layer.type == "Input" and self.input_size(width, height) != (height, width):
                stated = "x".join(map(str, self.input_size(0, 0)[::-1]))
                raise refused(layer, f"the size {stated}, not {width}x{height}")
            if min(shape) < 1 or math.prod(shape) > MAX_BLOB_ELEMENTS:
                raise refused(layer, f"an output of {'x'.join(map(str, shape))} values")
            found.update(dict.fromkeys(layer.tops, shape))
        for name in self.outputs:
            if name in eight_bit:
                raise ModelError(
                    f"ncnn output {short(name)} holds 8-bit integers: the layer before it"
                    " requantises"
                )
        return found


def parse_model(param: bytes, weights: bytes) -> NcnnModel:
    """Read both files. Raises ModelError on unknown, inconsistent, missing or surplus content."""
    reader = _Reader(weights)
    layers = []
    for layer in parse_param(param):
        values = {s.name: reader.take(s, layer) for s in KINDS[layer.type].segments(layer)}
        layers.append(
            NcnnLayer(layer.type, layer.name, layer.bottoms, layer.tops, layer.params, values)
        )
    reader.finish()
    return NcnnModel(tuple(layers))


def dump_param(model: NcnnModel) -> bytes:
    """The ``.param`` file of ``model``; equal models give equal bytes."""
    return write_param(model.layers)


def dump_bin(model: NcnnModel) -> bytes:
    """The ``.bin`` file of ``model``."""
    parts = []
    for layer in model.layers:
        for segment in KINDS[layer.type].segments(layer):
            values = np.ascontiguousarray(layer.weights[segment.name]).ravel()
            assert values.size == segment.count, (layer.name, segment, values.size)
            if segment.tagged:
                parts.append(_TAGS[values.dtype].to_bytes(4, "little"))
            data = values.tobytes() if segment.tagged else values.astype("<f4").tobytes()
            parts.append(data + bytes(-len(data) % 4))
    return b"".join(parts)


class _Reader:
    """Reads the ``.bin`` file from start to end and never past its end."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, segment: Segment, layer: NcnnLayer) -> NDArray[Any]:
        dtype: np.dtype[Any] = np.dtype("<f4")
        if segment.tagged:
            tag = int.from_bytes(self._bytes(4, layer), "little")
            if tag not in _TYPES:
                raise refused(layer, f"weights of an unknown kind (tag 0x{tag:08X})")
            dtype = _TYPES[tag]
            if (dtype == np.int8) != layer.int8:
                raise refused(
                    layer, f"weights of type {dtype.name} where parameter 8 is {layer.integer(8)}"
                )
        size = segment.count * dtype.itemsize
        values = np.frombuffer(self._bytes(size + -size % 4, layer), dtype, segment.count)
        if dtype != np.int8 and not np.isfinite(values).all():
            raise refused(layer, f"a {segment.name} that is not a finite number")
        if segment.name.endswith(("scale", "scales")) and (values < 0).any():
            raise refused(layer, f"a negative {segment.name}")
        return values

    def finish(self) -> None:
        if self._at != len(self._content):
            raise ModelError(
                f"the ncnn .bin file has {len(self._content) - self._at} bytes more than its layers"
                " need"
            )

    def _bytes(self, count: int, layer: NcnnLayer) -> bytes:
        if count > len(self._content) - self._at:
            raise refused(
                layer,
                f"{count} bytes of weights, the .bin file has {len(self._content) - self._at} left",
            )
        self._at += count
        return self._content[self._at - count : self._at]


def _check_integers(layer: NcnnLayer, eight_bit: set[str]) -> None:
    """Track blobs of 8-bit integers, and raise ModelError if ``layer`` cannot read them.

    Layers that requantise write them; only Split, which passes them on, and int8 convolutions can
    read them.
    """
    reads = any(name in eight_bit for name in layer.bottoms)
    if reads and not (layer.int8 and layer.type in CONVOLUTIONS) and layer.type != "Split":
        raise refused(layer, "8-bit integers to read, which only int8 convolutions can")
    if layer.requantises or (reads and layer.type == "Split"):
        eight_bit.update(layer.tops)
