"""INT8 for ncnn: which layers are INT8, and how close the whole file comes to the float file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from quantize.base import Quantized
from quantize.ncnn import CENTRE, NcnnQuantizer

pytest.importorskip("ncnn", reason="ncnn is not installed")


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
        """A layer hands over int8 if and only if all its readers, through any Split, are int8
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

    def test_what_ncnn_would_pad_wrongly_stays_in_float(
        self, float_bundle: Bundle, photos: list[Any], tmp_path: Path
    ) -> None:
        """ncnn pads packed int8 channels with -1 instead of any other negative value."""
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
        on these photos, the others 17 dB or more; with a wrong scale it is below 10 dB."""
        eight = as_bundle(
            float_bundle, NcnnQuantizer(float_bundle, photos, scale).quantize(), tmp_path
        )
        found = signal_to_noise(float_bundle, eight, photos)
        assert min(found.values()) > 12, found

    def test_pixels_lose_nothing_in_the_first_layer(
        self, quantizer: NcnnQuantizer, float_bundle: Bundle, photos: list[Any], tmp_path: Path
    ) -> None:
        """Only its weights are rounded, so that errors of neighbours cancel: 38 dB, against 25 dB
        if each is rounded by itself."""
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
    """These networks have depthwise layers, group norm, and pixels padded with their mean, which
    int8 has to use as well.

    The weights are random: group norm then amplifies errors more than in a trained network.
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
