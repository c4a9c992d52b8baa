"""OpenVINO on the CPU."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import get_backend, import_runtime
from edgeface.bundle import MAX_SIDE_PX, Bundle, Ports
from edgeface.errors import BundleError
from edgeface.runners.base import Heads, Runner
from edgeface.runners.files import (
    check_io,
    fixed_size,
    load_failed,
    named_ports,
    to_nhwc,
    to_tensor,
)


class OpenVinoRunner(Runner):
    """Runs a Bundle of target ``openvino``, made for one image at a time.

    fast: leave the precision to OpenVINO, which computes in bfloat16 on CPUs with AMX or AVX-512
    BF16, in float16 on ARM.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, fast: bool = False) -> None:
        manifest = bundle.manifest
        openvino = import_runtime(get_backend("openvino"))
        runtime = f"openvino {openvino.__version__.partition('-')[0]}" + (" (fast)" if fast else "")
        super().__init__(
            manifest.model, manifest.head_layout, fixed_size(manifest), runtime, threads
        )
        core, model = read_model(bundle)
        try:
            compiled = core.compile_model(model, "CPU", settings(self.threads, fast))
            self._compiled, self._request = compiled, compiled.create_infer_request()
        except Exception as error:
            raise load_failed(bundle, error) from None
        self._layout, self._manifest = manifest.input.layout, manifest
        self._outputs = [
            (name, compiled.output(manifest.outputs[name])) for name in self.layout.output_names
        ]

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        found = self._request.infer([to_tensor(batch, self._layout)], share_outputs=True)
        # The request reuses its memory for the next image, so copies are returned.
        return {name: to_nhwc(np.array(found[port]), self._layout) for name, port in self._outputs}

    def _ports(self) -> Ports:
        inputs, outputs = self._compiled.inputs, self._compiled.outputs
        return named_ports(self._manifest, [_name(p) for p in inputs], [_name(p) for p in outputs])

    def _precision_hints(self) -> dict[str, Any]:
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        return {"INFERENCE_PRECISION_HINT": hint.get_type_name()}

    def _delegates(self) -> dict[str, Any]:
        """Kernel, such as ``brgconv_avx512_amx_i8`` -> number of operators that it runs."""
        kernels = Counter(
            node.get_rt_info()["primitiveType"].astype(str)
            for node in self._compiled.get_runtime_model().get_ops()
        )
        return {
            "kernels": {
                name: count
                for name, count in sorted(kernels.items())
                if not name.startswith("unknown")
            }
        }

    def _close(self) -> None:
        del self._compiled, self._request, self._outputs


def settings(threads: int, fast: bool = False) -> dict[str, Any]:
    """Settings with which the CPU plugin compiles a model.

    Without ``fast``, the plugin must not trade precision for speed by itself.
    """
    chosen: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return chosen if fast else chosen | {"INFERENCE_PRECISION_HINT": "f32"}


def read_model(bundle: Bundle) -> tuple[Any, Any]:
    """(openvino.Core, openvino.Model) of the verified bytes, checked against the manifest.

    Raises BundleError.
    """
    openvino = import_runtime(get_backend("openvino"))
    description = bundle.read()
    weights = bundle.read(_weights_name(bundle))
    try:
        check_ir(description, len(weights))
        core = openvino.Core()
        model = core.read_model(description, weights)
        inputs = {_name(port): _shape(port) for port in model.inputs}
        outputs = [name for port in model.outputs for name in port.get_names()]
    except Exception as error:  # our ValueError, or RuntimeError with the C++ source line
        raise load_failed(bundle, error) from None
    check_io(bundle, inputs, outputs)
    return core, model


def layer_name(node: Any) -> str:
    """Name of an operator in the ONNX file that it was converted from."""
    name: str = node.get_friendly_name()
    return name.removesuffix("/WithoutBiases")


def check_ir(description: bytes, weight_bytes: int) -> None:
    """Raise ValueError unless ``description`` is a sound OpenVINO .xml.

    All constants must lie in the ``weight_bytes`` bytes of the .bin, and all numbers in a sensible
    range. OpenVINO does not check all that it reads: a padding of 2^64 - 1, for example, makes it
    crash on the first image.
    """
    text = description.decode("utf-8")
    if "<!" in text:  # document types, entities, CDATA: OpenVINO writes none of them
        raise ValueError("not an OpenVINO model: the .xml has a <! declaration")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"not an OpenVINO model: the .xml is damaged: {error}") from None
    if root.tag != "net":
        raise ValueError("not an OpenVINO model: the .xml holds no <net>")
    for layer in root.iter("layer"):
        data = layer.find("data")
        if data is not None:
            _check_numbers(layer.get("name"), data)
            if layer.get("type") == "Const":
                _check_constant(layer.get("name"), data, weight_bytes)


def _check_numbers(name: str | None, data: ElementTree.Element) -> None:
    for key, value in data.items():
        if key not in ("offset", "size", "shape") and any(
            re.fullmatch(r"\s*-?\d+\s*", part) and abs(int(part)) > MAX_SIDE_PX
            for part in value.split(",")
        ):
            raise ValueError(f"{key} of layer {name!r} is out of range")


def _check_constant(name: str | None, data: ElementTree.Element, weight_bytes: int) -> None:
    try:
        offset, size = int(data.get("offset", "")), int(data.get("size", ""))
    except ValueError:
        raise ValueError(f"the .xml says nowhere where in the .bin constant {name!r} is") from None
    if offset < 0 or size < 0 or offset + size > weight_bytes:
        raise ValueError(
            f"the .bin holds {weight_bytes} bytes, constant {name!r} ends at {offset + size}: "
            "the .bin is truncated or of another model"
        )


def _weights_name(bundle: Bundle) -> str:
    """Name of the .bin that lies beside the primary .xml."""
    manifest = bundle.manifest
    names = [name for name in manifest.files if name.endswith(".bin")]
    if len(names) != 1:
        raise BundleError(
            f"{bundle.path}: an openvino model has one .bin file, its manifest lists {len(names)}: "
            "export the model again"
        )
    return names[0]


def _name(port: Any) -> str:
    return min(port.get_names(), default="")


def _shape(port: Any) -> list[object]:
    """Shape of a port; None for a dynamic dimension."""
    return [side.get_length() if side.is_static else None for side in port.partial_shape]
