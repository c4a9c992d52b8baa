"""ONNX Runtime with every activation as an output of the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import get_backend, has_module, import_runtime
from edgeface.bundle import Bundle
from edgeface.errors import MissingExtraError
from edgeface.probes.base import Probe, TensorInfo, Tensors
from edgeface.runners.files import check_io, load_failed, to_nhwc, to_tensor
from edgeface.runners.onnxruntime import read_whole, session_options


@dataclass(frozen=True)
class _Watched:
    """A tensor to report, and where to read it in the file."""

    info: TensorInfo
    source: str
    """name of the tensor that is read"""
    scale: NDArray[np.float32] | None = None
    """set where ``source`` is int8: value = (q - zero_point) * scale"""
    zero_point: NDArray[Any] | None = None


class OnnxRuntimeProbe(Probe):
    """All activations of a Bundle of target ``onnx``.

    In an INT8 file (QuantizeLinear and DequantizeLinear around each layer) a tensor is reported
    under the name that it has in the float file, with the value that the next layer sees. The probe
    reads the int8 tensor itself, so that ONNX Runtime still computes in int8.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.manifest.model)
        ort = import_runtime(get_backend("onnx"))
        if not has_module("onnx"):
            raise MissingExtraError("onnx", "export", "looking inside an onnx file")
        import onnx

        try:
            model = onnx.shape_inference.infer_shapes(onnx.load_from_string(read_whole(bundle)))
            self._watched = list(_watched(model))
            known = {value.name for value in model.graph.output}
            for source in dict.fromkeys(w.source for w in self._watched):
                if source not in known and source != bundle.manifest.input.name:
                    model.graph.output.append(onnx.ValueInfoProto(name=source))
            self._session = ort.InferenceSession(
                model.SerializeToString(),
                session_options(ort, 1),
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # the only base class that errors of onnx and onnxruntime share
            raise load_failed(bundle, error) from None
        inputs = {i.name: i.shape for i in self._session.get_inputs()}
        check_io(bundle, inputs, [o.name for o in self._session.get_outputs()])
        self._spec = bundle.manifest.input
        self.tensors = tuple(w.info for w in self._watched)

    def _run(self, image: NDArray[np.uint8]) -> Tensors:
        spec = self._spec
        fed = to_tensor(image, spec.layout)
        names = [o.name for o in self._session.get_outputs()]
        found = dict(zip(names, self._session.run(names, {spec.name: fed}), strict=True)) | {
            spec.name: fed
        }
        return {
            w.info.name: _channels_last(_dequantized(w, found[w.source]), spec.layout)
            for w in self._watched
        }

    def _free(self) -> None:
        self._session = None


def _watched(model: Any) -> Iterator[_Watched]:
    """The input, then every float activation that a node computes from it, in order."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    floats = _float_tensors(graph)
    rounded = {node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    (image,) = (value.name for value in graph.input if value.name not in constants)
    yield _watch(TensorInfo(image, image, "Input"), image, rounded, constants, graph)
    reached = {image}
    for node in graph.node:
        if not reached.intersection(node.input):
            continue  # computed from weights alone
        reached.update(node.output)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue  # reported as the tensor that they round
        for name in node.output:
            if name in floats:
                yield _watch(
                    TensorInfo(name, node.name, node.op_type), name, rounded, constants, graph
                )


def _watch(
    info: TensorInfo, name: str, rounded: dict[str, Any], constants: dict[str, Any], graph: Any
) -> _Watched:
    """How to read tensor ``name``: directly, or from the int8 tensor that it is rounded to."""
    from onnx import numpy_helper

    if name not in rounded:
        return _Watched(info, name)
    quantize = rounded[name]
    scale, zero_point = (numpy_helper.to_array(constants[key]) for key in quantize.input[1:3])
    outputs = {value.name for value in graph.output}
    for node in graph.node:  # of an output, the dequantised tensor has the name of the float file
        if (
            node.op_type == "DequantizeLinear"
            and node.input[0] == quantize.output[0]
            and node.output[0] in outputs
        ):
            info = TensorInfo(node.output[0], info.layer, info.operator)
    return _Watched(info, quantize.output[0], scale, zero_point)


def _float_tensors(graph: Any) -> set[str]:
    """Names of all tensors that hold float32."""
    from onnx import TensorProto

    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def _dequantized(watched: _Watched, value: NDArray[Any]) -> NDArray[np.float32]:
    if watched.scale is None or watched.zero_point is None:
        return value
    steps = value.astype(np.int32) - watched.zero_point.astype(np.int32)
    return steps.astype(np.float32) * watched.scale


def _channels_last(value: NDArray[np.float32], layout: str) -> NDArray[np.float32]:
    return to_nhwc(value, layout) if value.ndim == 4 else np.array(value, np.float32)
