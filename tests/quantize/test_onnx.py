"""The content of INT8 .onnx files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface.bundle import Bundle
from edgeface.images import Image, letterbox

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("torch", reason="torch is not installed")

from export import ExportRequest, export_model  # noqa: E402
from export.source import random_source  # noqa: E402
from quantize.onnx import OnnxQuantizer  # noqa: E402
from quantize.rounding import LEVELS  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[2]
HASHES = """
import hashlib, sys
import numpy as np
from edgeface.backends import get_backend
from edgeface.bundle import Bundle
if __name__ == "__main__":
    bundle = Bundle.open(sys.argv[1])
    kind = get_backend(bundle.manifest.target).load_quantizer()
    quantizer = kind(bundle, list(np.load(sys.argv[2])), kind.scales[0])
    for reverted in ((), quantizer.layers[3:5]):
        for content in quantizer.quantize(reverted).files.values():
            print(hashlib.sha256(content).hexdigest())
"""


@pytest.fixture(scope="module")
def photos(astronaut: Image, lively_size: tuple[int, int]) -> list[Image]:
    whole = letterbox(astronaut, *lively_size)[0]
    return [
        whole,
        letterbox(np.ascontiguousarray(astronaut[:300, 100:400]), *lively_size)[0],
        255 - whole,
    ]


@pytest.fixture(scope="module")
def quantizer(exported: Callable[..., Bundle], photos: list[Image]) -> OnnxQuantizer:
    return OnnxQuantizer(exported("onnx"), photos, "mse")


class Graph:
    """Weights, nodes and kinds of operators of a .onnx file, by name."""

    def __init__(self, content: bytes) -> None:
        self.model: Any = onnx.load_from_string(content)
        graph = self.model.graph
        self.weights = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.makers = {name: node for node in graph.node for name in node.output}
        self.convolutions = {node.name: node for node in graph.node if node.op_type == "Conv"}
        self.kinds = Counter(node.op_type for node in graph.node)

    def dequantized(self, tensor: str) -> list[Any] | None:
        """[integers or the QuantizeLinear in front, scale, zero point] of ``tensor``; None if no
        DequantizeLinear makes it."""
        node = self.makers.get(tensor)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        source = self.weights.get(node.input[0], self.makers.get(node.input[0]))
        return [source, self.weights[node.input[1]], self.weights[node.input[2]]]


def test_every_layer_is_int8(quantizer: OnnxQuantizer) -> None:
    graph = Graph(quantizer.quantize().files[".onnx"])
    assert set(graph.convolutions) == set(quantizer.layers)
    for node in graph.convolutions.values():
        activation, weight, bias = (graph.dequantized(name) for name in node.input)
        assert activation is not None and weight is not None and bias is not None
        assert activation[2].dtype == np.uint8 and activation[0].op_type == "QuantizeLinear"
        assert (
            weight[0].dtype == np.int8
            and weight[1].shape == weight[0].shape[:1]
            and not weight[2].any()
        )
        assert bias[0].dtype == np.int32
    assert "Relu" not in graph.kinds  # each is the lower end of a range


def test_landmarks_have_scales_of_their_own(
    exported: Callable[..., Bundle], photos: list[Image]
) -> None:
    """Each output ends in a DequantizeLinear of its own range."""
    quantizer = OnnxQuantizer(exported("onnx", landmarks=True), photos, "mse")
    graph, scales = Graph(quantizer.quantize().files[".onnx"]), {}
    for output in graph.model.graph.output:
        dequantized = graph.dequantized(output.name)
        assert dequantized is not None and dequantized[0].op_type == "QuantizeLinear"
        scales[output.name] = float(dequantized[1])
    assert len(scales) == len(set(scales.values())) == 9
    assert {"kps_8", "kps_16", "kps_32"} < set(scales)


def test_contract_of_the_file(quantizer: OnnxQuantizer) -> None:
    graph = Graph(quantizer.quantize().files[".onnx"])
    floats = Graph(quantizer._model.SerializeToString())
    assert [(o.domain, o.version) for o in graph.model.opset_import] == [("", 17)]
    assert graph.model.graph.input == floats.model.graph.input
    assert graph.model.graph.output == floats.model.graph.output
    assert not graph.model.metadata_props and not graph.model.doc_string
    assert graph.model.producer_name == floats.model.producer_name


def test_pixels_are_exact_and_their_weights_fit_in_16_bits(quantizer: OnnxQuantizer) -> None:
    graph = Graph(quantizer.quantize().files[".onnx"])
    stem = graph.convolutions[quantizer.layers[0]]
    activation, weight = (graph.dequantized(name) for name in stem.input[:2])
    assert activation is not None and weight is not None
    assert activation[1] == 1 and activation[2] == 0
    assert np.abs(weight[0].astype(int)).max(axis=(1, 2, 3)).tolist() == [LEVELS] * len(weight[0])


def test_reverted_layers_are_float(quantizer: OnnxQuantizer) -> None:
    kept = quantizer.layers[4:7]
    graph = Graph(quantizer.quantize(kept).files[".onnx"])
    for name, node in graph.convolutions.items():
        weight = graph.dequantized(node.input[1])
        assert (weight is None) == (name in kept)
        if name in kept:
            assert graph.weights[node.input[1]].dtype == np.float32


def test_an_activation_behind_int8_stays_a_part_of_it(quantizer: OnnxQuantizer) -> None:
    """Even if all its readers are in float: otherwise levels are wasted on negative values, which
    the activation cuts off."""
    kept = quantizer.layers[1]
    graph = Graph(quantizer.quantize([kept]).files[".onnx"])
    activation = graph.dequantized(graph.convolutions[kept].input[0])
    assert activation is not None and activation[2] == 0


def test_group_normalisation_stays_in_float_and_is_named(
    photos: list[Image], tmp_path: Path
) -> None:
    bundle = export_model(
        random_source("damofd-0.5g", 0), ExportRequest("onnx", "fp32", 160, 128), tmp_path
    ).bundle
    quantizer = OnnxQuantizer(bundle, photos, "max")
    kinds = {name.rpartition(" ")[2] for name in quantizer.float_layers}
    assert kinds == {"(InstanceNormalization)", "(Mul)", "(Add)"}
    graph = Graph(quantizer.quantize().files[".onnx"])
    assert set(graph.convolutions) == set(quantizer.layers)
    assert all(graph.dequantized(node.input[1]) is not None for node in graph.convolutions.values())
    for node in graph.model.graph.node:
        if node.op_type == "InstanceNormalization":
            assert graph.dequantized(node.input[0]) is None


def test_leaves_no_files_and_says_nothing(
    quantizer: OnnxQuantizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    quantizer.quantize()
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_same_bytes_in_another_process(
    target: str, exported: Callable[..., Bundle], photos: list[Image], tmp_path: Path
) -> None:
    """The process has another hash seed, number of threads and folder; it leaves no telemetry in
    the home folder."""
    from edgeface.backends import get_backend

    bundle = exported(target)
    kind = get_backend(target).load_quantizer()
    quantizer = kind(bundle, photos, kind.scales[0])  # type: ignore[attr-defined]
    expected = [
        hashlib.sha256(content).hexdigest()
        for reverted in ((), quantizer.layers[3:5])
        for content in quantizer.quantize(reverted).files.values()
    ]
    np.save(tmp_path / "photos.npy", np.stack(photos))
    (tmp_path / "hashes.py").write_text(HASHES)
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONHASHSEED": "99",
        "OMP_NUM_THREADS": "1",
        "HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "hashes.py", str(bundle.path), "photos.npy"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == expected
    assert not [path for path in home.rglob("*") if "intel" in str(path).lower()]
