"""ONNX: opset 17, float32 NCHW raw pixels in, float32 NCHW heads out.

The TorchScript exporter writes the smallest graph: one node per layer, no shape arithmetic, sizes
left open with ``--dynamic``. fp16 stores convolution weights as float16 behind a Cast; input,
outputs and arithmetic stay float32, so every runtime accepts the file. ONNX Runtime folds the Casts
at load time: half the file size at the speed of float32.

Weights that several layers share, such as those of EXTD's six passes, are one initializer, and in
the OpenVINO file one constant.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch

from edgeface.decode import head_layout
from edgeface.models.detector import FaceNet
from export.group_norm import without_group_norm
from export.request import INPUT_NAME, Converted, ExportRequest, require, versions
from export.rewrite import with_leaky_relu

OPSET = 17


def export_onnx(network: FaceNet, request: ExportRequest) -> Converted:
    """Convert the deployable ``network``. Raises MissingExtraError."""
    require("exporting to onnx", "onnx", "onnxsim")
    import onnx
    import onnxsim

    names = head_layout(network.architecture).output_names
    traced = onnx.load_from_string(_trace(network, request, names))
    model, same = onnxsim.simplify(traced)
    assert same, "onnxsim changed what the graph computes"
    _strip(model)
    if request.precision == "fp16":
        _store_weights_as_float16(model)
    onnx.checker.check_model(model, full_check=True)
    return Converted(
        files={".onnx": model.SerializeToString(deterministic=True)},
        layout="NCHW",
        outputs={name: name for name in names},
        operators=dict(Counter(node.op_type for node in model.graph.node)),
        tools=versions("torch", "onnx", "onnxsim"),
    )


def _trace(network: FaceNet, request: ExportRequest, names: tuple[str, ...]) -> bytes:
    axes: dict[str, dict[int, str]] = {}
    if request.dynamic:
        axes = {name: {2: f"height_{name[4:]}", 3: f"width_{name[4:]}"} for name in names}
        axes[INPUT_NAME] = {2: "height", 3: "width"}
        network = without_group_norm(network)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # this exporter is deprecated, but the new one cannot leave H and W open
        torch.onnx.export(
            with_leaky_relu(network),
            (torch.zeros(1, 3, request.height, request.width),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=list(names),
            dynamic_axes=axes,
        )
    return buffer.getvalue()


def _strip(model: Any) -> None:
    """Remove converter notes and documentation strings with source paths, which are not part of the
    network."""
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]


def convolution_weights(graph: Any) -> dict[str, str]:
    """Name of each convolution with trained weights -> its weight tensor, which fp16 rounds."""
    trained = {
        tensor.name for tensor in graph.initializer
    }  # constants of the exporter are Constant nodes
    return {
        node.name: node.input[1]
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in trained
    }


def _store_weights_as_float16(model: Any) -> None:
    """Keep every convolution weight as float16, cast back to float32 in the graph; biases stay
    float32."""
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    weights = set(convolution_weights(graph).values())
    casts = []
    for tensor in graph.initializer:
        if tensor.name in weights:
            name, half = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_fp16"))
            casts.append(
                onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}_cast", to=1)
            )  # 1: float32
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
