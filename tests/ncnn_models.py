"""Small ncnn models with every kind of layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.formats.ncnn import (
    NcnnLayer,
    NcnnModel,
    dump_bin,
    dump_param,
    parse_model,
    parse_param,
)

WIDTH, HEIGHT = 24, 16


def weights(*counts: int, dtype: str = "<f4") -> list[NDArray[Any]]:
    random = np.random.default_rng(sum(counts))
    if dtype == "i1":
        return [random.integers(-127, 128, count).astype(dtype) for count in counts]
    return [random.normal(size=count).astype(dtype) for count in counts]


def int8_weights(
    layer: dict[str, NDArray[Any]], rows: int, top: bool = False
) -> dict[str, NDArray[Any]]:
    scales = {"weight_scales": np.full(rows, 60.0, "<f4"), "bottom_scale": np.array([2.0], "<f4")}
    return layer | scales | ({"top_scale": np.array([3.0], "<f4")} if top else {})


CONV = {1: 3, 11: 3, 4: 1, 14: 1, 2: 1, 3: 1}
"""parameters of a 3x3 convolution of stride 1"""


def every_layer_type() -> NcnnModel:
    """A small graph with every known layer, every kind of weights and a chain of int8 layers."""
    image = NcnnLayer("Input", "input", (), ("input",), {0: WIDTH, 1: HEIGHT, 2: 3})
    return NcnnModel((image, *_convolutions(), *_others()))


def _convolutions() -> tuple[NcnnLayer, ...]:
    """Layers from blob ``input`` to the blobs ``3`` (float layers) and ``5`` (int8 layers)."""
    w = weights(108, 144, 24)
    eight = weights(144, 36, dtype="i1")
    bias4 = weights(4, 4, 4, 2)[0]
    return (
        NcnnLayer(
            "Convolution",
            "first",
            ("input",),
            ("1",),
            {0: 4, **CONV, 5: 1, 6: 108, 9: 1, 18: 127.5},
            {"weight": w[0], "bias": bias4},
        ),
        NcnnLayer("Split", "fork", ("1",), ("2", "3")),
        NcnnLayer(
            "Convolution",
            "eight",
            ("2",),
            ("4",),
            {0: 4, **CONV, 5: 1, 6: 144, 8: 102, 9: 2, 10: (0.125,)},
            int8_weights({"weight": eight[0], "bias": bias4}, 4, top=True),
        ),
        NcnnLayer(
            "ConvolutionDepthWise",
            "deep",
            ("4",),
            ("5",),
            {0: 4, **CONV, 6: 36, 7: 4, 8: 1},
            int8_weights({"weight": eight[1]}, 4),
        ),
    )


def _others() -> tuple[NcnnLayer, ...]:
    """Layers from the blobs ``3`` and ``5`` to ``out``."""
    (half,) = weights(16, dtype="<f2")
    _, gamma, beta, bias1 = weights(4, 4, 4, 2)
    return (
        NcnnLayer("Pooling", "pool", ("5",), ("6",), {0: 1, 1: 2, 2: 2, 5: 1}),
        NcnnLayer("Interp", "grow", ("6",), ("7",), {0: 2, 1: 2.0, 2: 2.0}),
        NcnnLayer("BinaryOp", "add", ("3", "7"), ("8",), {0: 0}),
        NcnnLayer("BinaryOp", "scale", ("8",), ("9",), {0: 2, 1: 1, 2: 0.5}),
        NcnnLayer(
            "GroupNorm",
            "norm",
            ("9",),
            ("10",),
            {0: 2, 1: 4, 2: 0.25, 3: 1},
            {"gamma": gamma, "beta": beta},
        ),
        NcnnLayer("ReLU", "relu", ("10",), ("11",)),
        NcnnLayer("Convolution", "half", ("11",), ("12",), {0: 4, 1: 1, 6: 16}, {"weight": half}),
        NcnnLayer("Pooling", "down", ("12",), ("13",), {1: 16, 2: 16, 5: 1}),
        NcnnLayer(
            "InnerProduct",
            "dense",
            ("13",),
            ("out",),
            {0: 2, 1: 1, 2: 8},
            {"weight": weights(8)[0], "bias": bias1},
        ),
    )


def joins_and_parts() -> NcnnModel:
    """A small graph with the additional layers of networks of six levels."""
    return NcnnModel(
        (
            NcnnLayer("Input", "input", (), ("input",), {0: WIDTH, 1: HEIGHT, 2: 3}),
            NcnnLayer(
                "MemoryData", "mean", (), ("1",), {0: 1, 1: 1, 2: 3}, {"data": weights(3)[0]}
            ),
            NcnnLayer("BinaryOp", "centre", ("input", "1"), ("2",), {0: 1}),
            NcnnLayer("Slice", "planes", ("2",), ("3", "4", "5"), {0: (1, 1, -233), 1: 0}),
            NcnnLayer("BinaryOp", "least", ("3", "4"), ("6",), {0: 5}),
            NcnnLayer("Split", "fork", ("6",), ("7", "8", "9")),
            NcnnLayer("BinaryOp", "most", ("5", "7"), ("10",), {0: 4}),
            NcnnLayer("Eltwise", "sum", ("10", "8"), ("11",), {0: 1, 1: (0.5, 0.25)}),
            NcnnLayer("Concat", "join", ("11", "9"), ("12",), {0: 0}),
            NcnnLayer("Interp", "resize", ("12",), ("out",), {0: 2, 3: 7, 4: 5, 6: 1}),
        )
    )


FULL, JOINS = every_layer_type(), joins_and_parts()
PARAM, BIN = dump_param(FULL), dump_bin(FULL)


def parse(param: bytes = PARAM, content: bytes = BIN) -> NcnnModel:
    model = parse_model(param, content)
    assert model.shapes(WIDTH, HEIGHT) == NcnnModel(parse_param(param)).shapes(WIDTH, HEIGHT)
    return model


def same(one: NcnnModel, other: NcnnModel) -> bool:
    def fields(layer: NcnnLayer) -> tuple[Any, ...]:
        return (
            layer.type,
            layer.name,
            layer.bottoms,
            layer.tops,
            dict(layer.params),
            {name: (value.dtype, value.tobytes()) for name, value in layer.weights.items()},
        )

    return [fields(a) for a in one.layers] == [fields(b) for b in other.layers]
