"""INT8 for ncnn, implemented here: no Python package contains ncnn's own quantising tools.

    float ── x bottom_scale, round ──► int8 ──► int32 sums
    int32 sums ── / (bottom_scale x weight_scale), + bias ──┬──► float
                                                            └── x top_scale, round ──► int8

All ranges are symmetric around zero, with 127 steps on each side. Weights have one scale per output
channel, activations one per blob. A layer whose output is read only by int8 layers passes it on as
int8 (it *requantises*); the rest of the graph, such as additions and resizing, stays in float.

The layer that reads pixels needs care, since every later layer inherits its error (this layer alone
in the shipped model: 22 dB without the second of these measures, 34 dB with it):

- Pixels 0 to 255 would leave half of the levels unused. One subtraction in the graph shifts them to
  -127 to 128; the bias compensates for it, and the padding value is shifted as well.
- Its weights are rounded with error diffusion (:mod:`quantize.rounding`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Bundle
from edgeface.formats.ncnn import CONVOLUTIONS, WEIGHTED, NcnnLayer, NcnnModel, dump_bin, dump_param
from edgeface.images import Image
from edgeface.probes import open_probe
from edgeface.runners.ncnn import read_model
from edgeface.types import Progress, unseen
from quantize.base import Quantized, Quantizer
from quantize.ranges import observe
from quantize.rounding import pixel_weights

LEVELS = 127
"""levels on each side of zero; -128 is not used, since ncnn's x86 kernels compute it wrongly"""
CENTRE = 127
"""pixel value that becomes 0; 0 to 254 are represented exactly, 255 is clipped to 254"""
TINY = 1e-20
"""a channel whose weights are all smaller is taken as zero: its scale would not fit a float32"""
_SUBTRACT = 1
_NO_ARITHMETIC = ("Input", "MemoryData", "Split", "Slice", "Concat")


class NcnnQuantizer(Quantizer):
    """An fp32 ncnn Bundle, ready to be quantised with any set of layers kept in float."""

    target: ClassVar[str] = "ncnn"
    scales: ClassVar[tuple[str, ...]] = ("mse", "percentile", "kl", "max")
    distributions: ClassVar[tuple[str, ...]] = ("ncnn", "numpy")

    def __init__(
        self, bundle: Bundle, images: Sequence[Image], scale: str, progress: Progress = unseen
    ) -> None:
        self._model = read_model(bundle)
        self._original = _originals(self._model)
        names = {
            self._original[layer.bottoms[0]] for layer in self._model.layers if self._carried(layer)
        }
        with open_probe(bundle) as probe:
            seen = observe(probe, images, progress, names - set(self._model.inputs))
        self._scales = {
            name: np.float32(LEVELS / observer.range(scale, symmetric=True)[1])
            for name, observer in seen.items()
        }
        self._scales |= dict.fromkeys(self._model.inputs, np.float32(LEVELS / 255))

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self._model.layers if self._carried(layer))

    @property
    def float_layers(self) -> tuple[str, ...]:
        return tuple(
            layer.name
            for layer in self._model.layers
            if not self._carried(layer) and layer.type not in _NO_ARITHMETIC
        )

    def quantize(self, reverted: Collection[str] = ()) -> Quantized:
        self.require_known(reverted)
        chosen = set(self.layers) - set(reverted)
        readers = self._readers()
        layers: list[NcnnLayer] = []
        for layer in self._model.layers:
            if layer.name not in chosen:
                layers.append(layer)
                continue
            bottom_scale = self._scales[self._original[layer.bottoms[0]]]
            of_pixels = self._reads_pixels(layer)
            if of_pixels:
                subtract, layer = _centre(layer)
                layers.append(subtract)
                bottom_scale = np.float32(1)
            after = readers[layer.tops[0]]  # empty for outputs of the file, which are float
            hands_over = (
                layer.type in CONVOLUTIONS
                and after
                and all(reader.type in CONVOLUTIONS and reader.name in chosen for reader in after)
            )
            top_scale = self._scales[layer.tops[0]] if hands_over else None
            layers.append(quantize_layer(layer, bottom_scale, top_scale, of_pixels))
        model = NcnnModel(tuple(layers))
        return Quantized({".param": dump_param(model), ".bin": dump_bin(model)})

    def _reads_pixels(self, layer: NcnnLayer) -> bool:
        return layer.type in CONVOLUTIONS and layer.bottoms[0] in self._model.inputs

    def _carried(self, layer: NcnnLayer) -> bool:
        """True if ncnn can compute the layer in int8.

        It cannot with a negative padding value where channels are packed: ncnn's int8 padding then
        writes a wrong value. The three channels of the image are not packed.
        """
        return layer.type in WEIGHTED and (self._reads_pixels(layer) or layer.number(18, 0.0) >= 0)

    def _readers(self) -> dict[str, list[NcnnLayer]]:
        """Blob -> the layers that read it, through any Split."""
        readers: dict[str, list[NcnnLayer]] = {blob: [] for blob in self._original.values()}
        for layer in self._model.layers:
            if layer.type != "Split":
                for blob in layer.bottoms:
                    readers[self._original[blob]].append(layer)
        return readers


def quantize_layer(
    layer: NcnnLayer,
    bottom_scale: np.float32,
    top_scale: np.float32 | None = None,
    of_pixels: bool = False,
) -> NcnnLayer:
    """The int8 form of a float layer; with ``top_scale``, its output is int8 too.

    Scales are levels per unit: 127 / the largest magnitude not clipped. ``of_pixels``: the layer
    reads the image.
    """
    values, get = layer.weights["weight"], layer.integer
    weight, scales = round_weights(
        values.reshape(get(7, 1) if layer.type == "ConvolutionDepthWise" else get(0), -1)
    )
    if of_pixels and layer.type == "Convolution":
        weight = pixel_weights(values.reshape(get(0), -1, get(11, get(1)), get(1)), LEVELS)[0]
    form = (1 if layer.type == "ConvolutionDepthWise" else 2) + (
        100 if top_scale is not None else 0
    )
    params = {**layer.params, 8: form}
    if 18 in params:  # ncnn pads with this value after quantising
        params[18] = float(np.clip(np.rint(layer.number(18, 0.0) * bottom_scale), -LEVELS, LEVELS))
    weights = {
        **layer.weights,
        "weight": weight.ravel(),
        "weight_scales": scales,
        "bottom_scale": np.array([bottom_scale], np.float32),
    }
    if top_scale is not None:
        weights["top_scale"] = np.array([top_scale], np.float32)
    return replace(layer, params=params, weights=weights)


def round_weights(weight: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """float [rows, n] -> (nearest levels, int8 [rows, n]; levels per unit, float32 [rows])."""
    largest = np.abs(weight).max(axis=1)
    scales = (LEVELS / np.where(largest > TINY, largest, LEVELS)).astype(np.float32)
    return np.rint(weight * scales[:, None].astype(np.float64)).astype(np.int8), scales


def _centre(layer: NcnnLayer) -> tuple[NcnnLayer, NcnnLayer]:
    """(layer that subtracts CENTRE from the pixels, ``layer`` changed to give the same result from
    these)."""
    blob = f"{layer.bottoms[0]}_centred"
    subtract = NcnnLayer(
        "BinaryOp", blob, layer.bottoms, (blob,), {0: _SUBTRACT, 1: 1, 2: float(CENTRE)}
    )
    outputs = layer.integer(0)
    sums = layer.weights["weight"].reshape(outputs, -1).sum(axis=1, dtype=np.float64)
    bias = layer.weights.get("bias", np.zeros(outputs, np.float32)) + CENTRE * sums
    params = {**layer.params, 5: 1, 18: layer.number(18, 0.0) - CENTRE}
    return subtract, replace(
        layer,
        bottoms=(blob,),
        params=params,
        weights={**layer.weights, "bias": bias.astype(np.float32)},
    )


def _originals(model: NcnnModel) -> dict[str, str]:
    """Blob -> the blob that it is a copy of, by Split; any other blob -> itself."""
    found: dict[str, str] = {}
    for layer in model.layers:
        for blob in layer.tops:
            found[blob] = found[layer.bottoms[0]] if layer.type == "Split" else blob
    return found
