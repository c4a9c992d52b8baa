"""INT8 for ncnn: each layer computes what the format says, and the whole finds what the float file
finds."""

from __future__ import annotations

from collections.abc import Callable
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

from edgeface.bundle import Bundle, write_bundle
from edgeface.formats.ncnn import (
    CONVOLUTIONS,
    WEIGHTED,
    NcnnLayer,
    NcnnModel,
    dump_bin,
    dump_param,
    parse_model,
)
from edgeface.images import letterbox, read_image
from edgeface.runners import open_runner
from edgeface.types import Doubles, Floats
from quantize.base import Quantized
from quantize.ncnn import CENTRE, NcnnQuantizer, quantize_layer, round_weights

pytest.importorskip("ncnn", reason="ncnn is not installed")
Integers = NDArray[np.int64]
RANDOM = np.random.default_rng(3)
INPUT = NcnnLayer("Input", "input", (), ("input",))


def run(model: NcnnModel, image: Floats | Doubles, blob: str, folder: Path) -> NDArray[Any]:
    """``blob`` as ncnn computes it from the files of ``model`` for ``image`` [C, H, W]."""
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
    """A float layer with random weights; ``pad``: the value of its padding, which keeps the
    size."""
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
    """Round half away from zero, 127 levels on each side."""
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
    """Float values that the layer stands for: scales, bias, activation."""
    shape = (-1, *(1,) * (sums.ndim - 1))
    scale = eight.weights["bottom_scale"].astype(np.float64) * eight.weights["weight_scales"]
    value: NDArray[np.float64] = sums / scale.reshape(shape) + eight.weights.get(
        "bias", np.zeros(1)
    ).reshape(shape)
    return np.maximum(value, 0) if eight.integer(9) else value


def assert_same(found: NDArray[Any], eight: NcnnLayer, sums: Integers) -> None:
    """Integers are exact in any kernel; what is left is the rounding of one float32 multiplication
    and addition.

    Depthwise kernels for x86 divide by scales with the reciprocal instruction, of which 12 bits are
    right.
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
        """int8 handed from layer to layer: the same levels, but for a value that float32 rounds
        across a boundary."""
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
        """Each plane of a kernel keeps its sum; by nearest levels 108 weights drift by 3 levels and
        more."""
        one = LAYERS["6x6 stride 4 on an image"][1]
        eight = quantize_layer(one, np.float32(1), of_pixels=True)
        exact = one.weights["weight"].reshape(32, -1) * eight.weights["weight_scales"][
            :, None
        ].astype(np.float64)
        error = (eight.weights["weight"].reshape(32, -1) - exact).reshape(32, 3, 36).sum(axis=2)
        assert (
            np.abs(error).max() < 1
        )  # half a level; one where the largest weight is clipped on the way


@pytest.fixture(scope="module")
def photos(astronaut: Any, hopper_path: Path) -> list[Any]:
    """uint8 RGB [128, 160, 3]: two portraits and their mirror images."""
    pair = [letterbox(image, 160, 128)[0] for image in (astronaut, read_image(hopper_path))]
    return pair + [np.ascontiguousarray(image[:, ::-1]) for image in pair]


@pytest.fixture(scope="module")
def float_bundle(trained: Callable[[str], Bundle]) -> Bundle:
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    return trained("ncnn")


@pytest.fixture(scope="module")
def quantizer(float_bundle: Bundle, photos: list[Any]) -> NcnnQuantizer:
    return NcnnQuantizer(float_bundle, photos, "mse")


def as_bundle(float_bundle: Bundle, quantized: Quantized, folder: Path) -> Bundle:
    manifest = replace(float_bundle.manifest, precision="int8")
    stem = Path(manifest.primary).stem
    return write_bundle(
        folder / "int8", manifest, {stem + suffix: data for suffix, data in quantized.files.items()}
    )


def signal_to_noise(reference: Bundle, other: Bundle, images: list[Any]) -> dict[str, float]:
    """Head -> variance of the reference / mean squared difference, in dB."""
    with open_runner(reference) as one, open_runner(other) as two:
        pairs = [(one.run(image[None]), two.run(image[None])) for image in images]
    return {
        name: float(
            10
            * np.log10(
                np.var([a[name] for a, _ in pairs])
                / max(np.mean([(a[name] - b[name]) ** 2 for a, b in pairs]), 1e-20)
            )
        )
        for name in pairs[0][0]
    }


class TestWholeModel:
    def test_it_names_its_layers(self, quantizer: NcnnQuantizer, float_bundle: Bundle) -> None:
        model = parse_model(float_bundle.read(), float_bundle.read("edgeface-n.bin"))
        assert quantizer.layers == tuple(
            layer.name for layer in model.layers if layer.type in WEIGHTED
        )
        kinds = {layer.name: layer.type for layer in model.layers}
        assert {kinds[name] for name in quantizer.float_layers} == {"BinaryOp", "ReLU", "Interp"}

    def test_what_hands_over_int8(self, quantizer: NcnnQuantizer) -> None:
        """A layer requantises exactly if all that read it, through any Split, are int8
        convolutions."""
        kept_in_float = quantizer.layers[4]
        model = self._parsed(quantizer.quantize([kept_in_float]))
        sources: dict[str, str] = {}
        readers: dict[str, list[NcnnLayer]] = {}
        for one in model.layers:
            for blob in one.tops:
                sources[blob] = sources[one.bottoms[0]] if one.type == "Split" else blob
            if one.type != "Split":
                for blob in one.bottoms:
                    readers.setdefault(sources[blob], []).append(one)
        found = {one.name for one in model.layers if one.requantises}
        assert found == {
            one.name
            for one in model.layers
            if one.int8
            and one.tops[0] in readers
            and all(reader.int8 and reader.type in CONVOLUTIONS for reader in readers[one.tops[0]])
        }
        assert len(found) > 4 and kept_in_float not in found

    def test_size(self, quantizer: NcnnQuantizer, float_bundle: Bundle) -> None:
        size = sum(len(data) for data in quantizer.quantize().files.values())
        whole = sum(len(float_bundle.read(name)) for name in float_bundle.manifest.files)
        assert size <= 0.35 * whole

    def test_what_ncnn_would_pad_wrongly_stays_in_float(
        self, float_bundle: Bundle, photos: list[Any], tmp_path: Path
    ) -> None:
        """Packed int8 channels are padded with -1 where any other negative value is meant."""
        model = read(float_bundle)
        at = next(i for i, one in enumerate(model.layers) if one.name == "convrelu_1")
        layers = list(model.layers)
        layers[at] = replace(layers[at], params={**layers[at].params, 18: -0.5})
        changed = NcnnModel(tuple(layers))
        bundle = write_bundle(
            tmp_path / "b",
            float_bundle.manifest,
            {"edgeface-n.param": dump_param(changed), "edgeface-n.bin": dump_bin(changed)},
        )
        quantizer = NcnnQuantizer(bundle, photos[:1], "max")
        assert "convrelu_1" in quantizer.float_layers and "convrelu_1" not in quantizer.layers
        one = parse_model(*quantizer.quantize().files.values()).layers[
            at + 1
        ]  # after the subtraction
        assert one.name == "convrelu_1" and not one.int8

    def test_same_arguments_same_bytes(
        self, quantizer: NcnnQuantizer, float_bundle: Bundle, photos: list[Any]
    ) -> None:
        first = quantizer.quantize(quantizer.layers[3:5])
        assert quantizer.quantize(list(quantizer.layers[4:2:-1])) == first
        assert NcnnQuantizer(float_bundle, photos, "mse").quantize(quantizer.layers[3:5]) == first

    def test_all_reverted_is_the_float_file(
        self, quantizer: NcnnQuantizer, float_bundle: Bundle
    ) -> None:
        files = quantizer.quantize(quantizer.layers).files
        assert files[".param"] == float_bundle.read() and files[".bin"] == float_bundle.read(
            "edgeface-n.bin"
        )

    def test_reverted_layers_are_float(self, quantizer: NcnnQuantizer) -> None:
        reverted = quantizer.layers[::3]
        model = self._parsed(quantizer.quantize(reverted))
        assert {one.name for one in model.layers if one.type in WEIGHTED and not one.int8} == set(
            reverted
        )

    @pytest.mark.parametrize("scale", NcnnQuantizer.scales)
    def test_heads(
        self, scale: str, float_bundle: Bundle, photos: list[Any], tmp_path: Path
    ) -> None:
        """The worst head, cls_32 of the shipped weights, has 12.7 dB (percentile) to 13.5 dB (kl)
        on these photos, the others 17 and more; a wrong scale leaves below 10."""
        eight = as_bundle(
            float_bundle, NcnnQuantizer(float_bundle, photos, scale).quantize(), tmp_path
        )
        found = signal_to_noise(float_bundle, eight, photos)
        assert min(found.values()) > 12, found

    def test_pixels_lose_nothing_in_the_first_layer(
        self, quantizer: NcnnQuantizer, float_bundle: Bundle, photos: list[Any], tmp_path: Path
    ) -> None:
        """Only its weights are rounded, and so that errors of neighbours cancel: 38 dB, without
        that 25."""
        eight = as_bundle(float_bundle, quantizer.quantize(quantizer.layers[1:]), tmp_path)
        found = signal_to_noise(float_bundle, eight, photos)
        assert np.mean(list(found.values())) > 34, found
        subtract = next(one for one in read(eight).layers if one.tops == ("input_centred",))
        assert dict(subtract.params) == {0: 1, 1: 1, 2: float(CENTRE)}

    def test_the_input_layer_in_float_has_no_subtraction(self, quantizer: NcnnQuantizer) -> None:
        model = self._parsed(quantizer.quantize(quantizer.layers[:1]))
        assert not any("input_centred" in one.tops for one in model.layers)

    def _parsed(self, quantized: Quantized) -> NcnnModel:
        model = parse_model(quantized.files[".param"], quantized.files[".bin"])
        model.shapes(160, 128)
        return model


def read(bundle: Bundle) -> NcnnModel:
    return parse_model(bundle.read(), bundle.read(f"{bundle.manifest.model}.bin"))


@pytest.mark.parametrize(
    "name",
    [
        "damofd-0.5g-bn",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "damofd-0.5g",
                "damofd-2.5g",
                "damofd-2.5g-bn",
                "scrfd-0.5g",
                "scrfd-0.5g-bn",
                "scrfd-2.5g",
                "scrfd-2.5g-bn",
            )
        ),
    ],
)
def test_published_networks(name: str, photos: list[Any], tmp_path: Path) -> None:
    """Depthwise layers, group norm, and pixels padded with their mean, which int8 has to pad with
    too.

    The weights are random: group norm then blows up the error of layers that a trained network
    would not have.
    """
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("pnnx", reason="pnnx is not installed")
    from export import ExportRequest, export_model
    from export.source import random_source

    float_bundle = export_model(
        random_source(name, 0), ExportRequest("ncnn", "fp32", 160, 128), tmp_path
    ).bundle
    quantizer = NcnnQuantizer(float_bundle, photos, "mse")
    assert {"Pooling", "GroupNorm", "BinaryOp", "ReLU", "Interp"} >= {
        one.type for one in read(float_bundle).layers if one.name in quantizer.float_layers
    }
    eight = as_bundle(float_bundle, quantizer.quantize(), tmp_path)
    found = signal_to_noise(float_bundle, eight, photos)
    assert min(found.values()) > 10, found


def test_padding_moves_with_the_pixels(tmp_path: Path) -> None:
    """Pixels of the mean all over, borders included: the first layer gives the same everywhere, in
    int8 as in float."""
    from quantize.ncnn import _centre

    one = layer(inputs=3, outputs=8, kernel=3, stride=2, pad=128.0)
    subtract, moved = _centre(one)
    eight = quantize_layer(moved, np.float32(1))
    image = np.full((3, 16, 16), 128, np.float32)
    found = run(NcnnModel((INPUT, subtract, eight)), image, "1", tmp_path)
    expected = run(NcnnModel((INPUT, one)), image, "1", tmp_path)
    assert np.ptp(found, axis=(1, 2)).max() < 1e-4 * np.abs(found).max()
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
