"""TFLite on the CPU, in whichever runtime is installed.

That is ai-edge-litert, tflite-runtime or TensorFlow.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import get_backend, import_runtime
from edgeface.bundle import PIXEL_IN_INT8, Bundle, Port, Ports
from edgeface.errors import BundleError
from edgeface.quiet import quiet
from edgeface.runners.base import Heads, Runner
from edgeface.runners.files import check_io, fixed_size, load_failed, to_nhwc, to_tensor

Details = dict[str, dict[str, Any]]
"""tensor name -> the interpreter's details: index, shape, dtype, quantization"""


class TFLiteRunner(Runner):
    """Runs a Bundle of target ``tflite`` with XNNPACK.

    The manifest's names are those of the file's signature, which survive conversion; a file without
    a signature is addressed by tensor names. An int8 input takes pixel - 128, int8 outputs are
    dequantised.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, fast: bool = False) -> None:
        manifest = bundle.manifest
        runtime = load_runtime()
        super().__init__(
            manifest.model, manifest.head_layout, fixed_size(manifest), runtime.label, threads
        )
        self._interpreter, inputs, outputs = open_interpreter(
            bundle, runtime, num_threads=self.threads
        )
        self._input = int(inputs[manifest.input.name]["index"])
        self._outputs = {
            ours: int(outputs[theirs]["index"]) for ours, theirs in manifest.outputs.items()
        }
        self._layout, self._dtype = manifest.input.layout, manifest.input.dtype
        self._scales, self._manifest = manifest.output_quantization, manifest

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        self._interpreter.set_tensor(self._input, to_input(batch, self._layout, self._dtype))
        self._interpreter.invoke()
        return {
            name: to_nhwc(self._output(name), self._layout) for name in self.layout.output_names
        }

    def _output(self, name: str) -> NDArray[np.float32]:
        value: NDArray[Any] = self._interpreter.get_tensor(self._outputs[name])
        return value if self._scales is None else dequantize(value, *self._scales[name])

    def _ports(self) -> Ports:
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        names = self._manifest.outputs
        return Ports(
            next(iter(self._interpreter.get_signature_list()), None),
            _port(self._manifest.input.name, self._input, inputs),
            {ours: _port(names[ours], number, outputs) for ours, number in self._outputs.items()},
        )

    def _delegates(self) -> dict[str, Any] | None:
        """Number of operators, and of the partitions that a delegate took; 0 if it took none."""
        # Not public, so a version of the runtime may lack it.
        list_operators = getattr(self._interpreter, "_get_ops_details", None)
        if list_operators is None:
            return None
        names = [operator["op_name"] for operator in list_operators()]
        taken = names.count("DELEGATE")
        return {"operators": len(names) - taken, "delegate_partitions": taken}

    def _close(self) -> None:
        del self._interpreter


class Runtime:
    """The TFLite runtime that is installed."""

    def __init__(self, interpreter: Any, resolvers: Any, label: str) -> None:
        self.interpreter = interpreter
        """class Interpreter"""
        self.resolvers = resolvers
        """enum OpResolverType"""
        self.label = label
        """package and version"""


def load_runtime() -> Runtime:
    """Import the first runtime that is installed. Raises MissingExtraError."""
    backend = get_backend("tflite")
    package = import_runtime(backend)
    label = " ".join(backend.installed() or (package.__name__, "unknown"))
    if package.__name__ == "tensorflow":
        return Runtime(package.lite.Interpreter, package.lite.experimental.OpResolverType, label)
    module = importlib.import_module(f"{package.__name__}.interpreter")
    # Only a probe needs OpResolverType.
    return Runtime(module.Interpreter, getattr(module, "OpResolverType", None), label)


def open_interpreter(
    bundle: Bundle, runtime: Runtime, **options: Any
) -> tuple[Any, Details, Details]:
    """(interpreter with its tensors allocated, inputs, outputs), checked against the manifest.

    ``options``: arguments of the class Interpreter. Raises BundleError.
    """
    manifest = bundle.manifest
    if manifest.input.dynamic:
        raise BundleError(
            f"{bundle.path}: a tflite file has one fixed size, its manifest says dynamic"
        )
    content = bundle.read()
    try:
        with quiet():
            interpreter = runtime.interpreter(model_content=content, **options)
            interpreter.allocate_tensors()
        inputs, outputs = _details(interpreter)
    except Exception as error:  # ValueError or RuntimeError, depending on the version
        raise load_failed(bundle, error) from None
    check_io(
        bundle,
        {name: [int(side) for side in d["shape"]] for name, d in inputs.items()},
        outputs,
        ("float32", "int8"),
    )
    _check_types(bundle, inputs, outputs)
    return interpreter, inputs, outputs


def to_input(batch: NDArray[np.uint8], layout: str, dtype: str) -> NDArray[Any]:
    """uint8 [1, H, W, 3] -> input tensor of type ``dtype``, float32 or int8."""
    if dtype != "int8":
        return to_tensor(batch, layout)
    flipped = (batch ^ np.uint8(0x80)).view(np.int8)
    return np.ascontiguousarray(flipped if layout == "NHWC" else flipped.transpose(0, 3, 1, 2))


def dequantize(value: NDArray[Any], scale: float, zero_point: float) -> NDArray[np.float32]:
    """int8 -> float32 (value - zero point) * scale."""
    return (value.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _details(interpreter: Any) -> tuple[Details, Details]:
    """Inputs and outputs: by signature where the file has one, by tensor name otherwise."""
    signatures = interpreter.get_signature_list()
    if signatures:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        return dict(runner.get_input_details()), dict(runner.get_output_details())
    by_name = [
        {d["name"]: d for d in details}
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    ]
    return by_name[0], by_name[1]


def _port(name: str, number: int, details: list[dict[str, Any]]) -> Port:
    """Port of the tensor with index ``number`` in the graph, which is one of ``details``."""
    place = [detail["index"] for detail in details].index(number)
    return Port(name, details[place]["name"], place)


def _check_types(
    bundle: Bundle, inputs: Mapping[str, dict[str, Any]], outputs: Mapping[str, dict[str, Any]]
) -> None:
    """Raise BundleError unless types, scales and zero points of the file match the manifest."""
    manifest = bundle.manifest
    scales = manifest.output_quantization
    where = bundle.path / manifest.primary
    wanted: dict[str, tuple[float, ...] | None] = {
        manifest.input.name: PIXEL_IN_INT8 if manifest.input.dtype == "int8" else None
    }
    wanted |= {
        theirs: scales[ours] if scales else None for ours, theirs in manifest.outputs.items()
    }
    for name, expected in wanted.items():
        detail = inputs[name] if name == manifest.input.name else outputs[name]
        found, said = np.dtype(detail["dtype"]).name, "float32" if expected is None else "int8"
        if found != said:
            raise BundleError(
                f"{where}: tensor {name!r} is {found}, its manifest says {said}: export the model"
                " again"
            )
        scale, zero_point = (float(number) for number in detail["quantization"])
        if expected is not None and (scale, zero_point) != (float(expected[0]), float(expected[1])):
            raise BundleError(
                f"{where}: int8 tensor {name!r} has scale {scale:g} and zero point {zero_point:g},"
                f" its manifest says {expected[0]:g} and {expected[1]:g}: quantise the model again"
            )
