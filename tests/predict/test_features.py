"""Features of layers for the latency model, each computed layer by layer from its definition."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from edgeface.architecture.layers import Layer, Part, layers_of
from edgeface.predict.features import Basis, LayerTable
from edgeface.search.space import SPACES

DRAWN = [SPACES[name].sample(seed) for name in ("xx", "resnet", "edge") for seed in range(2)]
LAYERS = [layer for network in DRAWN for layer in layers_of(network, 640, 480)]
CONV = Layer("conv", 3, 2, 24, 40, 80, 60)
DEPTHWISE = Layer("depthwise", 5, 1, 40, 40, 80, 60)


def part(*layers: Layer) -> Part:
    return Part(layers, layers[-1].out_channels, 1)


def terms(layer: Layer) -> list[float]:
    """1, multiply-accumulates, values read and written, multiply-accumulates per input and per
    output channel; then with 16 and 32 lanes, of outputs and of both sides."""
    macs = layer.macs
    found: list[float] = [1, macs, layer.values_read, layer.values_written]
    found += [macs / layer.in_channels, macs / layer.out_channels]
    for lanes in (16, 32):
        out = macs * lanes * math.ceil(layer.out_channels / lanes) / layer.out_channels
        before = lanes * math.ceil(layer.in_channels / lanes) / layer.in_channels
        found += [out, out * (before if layer.kind == "conv" else 1)]
    return found


def test_terms_of_single_layers() -> None:
    """Of all layers of networks of three search spaces, which have operators of all four kinds."""
    assert {layer.kind for layer in LAYERS} == {"conv", "depthwise", "add", "resize"}
    found = LayerTable(LAYERS, 0)
    np.testing.assert_allclose(found.plain, [terms(layer) for layer in LAYERS], rtol=1e-12)
    for layer, guess, place in zip(LAYERS, found.guess, found.places, strict=True):
        assert guess == layer.macs + 16 * (layer.values_read + layer.values_written)
        shape = (layer.in_channels, layer.out_channels, layer.width * layer.height)
        assert place.tolist() == pytest.approx([math.log2(value) for value in shape])


def test_terms_of_a_convolution_by_hand() -> None:
    """3x3 of stride 2 from 24 to 40 channels, at 80x60 px, and 5x5 depthwise behind it."""
    cells = 80 * 60
    assert LayerTable([CONV, DEPTHWISE], 0).plain.tolist() == [
        [1, cells * 9 * 24 * 40, 4 * cells * 24, cells * 40, cells * 9 * 40, cells * 9 * 24]
        + [cells * 9 * before * out for out, before in ((48, 24), (48, 32), (64, 24), (64, 32))],
        [1, cells * 25 * 40, cells * 40, cells * 40, cells * 25, cells * 25]
        + [cells * 25 * out for out in (48, 48, 64, 64)],
    ]


def test_features_of_a_part_are_sums_over_its_layers() -> None:
    """Of all its layers, of those of each operator and of those of each group."""
    basis, add = Basis(LAYERS, "onnx"), Layer("add", 0, 1, 40, 40, 80, 60)
    conv, wide = LAYERS[0], Layer("conv", 1, 1, 40, 40, 80, 60)
    parts = [(conv, DEPTHWISE, conv, add), (wide,), (add, wide, conv)]
    found, _ = basis.features([part(*layers) for layers in parts])
    for row, layers in zip(found, parts, strict=True):
        for key, start in basis.start.items():
            own = [terms(layer) for layer in layers if layer.group[: len(key)] == key]
            expected = np.sum([[0.0] * 10, *own], axis=0)
            np.testing.assert_allclose(row[start : start + 10], expected, rtol=1e-12)


def test_smooth_functions_of_like_layers_are_correlated() -> None:
    """Products of two layers' features are their guesses times exp(-.15 d^2), d in doublings.

    That is exact for the layers which the basis was made from, if there are few of them.
    """
    widths = ((8, 16), (16, 16), (32, 8))
    seen = [Layer("conv", 3, 1, before, out, 80, 60) for before, out in widths]
    basis = Basis([*seen, DEPTHWISE], "onnx")
    rows, _ = basis.features([part(layer) for layer in seen])
    guess = [layer.macs + 16 * (layer.values_read + layer.values_written) for layer in seen]
    for key in (("conv",), ("conv", 3, 1)):
        smooth = rows[:, basis.smooth_start[key] :][:, :3]
        for i, j in itertools.product(range(3), repeat=2):
            a, b = (np.log2([x.in_channels, x.out_channels]) for x in (seen[i], seen[j]))
            alike = math.exp(-0.15 * float(((a - b) ** 2).sum()))
            assert smooth[i] @ smooth[j] == pytest.approx(guess[i] * guess[j] * alike, rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "narrow"),
    [
        (Layer("conv", 3, 1, 16, 16, 80, 60), True),
        (Layer("conv", 3, 1, 16, 17, 80, 60), False),
        (Layer("conv", 3, 1, 17, 16, 80, 60), False),
        (Layer("conv", 1, 1, 16, 16, 80, 60), False),
        (Layer("depthwise", 3, 1, 16, 16, 80, 60), False),
    ],
)
def test_which_convolutions_ncnn_computes_directly(layer: Layer, narrow: bool) -> None:
    for target, apart in (("ncnn", narrow), ("onnx", False)):
        kinds = {key[0] for key in Basis([layer], target).start if key}
        assert kinds == {"narrow conv" if apart else layer.kind}


@pytest.mark.parametrize("factor", [1.4, 1 / 1.4, 1.5, 1 / 1.5])
@pytest.mark.parametrize("side", ["in_channels", "out_channels", "width"])
def test_layers_within_half_a_doubling_are_known(side: str, factor: float) -> None:
    """A factor of 1.41 up or down, in channels or in size; a part with one other layer is not."""
    seen = Layer("conv", 3, 1, 1000, 1000, 1000, 10)
    changed: dict[str, Any] = {side: round(1000 * factor)}
    other = seen._replace(**changed)
    basis, parts = Basis([seen, DEPTHWISE], "onnx"), [part(DEPTHWISE), part(DEPTHWISE, other)]
    _, strange = basis.features(parts)
    inside = 1 / math.sqrt(2) < factor < math.sqrt(2)
    assert strange == ["", "" if inside else f"no network seen has a layer like {other}"]


def test_terms_begin_with_equal_weight() -> None:
    """After division, the mean of each term's sum of squares over the networks is 1.

    Within a term, all features have the same mean size.
    """
    parts = [part(*layers_of(network, 640, 480)) for network in DRAWN]
    basis = Basis([layer for one in parts for layer in one.layers], "onnx")
    features = basis.features(parts)[0]
    scaled = features / basis.scale(features)
    for term in basis.terms:
        squares = [float((row[term] ** 2).sum()) for row in scaled]
        assert sum(squares) / len(squares) == pytest.approx(1)
        sizes = np.abs(scaled[:, term]).mean(0)
        np.testing.assert_allclose(sizes[sizes > 0], sizes.max(), rtol=1e-9)
