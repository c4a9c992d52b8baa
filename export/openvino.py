"""OpenVINO IR, from the ONNX file of :mod:`export.onnx`: float32 NCHW raw pixels in, float32 NCHW
heads out.

OpenVINO's own ``convert_model`` reports its use over the network, and its ``save_model`` writes
program versions, conversion parameters and node names that depend on what the process did before.
So the same steps are taken one by one here, and what is no part of the network is taken out of the
.xml.

fp16 stores the same convolution weights as the ONNX file as float16, behind a Convert that is
marked as decompression; biases, input, outputs and arithmetic stay float32. (``compress_to_fp16``
would also round biases.)
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from edgeface.backends import get_backend, import_runtime
from edgeface.decode import head_layout
from edgeface.files import scratch_folder
from edgeface.models.detector import FaceNet
from edgeface.runners.openvino import layer_name
from export.onnx import convolution_weights, export_onnx
from export.request import Converted, ExportRequest, require, versions

MODEL_INFO = {
    "model_type": "edgeface",
    "labels": "face",
    "iou_threshold": "0.45",
    "reverse_input_channels": "False",
}
"""``rt_info/model_info`` of every file, where OpenVINO's demos and pipelines look for it. Input is
RGB as it comes."""

_NUMBERED = re.compile(r"[A-Z][A-Za-z]*[_.]\d+")
"""a name that OpenVINO made up, its number counts the nodes that the process has made so far; or
one made up here"""
_NOT_OPERATORS = frozenset({"Constant", "Parameter", "Result"})


def export_openvino(network: FaceNet, request: ExportRequest) -> Converted:
    """Convert the deployable ``network``. Raises MissingExtraError."""
    require("exporting to openvino", "onnx", "openvino")
    import onnx

    source = export_onnx(network, replace(request, precision="fp32"))
    model = read_onnx(source.files[".onnx"])
    if request.precision == "fp16":
        rounded = convolution_weights(onnx.load_from_string(source.files[".onnx"]).graph)
        _store_weights_as_float16(model, rounded)
    return Converted(
        files=ir_files(model, network.architecture.name),
        layout="NCHW",
        outputs={name: name for name in head_layout(network.architecture).output_names},
        operators=count_operators(model),
        tools=source.tools | versions("openvino"),
    )


def read_onnx(content: bytes) -> Any:
    """``openvino.Model`` of an ONNX file: names are kept and constants folded.

    ``convert_model`` would also merge layers, and names and weights with them; the CPU plugin does
    so when it loads a file.
    """
    openvino = import_runtime(get_backend("openvino"))
    from openvino.passes import ConstantFolding, Manager

    model = openvino.Core().read_model(content)
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    return model


def count_operators(model: Any) -> dict[str, int]:
    """Operator -> how often it is in an ``openvino.Model``."""
    counts = Counter(node.get_type_name() for node in model.get_ordered_ops())
    return {name: count for name, count in counts.items() if name not in _NOT_OPERATORS}


def is_numbered(name: str) -> bool:
    """Is ``name`` made up by OpenVINO, or by :func:`ir_files` in its place?"""
    return _NUMBERED.fullmatch(name) is not None


def ir_files(model: Any, name: str) -> dict[str, bytes]:
    """Content of .xml and .bin of an ``openvino.Model``: equal models give equal bytes in any
    process."""
    openvino = import_runtime(get_backend("openvino"))
    with scratch_folder() as folder:
        xml, weights = folder / "model.xml", folder / "model.bin"
        openvino.serialize(model, str(xml), str(weights))
        return {".xml": _lean(xml.read_bytes(), name), ".bin": weights.read_bytes()}


def _store_weights_as_float16(model: Any, rounded: Collection[str]) -> None:
    """Keep the weights of the convolutions ``rounded`` as float16, converted back to float32 in the
    graph."""
    from openvino import opset13 as ops

    halves: dict[str, Any] = {}
    for node in model.get_ordered_ops():
        if layer_name(node) not in rounded or "Convolution" not in node.get_type_name():
            continue
        weight = node.input_value(1).get_node()
        key = weight.get_name()  # unlike the friendly name it is unique
        if key not in halves:  # heads share theirs between levels
            label = weight.get_friendly_name()
            half = ops.constant(weight.data.astype(np.float16), name=f"{label}_fp16")
            halves[key] = ops.convert(half, "f32", name=label)
        node.input(1).replace_source_output(halves[key].output(0))


def _lean(content: bytes, name: str) -> bytes:
    """The .xml without white space, programs' notes and whatever else differs between two runs."""
    root = ElementTree.fromstring(content)
    root.set("name", name)
    for element in root.iter():
        element.tail = None
        element.text = (element.text or "").strip() or None
        for notes in element.findall("rt_info"):
            element.remove(notes)
    for port in root.iterfind("layers/layer/input/port"):
        port[:] = []  # sizes are those of the output that leads here, and derived again on reading
    for layer in root.iterfind("layers/layer"):
        if is_numbered(layer.get("name", "")):
            layer.set("name", f"{layer.get('type')}.{layer.get('id')}")
        if (
            layer.get("type") == "Convert"
            and layer.find("input/port[@precision='FP16']") is not None
        ):
            notes = ElementTree.SubElement(layer, "rt_info")
            ElementTree.SubElement(notes, "attribute", name="decompression", version="0")
    edges = root.find("edges")
    assert edges is not None
    edges[:] = sorted(
        edges, key=lambda edge: (int(edge.get("to-layer", "")), int(edge.get("to-port", "")))
    )
    info = ElementTree.SubElement(ElementTree.SubElement(root, "rt_info"), "model_info")
    for key, value in MODEL_INFO.items():
        ElementTree.SubElement(info, key, value=value)
    return b'<?xml version="1.0"?>\n' + ElementTree.tostring(root) + b"\n"
