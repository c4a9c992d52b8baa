"""The content of exported files: operators, layouts, names, and nothing else."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from flat_tables import buffers_behind
from networks import with_part
from torch import nn

from edgeface.architecture import Architecture, ConvNetSpec, InputNorm, PyramidSpec, SCRFDHeadSpec
from edgeface.backends import combinations, export_targets
from edgeface.bundle import Bundle
from edgeface.models.detector import deployable
from edgeface.runners import open_runner
from export import ExportRequest, export_model
from export.group_norm import ChannelSums
from export.onnx import export_onnx
from export.parity import TOLERANCE, torch_heads
from export.source import random_source
from export.tflite import count_operators, export_tflite

HEADS = {"cls_8": 1, "box_8": 4, "cls_16": 1, "box_16": 4, "cls_32": 1, "box_32": 4}
GROUPED = Architecture(
    name="grouped",
    backbone=ConvNetSpec(widths=(8, 8, 16, 16), depths=(0, 1, 0)),
    neck=PyramidSpec("pafpn", 16),
    head=SCRFDHeadSpec(
        channels=24, stack=1, norm="group", groups=8, depthwise=True, anchors=2, offset=0.0
    ),
    input=InputNorm(mean=127.5, std=128.0),
)
"""a small network with all that published networks have and ours lacks: group norm, nearest resize,
mean"""


@pytest.mark.parametrize("target", export_targets())
def test_landmarks_of_a_head_that_the_levels_share(target: str, tmp_path: Path) -> None:
    """With two anchors, each level's outputs follow the layout's order. Exporting checks parity."""
    source = random_source(with_part(GROUPED, "head", norm="batch", groups=0, landmarks=5), 3)
    exported = export_model(source, ExportRequest(target, "fp32", 96, 64), tmp_path)
    batch = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    expected = torch_heads(source.network, batch)
    with open_runner(exported.bundle) as runner:
        found = runner.run(batch)
    assert [value.shape[3] for value in found.values()] == 3 * [2, 8, 20]
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=TOLERANCE, err_msg=name)
        assert set(exported.parity.max_abs) == set(found)


@pytest.mark.parametrize(("target", "precision"), combinations("fp32", "fp16"))
def test_files_name_no_place_and_no_program(
    target: str, precision: str, exported: Callable[..., Bundle]
) -> None:
    bundle = exported(target, precision)
    checkout = Path(__file__).resolve().parents[2]
    for path in bundle.path.iterdir():
        content = path.read_bytes()
        for place in (str(checkout), sysconfig.get_paths()["purelib"], str(Path.home()), ".py"):
            assert place.encode() not in content, f"{path.name} holds {place}"


@pytest.mark.parametrize(("target", "precision"), combinations("fp16"))
def test_fp16_halves_the_file(target: str, precision: str, exported: Callable[..., Bundle]) -> None:
    assert exported(target, "fp16").size_bytes < 0.6 * exported(target, "fp32").size_bytes


class TestTFLite:
    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_operators(self, precision: str, exported: Callable[..., Bundle]) -> None:
        operators = count_operators(exported("tflite", precision).read())
        allowed = {"CONV_2D", "ADD", "PAD", "RESIZE_BILINEAR"} | (
            {"DEQUANTIZE"} if precision == "fp16" else set()
        )
        assert set(operators) == allowed
        assert operators["RESIZE_BILINEAR"] == 2

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_weights_are_where_older_runtimes_look(
        self, precision: str, exported: Callable[..., Bundle]
    ) -> None:
        assert buffers_behind(exported("tflite", precision).read()) == 0

    def test_signature_and_layout(self, exported: Callable[..., Bundle]) -> None:
        interpreter = _interpreter(exported("tflite", "fp32"))
        (signature,) = interpreter.get_signature_list().values()
        assert signature["inputs"] == ["input"]
        assert set(signature["outputs"]) == set(HEADS)
        runner = interpreter.get_signature_runner()
        (image,) = runner.get_input_details().values()
        assert list(image["shape"]) == [1, 128, 160, 3]
        assert image["dtype"] is np.float32
        for name, detail in runner.get_output_details().items():
            stride = int(name[4:])
            assert list(detail["shape"]) == [1, 128 // stride, 160 // stride, HEADS[name]]
            assert detail["dtype"] is np.float32

    def test_resize_samples_pixel_centres(self, exported: Callable[..., Bundle]) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils

        model = flatbuffer_utils.read_model_from_bytearray(
            bytearray(exported("tflite", "fp32").read())
        )
        resizes = [
            op.builtinOptions
            for op in model.subgraphs[0].operators
            if isinstance(op.builtinOptions, schema.ResizeBilinearOptionsT)
        ]
        assert [(r.halfPixelCenters, r.alignCorners) for r in resizes] == [(True, False)] * 2

    def test_group_norm_and_nearest_resize_need_no_transpose(self, tmp_path: Path) -> None:
        exported = export_model(
            random_source(GROUPED, 3), ExportRequest("tflite", "fp32", 96, 64), tmp_path
        )
        assert not {"TRANSPOSE", "RESHAPE", "BROADCAST_TO"} & set(exported.operators)
        assert exported.operators["RESIZE_NEAREST_NEIGHBOR"] == 2

    def test_network_is_left_as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        folded = deployable(random_source(GROUPED, 0).network)
        before = [type(m).__name__ for m in folded.modules()]
        monkeypatch.setattr("export.tflite._convert", lambda network, request, names: b"")
        monkeypatch.setattr("export.tflite.count_operators", lambda content: {})
        export_tflite(folded, ExportRequest("tflite"))
        assert [type(m).__name__ for m in folded.modules()] == before


class TestOnnx:
    def test_graph(self, exported: Callable[..., Bundle]) -> None:
        model = onnx.load_from_string(exported("onnx", "fp32").read())
        onnx.checker.check_model(model, full_check=True)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
        assert {n.op_type for n in model.graph.node} == {
            "Conv",
            "Relu",
            "Add",
            "Resize",
            "Constant",
        }
        assert _shapes(model.graph.input) == {"input": [1, 3, 128, 160]}
        assert list(_shapes(model.graph.output)) == list(HEADS)
        for name, shape in _shapes(model.graph.output).items():
            stride = int(name[4:])
            assert shape == [1, HEADS[name], 128 // stride, 160 // stride]

    def test_no_notes(self, exported: Callable[..., Bundle]) -> None:
        model = onnx.load_from_string(exported("onnx", "fp32").read())
        assert not model.metadata_props
        assert not model.doc_string
        assert not any(n.doc_string or n.metadata_props for n in model.graph.node)

    @pytest.mark.parametrize("model", ["edgeface-n", GROUPED], ids=["edgeface-n", "grouped"])
    def test_dynamic_size(self, model: str | Architecture, tmp_path: Path) -> None:
        exported = export_model(
            random_source(model, 0), ExportRequest("onnx", "fp32", 96, 64, True), tmp_path
        )
        assert exported.bundle.path.name.endswith("-onnx-fp32-96x64-dynamic")
        assert exported.bundle.manifest.input.dynamic
        assert "noise_other_size" in exported.parity.cases
        assert not {"Shape", "Gather", "Reshape"} & set(exported.operators)
        graph = onnx.load_from_string(exported.bundle.read()).graph
        assert _shapes(graph.input)["input"] == [1, 3, "height", "width"]
        assert _shapes(graph.output)["cls_16"][0] == 1
        assert _shapes(graph.output)["cls_16"][2:] == ["height_16", "width_16"]

    def test_normalisation_is_folded_into_the_first_convolution(self) -> None:
        """Zero padding after subtracting a mean equals padding with mean pixels, so one Pad adds
        these before the folded convolution."""
        converted = export_onnx(
            deployable(random_source(GROUPED, 0).network), ExportRequest("onnx", "fp32", 96, 64)
        )
        assert converted.operators["Pad"] == 1
        assert not {"Sub", "Div", "BatchNormalization"} & set(converted.operators)


@pytest.mark.parametrize(("channels", "groups"), [(24, 8), (16, 16), (20, 1), (80, 16)])
def test_channel_sums_equal_group_norm(channels: int, groups: int) -> None:
    random = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(groups, channels)
    for parameter in norm.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    x = torch.randn(2, channels, 5, 7, generator=random) * 3 + 2
    torch.testing.assert_close(ChannelSums(norm)(x), norm(x), atol=1e-5, rtol=1e-5)


def _shapes(values: Any) -> dict[str, list[int | str]]:
    return {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values
    }


def _interpreter(bundle: Bundle) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=bundle.read())
    interpreter.allocate_tensors()
    return interpreter
