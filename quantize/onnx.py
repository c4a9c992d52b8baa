"""ONNX INT8: QuantizeLinear and DequantizeLinear around every layer (QDQ), written by ONNX
Runtime's own tool.

Weights are int8 with a scale per output channel, activations uint8 (int8 runs at half the speed on
x86). Ranges of the activations are measured here (:mod:`quantize.ranges`), weights that read pixels
are rounded here (:mod:`quantize.rounding`), and both are given to the tool. Input and outputs of
the file stay float32.

Operators such as Add and Resize are quantised if there is a quantised convolution before and after
them (:mod:`quantize.neighbours`). Group normalisation has no INT8 kernel: its operators stay in
float.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgeface.bundle import Bundle
from edgeface.errors import QuantizeError
from edgeface.images import Image
from edgeface.probes.onnxruntime import OnnxRuntimeProbe
from edgeface.types import Progress, unseen
from export.request import require
from quantize.base import Quantized, Quantizer
from quantize.neighbours import Operator, int8_after, int8_before
from quantize.ranges import observe
from quantize.rounding import pixel_weights

PIXEL_RANGE = (0.0, 255.0)
ACTIVATIONS = ("Clip", "Relu")
"""operators that are fused into the INT8 operator in front of them"""
CARRIED = ("Add", "AveragePool", "Concat", "LeakyRelu", "MaxPool", "Resize", *ACTIVATIONS)
"""operators other than Conv that INT8 can compute"""
MOVING = ("Pad", "Reshape", "Split", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
"""operators that only move values: not listed among the layers that stay in float"""


class OnnxQuantizer(Quantizer):
    """Makes a QDQ file from an fp32 .onnx."""

    target = "onnx"
    scales = ("mse", "max", "percentile", "kl")
    distributions = ("onnx", "onnxruntime")

    def __init__(
        self, bundle: Bundle, images: Sequence[Image], scale: str, progress: Progress = unseen
    ) -> None:
        require("quantising for onnx", "onnx", "onnxruntime")
        import onnx

        self._model = onnx.shape_inference.infer_shapes(onnx.load_from_string(bundle.read()))
        _constants_to_initializers(self._model.graph)
        with OnnxRuntimeProbe(bundle) as probe:
            observers = observe(probe, images, progress)
        self._source = bundle.manifest.input.name
        ranges = {name: observer.range(scale) for name, observer in observers.items()}
        self._ranges = ranges | {self._source: PIXEL_RANGE}
        self._outputs = tuple(value.name for value in self._model.graph.output)
        self._operators, self._kinds = _operators(self._model.graph, self._source)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(op.name for op in self._operators if op.layer)

    @property
    def float_layers(self) -> tuple[str, ...]:
        return tuple(
            f"{op.name} ({self._kinds[op.name]})"
            for op in self._operators
            if not op.carried and self._kinds[op.name] not in MOVING
        )

    def quantize(self, reverted: Collection[str] = ()) -> Quantized:
        self.require_known(reverted)
        model = _with_qdq(self._model, self._ranges, self._int8(reverted), self._source)
        return Quantized({".onnx": model.SerializeToString(deterministic=True)})

    def _int8(self, reverted: Collection[str]) -> list[str]:
        """Names of the operators to quantise."""
        before = int8_before(self._operators, reverted)
        between = before & int8_after(self._operators, self._outputs, reverted)
        chosen = []
        for op in self._operators:
            if op.layer:
                wanted = op.name not in reverted
            else:
                # If an activation is not quantised, the layer in front of it spends levels on
                # values that the activation cuts off.
                wanted = op.name in (before if self._kinds[op.name] in ACTIVATIONS else between)
            if op.carried and wanted:
                chosen.append(op.name)
        return chosen


def _constants_to_initializers(graph: Any) -> None:
    """Turn Constant nodes with weights, which onnxsim writes, into initializers: the tool quantises
    only these."""
    from onnx import numpy_helper

    weights = {name for node in graph.node if node.op_type == "Conv" for name in node.input[1:]}
    moved = [
        node for node in graph.node if node.op_type == "Constant" and node.output[0] in weights
    ]
    for node in moved:
        (value,) = (attribute.t for attribute in node.attribute if attribute.name == "value")
        graph.initializer.append(
            numpy_helper.from_array(numpy_helper.to_array(value), node.output[0])
        )
        graph.node.remove(node)


def _operators(graph: Any, source: str) -> tuple[list[Operator], dict[str, str]]:
    """(nodes that compute something from the image, in order; name -> operator type of each)."""
    activations = {source}
    found, kinds = [], {}
    for node in graph.node:
        inputs = tuple(name for name in node.input if name in activations)
        if not inputs:
            continue  # computed from weights alone
        activations.update(node.output)
        # An addition of constants is part of a normalisation, not a join of branches.
        carried = len(inputs) == 2 if node.op_type == "Add" else node.op_type in ("Conv", *CARRIED)
        found.append(
            Operator(node.name, inputs, tuple(node.output), node.op_type == "Conv", carried)
        )
        kinds[node.name] = node.op_type
    return found, kinds


def _with_qdq(
    model: Any, ranges: Mapping[str, tuple[float, float]], nodes: Sequence[str], source: str
) -> Any:
    """A copy of ``model`` in which ``nodes`` compute in INT8."""
    import onnx

    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    if nodes:
        overrides = _round_pixel_weights(quantized.graph, nodes, source)
        quantized = _run_tool(quantized, ranges, nodes, overrides)
    quantized.producer_name, quantized.producer_version = (
        model.producer_name,
        model.producer_version,
    )
    del quantized.metadata_props[:]
    del quantized.graph.value_info[:]  # it describes tensors that no longer exist
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def _round_pixel_weights(
    graph: Any, nodes: Collection[str], source: str
) -> dict[str, list[dict[str, Any]]]:
    """Round the weights of convolutions that read the image, directly or through Pad or Sub, with
    :func:`quantize.rounding.pixel_weights`.

    Returns their scales in the tool's format; with these the tool computes the same integers.
    """
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    weights = {tensor.name: tensor for tensor in graph.initializer}
    images, overrides = {source}, {}
    for node in graph.node:
        if node.op_type in ("Pad", "Sub") and node.input[0] in images:
            images.add(node.output[0])
        if node.op_type == "Conv" and node.input[0] in images and node.name in nodes:
            tensor = weights[node.input[1]]
            rounded, scale = pixel_weights(numpy_helper.to_array(tensor))
            tensor.CopyFrom(
                numpy_helper.from_array(rounded * scale[:, None, None, None], tensor.name)
            )
            common = {"axis": 0, "quant_type": QuantType.QInt8, "zero_point": np.int8(0)}
            overrides[tensor.name] = [common | {"scale": step} for step in scale]
    return overrides


def _run_tool(
    model: Any,
    ranges: Mapping[str, tuple[float, float]],
    nodes: Sequence[str],
    overrides: Mapping[str, Any],
) -> Any:
    from onnxruntime.quantization import QDQQuantizer, QuantType, TensorData

    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    logging.disable(logging.WARNING)  # it advises steps that are not needed here
    try:
        tool = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=data,
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv", *CARRIED],
            extra_options={"TensorQuantOverrides": dict(overrides)},
        )
        tool.quantize_model()
        tool.model.topological_sort()
    except Exception as error:  # whatever its version raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise QuantizeError(f"onnxruntime cannot quantise this file: {reason}") from error
    finally:
        logging.disable(logging.NOTSET)
    return tool.model.model
