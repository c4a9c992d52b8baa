"""INT8 layers run by ncnn, against integer arithmetic by definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgeface.formats.ncnn import (
    NcnnLayer,
    NcnnModel,
    dump_bin,
    dump_param,
)
from edgeface.types import Doubles, Floats
from quantize.ncnn import quantize_layer, round_weights

pytest.importorskip("ncnn", reason="ncnn is not installed")


Integers = NDArray[np.int64]
RANDOM = np.random.default_rng(3)
INPUT = NcnnLayer("Input", "input", (), ("input",))


def run(model: NcnnModel, image: Floats | Doubles, blob: str, folder: Path) -> NDArray[Any]:
    """Value of ``blob`` that ncnn computes from the files of ``model`` for ``image`` [C, H, W]."""
    import ncnn

    (folder / "m.param").write_bytes(dump_param(model))
    (folder / "m.bin").write_bytes(dump_bin(model))
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param(str(folder / "m.param")) == net.load_model(str(folder / "m.bin")) == 0
    extractor = net.create_extractor()
    assert extractor.input("input", ncnn.Mat(image).clone()) == 0
    status, value = extractor.extract(blob)
    assert status == 0
    return np.array(value)


def layer(
    kind: str = "Convolution",
    *,
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    relu: bool = False,
    bias: bool = True,
    pad: float | None = None,
) -> NcnnLayer:
    """A float layer with random weights, padded to keep the size with the value ``pad`` unless it
    is None."""
    group = inputs if kind == "ConvolutionDepthWise" else 1
    count = outputs * (inputs // group) * kernel * kernel
    weights = {"weight": RANDOM.normal(size=count).astype("<f4")}
    if bias:
        weights["bias"] = RANDOM.normal(size=outputs).astype("<f4")
    if kind == "InnerProduct":
        return NcnnLayer(
            kind,
            "layer",
            ("input",),
            ("1",),
            {0: outputs, 1: int(bias), 2: count, 9: int(relu)},
            weights,
        )
    params: dict[int, Any] = {
        0: outputs,
        1: kernel,
        2: dilation,
        3: stride,
        5: int(bias),
        6: count,
        9: int(relu),
    }
    if group > 1:
        params[7] = group
    if pad is not None:
        params |= {4: dilation * (kernel // 2), 18: pad}
    return NcnnLayer(kind, "layer", ("input",), ("1",), params, weights)


def levels(values: NDArray[Any], scale: float) -> Integers:
    """``values`` rounded half away from zero to integers, 127 levels on each side."""
    scaled = values.astype(np.float32) * np.float32(scale)
    found: Integers = np.clip(
        np.trunc(scaled + np.copysign(np.float32(0.5), scaled)), -127, 127
    ).astype(np.int64)
    return found


def integer_sums(eight: NcnnLayer, image: Integers) -> Integers:
    """Sums of products of the int8 layer ``eight`` over int8 ``image`` [C, H, W], by definition."""
    weight: Integers = eight.weights["weight"].astype(np.int64)
    found: Integers
    if eight.type == "InnerProduct":
        found = weight.reshape(eight.integer(0), -1) @ image.ravel()
        return found
    get = eight.integer
    kernel, pad, stride, dilation = get(1), get(4), get(3, 1), get(2, 1)
    fill = int(eight.number(18, 0.0))
    image = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    extent = dilation * (kernel - 1) + 1
    windows = sliding_window_view(image, (extent, extent), axis=(1, 2))[
        :, ::stride, ::stride, ::dilation, ::dilation
    ]
    if eight.type == "ConvolutionDepthWise":
        found = np.einsum("chwij,cij->chw", windows, weight.reshape(-1, kernel, kernel))
    else:
        found = np.einsum("chwij,ocij->ohw", windows, weight.reshape(get(0), -1, kernel, kernel))
    return found


def dequantised(eight: NcnnLayer, sums: Integers) -> NDArray[np.float64]:
    """Float output of the layer for integer ``sums``: scales, bias and activation applied."""
    shape = (-1, *(1,) * (sums.ndim - 1))
    scale = eight.weights["bottom_scale"].astype(np.float64) * eight.weights["weight_scales"]
    value: NDArray[np.float64] = sums / scale.reshape(shape) + eight.weights.get(
        "bias", np.zeros(1)
    ).reshape(shape)
    return np.maximum(value, 0) if eight.integer(9) else value


def assert_same(found: NDArray[Any], eight: NcnnLayer, sums: Integers) -> None:
    """Assert that ``found`` is the output for ``sums``, up to the rounding of one float32
    multiplication and addition: integer sums are exact in any kernel.

    Depthwise kernels for x86 divide by scales with the reciprocal instruction, which has 12 exact
    bits.
    """
    expected = dequantised(eight, sums)
    largest = np.abs(
        dequantised(replace(eight, weights={**eight.weights, "bias": np.zeros(1)}), sums)
    ).max()
    assert largest > 1
    error = 2**-11 if eight.type == "ConvolutionDepthWise" else 1e-6
    np.testing.assert_allclose(found, expected, rtol=0, atol=error * largest)


LAYERS: dict[str, tuple[int, NcnnLayer]] = {
    "1x1": (16, layer(inputs=16, outputs=24)),
    "3x3, the winograd form": (32, layer(inputs=32, outputs=32, kernel=3, pad=0.0, relu=True)),
    "3x3 of odd widths": (7, layer(inputs=7, outputs=5, kernel=3, pad=0.0, bias=False)),
    "3x3 stride 2": (16, layer(inputs=16, outputs=16, kernel=3, stride=2, pad=0.0, relu=True)),
    "5x5 dilated": (8, layer(inputs=8, outputs=8, kernel=5, dilation=2, pad=0.0)),
    "6x6 stride 4 on an image": (3, layer(inputs=3, outputs=32, kernel=6, stride=4, relu=True)),
    "padded with a value": (8, layer(inputs=8, outputs=8, kernel=3, pad=1.25)),
    "pixels padded with a negative value": (3, layer(inputs=3, outputs=8, kernel=3, pad=-1.25)),
    "depthwise 3x3": (
        16,
        layer("ConvolutionDepthWise", inputs=16, outputs=16, kernel=3, pad=0.0, relu=True),
    ),
    "depthwise 5x5 stride 2": (
        6,
        layer("ConvolutionDepthWise", inputs=6, outputs=6, kernel=5, stride=2, pad=0.5),
    ),
    "inner product": (16, layer("InnerProduct", inputs=16 * 12 * 20, outputs=10, relu=True)),
}
"""name -> channels of the input, float layer"""


class TestArithmetic:
    @pytest.mark.parametrize("name", LAYERS)
    def test_layer(self, name: str, tmp_path: Path) -> None:
        inputs, one = LAYERS[name]
        image = RANDOM.normal(size=(inputs, 12, 20)).astype(np.float32)
        eight = quantize_layer(one, np.float32(40))
        found = run(NcnnModel((INPUT, eight)), image, "1", tmp_path)
        assert_same(found, eight, integer_sums(eight, levels(image, 40)))

    @pytest.mark.parametrize("second", ["1x1", "depthwise"])
    def test_chain(self, second: str, tmp_path: Path) -> None:
        """Layers hand over int8 with the same levels, except for rare values that float32 rounds to
        the neighbouring level."""
        first = quantize_layer(LAYERS["3x3, the winograd form"][1], np.float32(40), np.float32(6))
        after = (
            layer(inputs=32, outputs=16)
            if second == "1x1"
            else layer("ConvolutionDepthWise", inputs=32, outputs=32, kernel=3, pad=0.0)
        )
        last = replace(
            quantize_layer(after, np.float32(6)), name="last", bottoms=("1",), tops=("2",)
        )
        model = NcnnModel((INPUT, first, last))
        image = RANDOM.normal(size=(32, 12, 20)).astype(np.float32)
        expected = levels(dequantised(first, integer_sums(first, levels(image, 40))), 6)
        between = run(model, image, "1", tmp_path).astype(np.int64)
        assert expected.max() == 127 and np.abs(between - expected).max() <= 1
        assert (between != expected).mean() < 1e-3
        assert_same(run(model, image, "2", tmp_path), last, integer_sums(last, between))

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(
        hn.arrays(
            np.float32,
            hn.array_shapes(min_dims=2, max_dims=2, max_side=40),
            elements=st.floats(-1e6, 1e6, width=32) | st.floats(-(2.0**-80), 2.0**-80, width=32),
        )
    )
    def test_weights_are_rounded_to_the_nearest_level(self, weight: Doubles) -> None:
        found, scales = round_weights(weight)
        assert found.dtype == np.int8 and np.abs(found.astype(int)).max() <= 127
        assert scales.dtype == np.float32 and np.isfinite(scales).all() and (scales > 0).all()
        assert np.abs(found - weight.astype(np.float64) * scales[:, None]).max() < 0.5001
        used = np.abs(weight).max(axis=1) > 1e-20
        assert (np.abs(found.astype(int)).max(axis=1) == np.where(used, 127, 0)).all()

    def test_weights_that_read_pixels_are_diffused(self) -> None:
        """Each plane of a kernel keeps its sum; rounded to nearest levels, 108 weights drift by 3
        levels and more."""
        one = LAYERS["6x6 stride 4 on an image"][1]
        eight = quantize_layer(one, np.float32(1), of_pixels=True)
        exact = one.weights["weight"].reshape(32, -1) * eight.weights["weight_scales"][
            :, None
        ].astype(np.float64)
        error = (eight.weights["weight"].reshape(32, -1) - exact).reshape(32, 3, 36).sum(axis=2)
        assert (
            np.abs(error).max() < 1
        )  # usually half a level; up to one if the largest weight is clipped


def test_padding_moves_with_the_pixels(tmp_path: Path) -> None:
    """All pixels equal the value of the padding, so the first layer gives the same output
    everywhere, borders included, in int8 as in float."""
    from quantize.ncnn import _centre

    one = layer(inputs=3, outputs=8, kernel=3, stride=2, pad=128.0)
    subtract, moved = _centre(one)
    eight = quantize_layer(moved, np.float32(1))
    image = np.full((3, 16, 16), 128, np.float32)
    found = run(NcnnModel((INPUT, subtract, eight)), image, "1", tmp_path)
    expected = run(NcnnModel((INPUT, one)), image, "1", tmp_path)
    assert np.ptp(found, axis=(1, 2)).max() < 1e-4 * np.abs(found).max()
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
