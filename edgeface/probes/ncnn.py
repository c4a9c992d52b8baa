"""Every activation of an ncnn file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Bundle
from edgeface.formats.ncnn import NcnnModel
from edgeface.probes.base import Probe, TensorInfo, Tensors
from edgeface.runners.ncnn import check_size, extracting, feed, fetch, open_net


class NcnnProbe(Probe):
    """Runs a Bundle of target ``ncnn``; the copies that Split layers make are left out.

    A file has 8-bit activations only between a layer that requantises and an int8 convolution.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.manifest.model)
        self._manifest = bundle.manifest
        self._net, self._model = open_net(bundle)
        self.tensors = _tensors(self._model)
        self._scales = _scales(self._model)

    def _run(self, image: NDArray[np.uint8]) -> Tensors:
        check_size(self._model, self._manifest, image.shape[2], image.shape[1])
        with extracting(self._net) as extractor:
            # In light mode, the layer that reads an activation frees or overwrites it.
            extractor.set_light_mode(False)
            feed(extractor, self._manifest.input.name, image)
            return {t.name: self._value(extractor, t.name) for t in self.tensors}

    def _free(self) -> None:
        self._net.clear()
        del self._net

    def _value(self, extractor: object, name: str) -> NDArray[np.float32]:
        value = fetch(extractor, name)
        if name in self._scales:
            value /= self._scales[name]
        return (
            np.ascontiguousarray(value.transpose(1, 2, 0))[None] if value.ndim == 3 else value[None]
        )


def _tensors(model: NcnnModel) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(layer.tops[0], layer.name, layer.type)
        for layer in model.layers
        if layer.type != "Split"
    )


def _scales(model: NcnnModel) -> dict[str, np.float32]:
    """8-bit blob -> quantised value / real value."""
    return {
        layer.tops[0]: layer.weights["top_scale"][0] for layer in model.layers if layer.requantises
    }
