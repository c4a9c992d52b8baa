"""ONNX Runtime on the CPU: the float reference of the project."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import get_backend, import_runtime
from edgeface.bundle import Bundle, Ports
from edgeface.runners.base import Heads, Runner
from edgeface.runners.files import (
    check_io,
    fixed_size,
    load_failed,
    named_ports,
    to_nhwc,
    to_tensor,
)

OUTSIDE = b"location"
"""key of a tensor's ``external_data`` (onnx.proto); no name in edgeface's files contains it"""


class OnnxRuntimeRunner(Runner):
    """Runs a Bundle of target ``onnx``."""

    def __init__(self, bundle: Bundle, threads: int = 1, fast: bool = False) -> None:
        manifest = bundle.manifest
        ort = import_runtime(get_backend("onnx"))
        super().__init__(
            manifest.model,
            manifest.head_layout,
            fixed_size(manifest),
            f"onnxruntime {ort.__version__}",
            threads,
        )
        content = read_whole(bundle)
        try:
            self._session = ort.InferenceSession(
                content, session_options(ort, self.threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class but this
            raise load_failed(bundle, error) from None
        shapes = {i.name: i.shape for i in self._session.get_inputs()}
        check_io(bundle, shapes, [o.name for o in self._session.get_outputs()])
        self._input, self._layout = manifest.input.name, manifest.input.layout
        self._outputs, self._manifest = manifest.outputs, manifest

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        names = self.layout.output_names
        tensor = to_tensor(batch, self._layout)
        values = self._session.run([self._outputs[name] for name in names], {self._input: tensor})
        return {
            name: to_nhwc(value, self._layout) for name, value in zip(names, values, strict=True)
        }

    def _ports(self) -> Ports:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        return named_ports(self._manifest, [i.name for i in inputs], [o.name for o in outputs])

    def _delegates(self) -> dict[str, Any]:
        return {"providers": list(self._session.get_providers())}

    def _close(self) -> None:
        del self._session


def read_whole(bundle: Bundle) -> bytes:
    """Bytes of the file.

    Raises BundleError if it has tensors in other files: ONNX Runtime would take these, unchecked,
    from the current folder.
    """
    content = bundle.read()
    if OUTSIDE in content:
        raise load_failed(bundle, ValueError("it has tensors in other files"))
    return content


def session_options(ort: Any, threads: int) -> Any:
    """``onnxruntime.SessionOptions`` of one model at a time on ``threads`` threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are reported by our own one-line messages
    # Idle worker threads that spin slow down everything else on the device, and performance
    # collapses when cores are shared.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
