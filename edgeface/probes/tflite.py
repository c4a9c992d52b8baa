"""Every tensor of a TFLite file, and short names for layers instead of their module paths."""

from __future__ import annotations

import inspect
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Bundle
from edgeface.probes.base import Probe, TensorInfo, Tensors
from edgeface.runners.tflite import Runtime, dequantize, load_runtime, open_interpreter, to_input

WEIGHTED = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"))
"""operators with weights: these are the layers of a network, the others only connect them"""

_OUTPUT = re.compile(r"serving_default_(\w+?)_output")
_NETWORK = "FaceNet"
_SINGLE = "experimental_disable_delegate_node_fusion"


class TFLiteProbe(Probe):
    """Runs a Bundle of target ``tflite`` one operator at a time, so that each result can be read.

    With ai-edge-litert it runs the same kernels as :class:`~edgeface.runners.tflite.TFLiteRunner`
    (XNNPACK, one operator per partition), and the heads are equal bit by bit. Older runtimes cannot
    split a partition: there XNNPACK is left out, and float results differ by rounding, int8 ones by
    a few steps.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.manifest.model)
        runtime = load_runtime()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that keeping all tensors takes memory
            self._interpreter, inputs, _ = open_interpreter(
                bundle, runtime, num_threads=1, **_options(runtime)
            )
        spec = bundle.manifest.input
        self._layout, self._dtype = spec.layout, spec.dtype
        self._input = int(inputs[spec.name]["index"])
        self._indices: dict[str, int] = {}
        self._scales: dict[str, tuple[float, float] | None] = {}
        self.tensors = self._list_tensors(bundle)

    def _run(self, image: NDArray[np.uint8]) -> Tensors:
        self._interpreter.set_tensor(self._input, to_input(image, self._layout, self._dtype))
        self._interpreter.invoke()
        values: Tensors = {}
        for name, index in self._indices.items():
            value, scales = self._interpreter.get_tensor(index), self._scales[name]
            values[name] = (
                np.asarray(value, np.float32) if scales is None else dequantize(value, *scales)
            )
        return values

    def _free(self) -> None:
        self._interpreter = None

    def _list_tensors(self, bundle: Bundle) -> tuple[TensorInfo, ...]:
        """The input, then all tensors computed from it.

        Nodes that read only constants unpack weights and are left out."""
        found = [("INPUT", self._input)]
        live = {self._input}
        for node in self._interpreter._get_ops_details():
            if node["op_name"] != "DELEGATE" and live.intersection(
                map(int, node["inputs"])
            ):  # delegates are listed in addition to the operators that they run
                live.update(map(int, node["outputs"]))
                found += [(str(node["op_name"]), int(index)) for index in node["outputs"]]
        kept: list[tuple[str, str]] = []
        details = {int(d["index"]): d for d in self._interpreter.get_tensor_details()}
        for operator, index in found:
            detail = details[index]
            if detail["dtype"] in (np.float32, np.int8):
                name = str(detail["name"])
                self._indices[name] = index
                scale, zero_point = detail["quantization"]
                self._scales[name] = (
                    (float(scale), float(zero_point)) if detail["dtype"] is np.int8 else None
                )
                kept.append((name, operator))
        names = ("input", *layer_names(kept[1:]))
        return tuple(
            TensorInfo(name, layer, operator)
            for (name, operator), layer in zip(kept, names, strict=True)
        )


def layer_names(tensors: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Short, unique, stable names of layers.

    tensors: (name of the output tensor, operator) in order of execution. litert-torch names a
    tensor after the modules it comes from, with their classes::

        ...edgeface.models.detector.FaceNet_wrapped/edgeface.models.convnet.ConvNet_backbone/
        torch.nn.modules.container.Sequential_0/edgeface.models.blocks.ConvNorm_0/
        torch.nn.modules.conv.Conv2d_conv;1

    The layer is ``backbone.0.0`` if it has weights; ``backbone.0.0.pad`` and the like otherwise.
    The convolution that computes output ``cls_8`` is ``cls_8``. The second layer of a name gets
    ``:2``.
    """
    seen: Counter[str] = Counter()
    names = []
    for name, operator in tensors:
        short = _module_path(name)
        if operator not in WEIGHTED:
            short = f"{short}.{operator.lower()}".lstrip(".")
        seen[short] += 1
        names.append(short if seen[short] == 1 else f"{short}:{seen[short]}")
    return tuple(names)


def _module_path(tensor: str) -> str:
    """Attribute names from the network down to the module that computes ``tensor``."""
    output = _OUTPUT.search(tensor)
    if output:
        return output.group(1)
    paths = [
        part for part in tensor.split(";") if "/" in part
    ]  # one for each of several fused operators, that of the last one first
    if not paths:
        return tensor
    steps = [(step, *step.rpartition(".")[2].partition("_")[::2]) for step in paths[0].split("/")]
    tops = [i for i, (_, kind, _) in enumerate(steps) if kind == _NETWORK]
    steps = steps[tops[0] + 1 if tops else 0 :]
    if len(steps) > 1 and steps[-1][0].startswith("torch.nn.") and steps[-1][2] == "conv":
        steps.pop()  # a ConvNorm block is one layer, named without its convolution
    return ".".join(attribute or step for step, _, attribute in steps)


def _options(runtime: Runtime) -> dict[str, Any]:
    """Arguments of the class Interpreter that make it keep all tensors."""
    accepted: Sequence[str] = list(inspect.signature(runtime.interpreter.__init__).parameters)
    if _SINGLE in accepted:
        return {"experimental_preserve_all_tensors": True, _SINGLE: True}
    return {
        "experimental_preserve_all_tensors": True,
        "experimental_op_resolver_type": runtime.resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    }
