"""OpenVINO with every activation as an output of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import get_backend, import_runtime
from edgeface.bundle import Bundle
from edgeface.probes.base import Probe, TensorInfo, Tensors
from edgeface.runners.files import load_failed, to_nhwc, to_tensor
from edgeface.runners.openvino import layer_name, read_model, settings

CONVOLUTIONS = ("Convolution", "GroupConvolution")
_ACTIVATIONS = ("Relu", "PRelu", "Clamp")
_SKIPPED = ("Constant", "Parameter", "Result", "FakeQuantize")


class OpenVinoProbe(Probe):
    """All activations of a Bundle of target ``openvino``.

    Tensors and layers have the names of the ONNX file that the model was made from. A convolution
    and the addition of its bias are one layer. In an INT8 file a tensor that FakeQuantize rounds is
    reported rounded, under its own name.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.manifest.model)
        openvino = import_runtime(get_backend("openvino"))
        core, model = read_model(bundle)
        try:
            watched = list(_watched(model))
            results = [openvino.opset13.result(port) for _, port in watched]
            opened = openvino.Model(results, model.get_parameters(), model.get_friendly_name())
            self._request = core.compile_model(opened, "CPU", settings(1)).create_infer_request()
        except Exception as error:
            raise load_failed(bundle, error) from None
        self._layout = bundle.manifest.input.layout
        self.tensors = tuple(info for info, _ in watched)

    def _run(self, image: NDArray[np.uint8]) -> Tensors:
        self._request.infer([to_tensor(image, self._layout)], share_outputs=True)
        return {
            info.name: _channels_last(
                np.array(self._request.get_output_tensor(i).data), self._layout
            )
            for i, info in enumerate(self.tensors)
        }

    def _free(self) -> None:
        self._request = None


def _watched(model: Any) -> Iterator[tuple[TensorInfo, Any]]:
    """Yield (tensor, port to read it at): the input, then the activations computed from it.

    These are the float32 activations, in order of execution."""
    (image,) = model.inputs
    name = min(image.get_names())
    yield TensorInfo(name, name, "Input"), _rounded(image)
    reached = {image.get_node().get_friendly_name()}
    for node in model.get_ordered_ops():
        sources = [value.get_node().get_friendly_name() for value in node.input_values()]
        if not reached.intersection(sources):
            continue  # computed from weights alone
        reached.add(node.get_friendly_name())
        if node.get_type_name() in _SKIPPED:
            continue
        for port in node.outputs():  # a port without a name lies inside one ONNX operator
            if (
                port.get_names()
                and port.get_element_type().get_type_name() == "f32"
                and not _fused(port)
            ):
                yield _info(node, port), _rounded(port)


def _info(node: Any, port: Any) -> TensorInfo:
    layer = node.input_value(0).get_node() if node.get_type_name() == "Add" else node
    if not (layer.get_type_name() in CONVOLUTIONS and _adds_bias_next(layer)):
        layer = node
    return TensorInfo(min(port.get_names()), layer_name(layer), layer.get_type_name())


def _adds_bias_next(node: Any) -> bool:
    """Is ``node`` a convolution whose only consumer adds a constant?"""
    if node.get_type_name() not in CONVOLUTIONS:
        return False
    consumers = [port.get_node() for port in node.output(0).get_target_inputs()]
    return (
        len(consumers) == 1
        and consumers[0].get_type_name() == "Add"
        and consumers[0].input_value(1).get_node().get_type_name() == "Constant"
    )


def _rounded(port: Any) -> Any:
    """The output of the FakeQuantize that rounds ``port`` for all its consumers, else ``port``."""
    consumers = [used.get_node() for used in port.get_target_inputs()]
    consumers = [node for node in consumers if node.get_type_name() != "Result"] or consumers
    if all(node.get_type_name() == "FakeQuantize" for node in consumers):
        return min(consumers, key=lambda node: str(node.get_friendly_name())).output(0)
    return port


def _fused(port: Any) -> bool:
    """Is ``port`` read only by activation functions whose result FakeQuantize rounds?

    The runtime computes these in one step, in integers. It would not if the probe read the tensor
    in between.
    """
    if _rounded(port) != port:
        return False
    consumers = [used.get_node() for used in port.get_target_inputs()]
    return all(
        node.get_type_name() in _ACTIVATIONS and _rounded(node.output(0)) != node.output(0)
        for node in consumers
    )


def _channels_last(value: NDArray[np.float32], layout: str) -> NDArray[np.float32]:
    return to_nhwc(value, layout) if value.ndim == 4 else np.array(value, np.float32)
