"""The content of INT8 OpenVINO files, read from the .xml."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeface.bundle import Bundle, write_bundle
from edgeface.errors import QuantizeError
from edgeface.images import Image, letterbox
from quantize.base import Quantized

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("nncf", reason="nncf is not installed")

from export import ExportRequest, export_model
from export.openvino import MODEL_INFO
from export.source import random_source
from quantize.openvino import OpenVinoQuantizer
from quantize.rounding import LEVELS


@pytest.fixture(scope="module")
def photos(astronaut: Image, lively_size: tuple[int, int]) -> list[Image]:
    whole = letterbox(astronaut, *lively_size)[0]
    return [
        whole // 2 + 20,
        letterbox(np.ascontiguousarray(astronaut[:300, 100:400]), *lively_size)[0] // 2 + 20,
    ]


@pytest.fixture(scope="module")
def quantizer(exported: Callable[..., Bundle], photos: list[Image]) -> OpenVinoQuantizer:
    return OpenVinoQuantizer(exported("openvino"), photos, "mse")


class Graph:
    """Layers of an .xml by id, and the layer that feeds each of their ports."""

    def __init__(self, quantized: Quantized) -> None:
        self.root = ElementTree.fromstring(quantized.files[".xml"])
        self.layers = {layer.get("id"): layer for layer in self.root.iterfind("layers/layer")}
        self.feeds = {
            (e.get("to-layer"), int(e.get("to-port") or 0)): e.get("from-layer")
            for e in self.root.iterfind("edges/edge")
        }
        self.content = quantized.files[".bin"]
        self.kinds = Counter(layer.get("type") for layer in self.layers.values())

    def before(self, layer: ElementTree.Element, port: int) -> ElementTree.Element:
        return self.layers[self.feeds[layer.get("id"), port]]

    def convolutions(self) -> dict[str, ElementTree.Element]:
        """Convolutions by the name that quantizers give them."""
        return {
            (layer.get("name") or "").removesuffix("/WithoutBiases"): layer
            for layer in self.layers.values()
            if layer.get("type") in ("Convolution", "GroupConvolution")
        }

    def constant(self, layer: ElementTree.Element) -> np.ndarray:
        data = layer.find("data")
        assert layer.get("type") == "Const" and data is not None
        start, size = int(data.get("offset") or 0), int(data.get("size") or 0)
        kind = {"f32": np.float32, "i8": np.int8, "i64": np.int64}[data.get("element_type") or ""]
        return np.frombuffer(self.content[start : start + size], kind)

    def weight_kind(self, convolution: ElementTree.Element) -> str:
        """Element type in which the weights of ``convolution`` are stored."""
        layer = self.before(convolution, 1)
        while layer.get("type") != "Const":
            layer = self.before(layer, 0)
        data = layer.find("data")
        assert data is not None
        return data.get("element_type") or ""


def test_every_layer_is_int8(quantizer: OpenVinoQuantizer) -> None:
    graph = Graph(quantizer.quantize())
    convolutions = graph.convolutions()
    assert set(convolutions) == set(quantizer.layers)
    assert all(graph.weight_kind(layer) == "i8" for layer in convolutions.values())
    assert all(
        graph.before(layer, 0).get("type") == "FakeQuantize" for layer in convolutions.values()
    )


def test_reverted_layers_are_float(quantizer: OpenVinoQuantizer) -> None:
    """Reverted layers bypass FakeQuantize; the others keep theirs."""
    kept = quantizer.layers[4:7]
    graph = Graph(quantizer.quantize(kept))
    for name, layer in graph.convolutions().items():
        assert graph.weight_kind(layer) == ("f32" if name in kept else "i8")
        assert (graph.before(layer, 0).get("type") == "FakeQuantize") == (name not in kept)


def test_nothing_of_int8_is_left_when_all_is_float(quantizer: OpenVinoQuantizer) -> None:
    graph = Graph(quantizer.quantize(quantizer.layers))
    assert not {"FakeQuantize", "Convert", "Multiply"} & set(graph.kinds)


def test_pixels_are_exact_and_their_weights_fit_in_16_bits(quantizer: OpenVinoQuantizer) -> None:
    """The range of pixels is 0 to 255, although these photos have values from 20 to 147 only."""
    graph = Graph(quantizer.quantize())
    stem = graph.convolutions()[quantizer.layers[0]]
    pixels = graph.before(stem, 0)
    assert graph.before(pixels, 0).get("type") == "Parameter"
    assert [float(graph.constant(graph.before(pixels, port))[0]) for port in (1, 2, 3, 4)] == [
        0,
        255,
        0,
        255,
    ]
    weights = graph.constant(graph.before(graph.before(graph.before(stem, 1), 0), 0))
    assert weights.dtype == np.int8 and np.abs(weights.astype(int)).max() == LEVELS


def test_lean(quantizer: OpenVinoQuantizer) -> None:
    quantized = quantizer.quantize()
    graph = Graph(quantized)
    (notes,) = list(graph.root.iter("rt_info"))
    assert {child.tag: child.get("value") for child in notes.find("model_info") or ()} == MODEL_INFO
    assert len(notes) == 1 and b"nncf" not in quantized.files[".xml"].lower()
    assert len({layer.get("name") for layer in graph.layers.values()}) == len(graph.layers)


def test_group_normalisation_stays_in_float_and_is_named(
    photos: list[Image], tmp_path: Path
) -> None:
    bundle = export_model(
        random_source("damofd-0.5g", 0), ExportRequest("openvino", "fp32", 160, 128), tmp_path
    ).bundle
    quantizer = OpenVinoQuantizer(bundle, photos, "max")
    assert len(quantizer.float_layers) == 12
    assert all(name.endswith("InstanceNormalization (MVN)") for name in quantizer.float_layers)
    graph = Graph(quantizer.quantize())
    assert all(graph.weight_kind(layer) == "i8" for layer in graph.convolutions().values())


def test_weights_that_are_not_numbers(
    exported: Callable[..., Bundle], photos: list[Image], tmp_path: Path
) -> None:
    bundle = exported("openvino")
    weights = np.frombuffer(bundle.read("edgeface-n.bin"), np.float32).copy()
    weights[:100] = np.nan
    files = {name: bundle.read(name) for name in bundle.manifest.files} | {
        "edgeface-n.bin": weights.tobytes()
    }
    with pytest.raises(
        QuantizeError,
        match=r"holds NaN or infinity in backbone.stem.conv.weight: check its weights",
    ):
        OpenVinoQuantizer(write_bundle(tmp_path / "nan", bundle.manifest, files), photos, "max")


def test_says_nothing_and_reports_to_nobody(
    exported: Callable[..., Bundle], photos: list[Image], capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a progress bar nor a log is printed. test_same_bytes_in_another_process checks that
    no telemetry is sent."""
    OpenVinoQuantizer(exported("openvino"), photos, "max")
    assert capfd.readouterr() == ("", "")
    assert (
        sys.modules.get("openvino_telemetry", True) is not None
    )  # the module is put back for other users of it
