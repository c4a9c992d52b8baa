"""TFLite on the CPU, through whichever runtime a device has: ai-edge-litert, tflite-runtime or TensorFlow."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import get_backend, import_runtime
from edgeface.bundle import Bundle
from edgeface.errors import BundleError
from edgeface.runners.base import Heads, Runner
from edgeface.runners.files import check_io, fixed_size, load_failed, to_nhwc, to_tensor


class TFLiteRunner(Runner):
    """Runs a Bundle of target ``tflite`` with XNNPACK.

    The manifest's names are those of the file's signature, which survive conversion; a file without a signature is
    addressed by tensor names.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        manifest = bundle.manifest
        if manifest.input.dynamic:
            raise BundleError(f"{bundle.path}: a tflite file has one fixed size, its manifest says dynamic")
        interpreter, runtime = _interpreter_class()
        super().__init__(manifest.model, manifest.head_layout, fixed_size(manifest), runtime, threads)
        content = bundle.read()
        try:
            self._interpreter = interpreter(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
            inputs, outputs = _details(self._interpreter)
        except Exception as error:  # ValueError and RuntimeError, by version
            raise load_failed(bundle, error) from None
        check_io(bundle, {name: [int(side) for side in d["shape"]] for name, d in inputs.items()}, outputs)
        self._input = int(inputs[manifest.input.name]["index"])
        self._outputs = {ours: int(outputs[theirs]["index"]) for ours, theirs in manifest.outputs.items()}
        self._layout = manifest.input.layout
        for name, detail in (*inputs.items(), *outputs.items()):
            if detail["dtype"] is not np.float32:
                raise BundleError(f"{bundle.path / manifest.primary}: tensor {name!r} is not float32")

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        self._interpreter.set_tensor(self._input, to_tensor(batch, self._layout))
        self._interpreter.invoke()
        return {
            name: to_nhwc(self._interpreter.get_tensor(self._outputs[name]), self._layout)
            for name in self.layout.output_names
        }

    def _close(self) -> None:
        del self._interpreter


def _interpreter_class() -> tuple[Any, str]:
    """The Interpreter class of the runtime that is installed, with package and version."""
    backend = get_backend("tflite")
    package = import_runtime(backend)
    name, version = backend.installed() or (package.__name__, "unknown")
    if package.__name__ == "tensorflow":
        return package.lite.Interpreter, f"{name} {version}"
    module = importlib.import_module(f"{package.__name__}.interpreter")
    return module.Interpreter, f"{name} {version}"


def _details(interpreter: Any) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Inputs and outputs as {name: details}: by signature where the file has one, by tensor name otherwise."""
    signatures = interpreter.get_signature_list()
    if signatures:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        return dict(runner.get_input_details()), dict(runner.get_output_details())
    by_name = [{d["name"]: d for d in details}
               for details in (interpreter.get_input_details(), interpreter.get_output_details())]
    return by_name[0], by_name[1]
