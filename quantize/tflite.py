"""TFLite INT8: ai-edge-quantizer with static 8-bit activations, per-channel weights, int8 input
and output.

The tool's own calibration is a moving average of minima and maxima, which cuts off rare values,
such as those of large faces. Ranges are therefore measured here (:mod:`quantize.ranges`) and given
to the tool. Outputs of PAD, RESIZE, MAX_POOL and other operators that only move values have the
range of their input, as the kernels require; the tool ensures that.

The input range is exactly 0 to 255: scale 1, zero point -128, so a pixel becomes int8 by flipping
its top bit. Weights that read pixels are rounded here (:mod:`quantize.rounding`).

With a layer kept in float, operators without weights whose inputs are all float become float, too;
the rest stays int8::

    int8 --DEQUANTIZE--> CONV_2D --float--> PAD --float--> CONV_2D --float--> ADD --> int8
                          kept                               kept              ^
                                                             another branch: int8

Once the convolution of an output is kept in float, all outputs are float32: eight bits would undo
most of the gain. So with every layer kept in float, the file computes what the float file
computes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Bundle
from edgeface.errors import QuantizeError
from edgeface.formats.tflite import with_buffers_inside
from edgeface.images import Image
from edgeface.probes.tflite import WEIGHTED, TFLiteProbe
from edgeface.quiet import quiet
from edgeface.types import Progress, unseen
from export.request import require
from quantize.base import Quantized, Quantizer
from quantize.ranges import observe
from quantize.rounding import pixel_weights

PIXEL_RANGE = (0.0, 255.0)
WEIGHT_LEVELS = 127
"""largest magnitude of a weight: two products with an int8 pixel, 2 * 128 * 127, fit in 16 bits,
in which ARM kernels add them"""
TOOL_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
"""operators that have another name in the tool"""
ISLANDS = ("QUANTIZE", "DEQUANTIZE")
"""operators that the tool inserts where int8 meets float"""


@dataclass(frozen=True)
class TFLiteOperator:
    """One node of a .tflite file."""

    kind: str
    """builtin operator, such as CONV_2D"""
    inputs: tuple[str, ...]
    """names of its input tensors, weights included"""
    outputs: tuple[str, ...]
    """names of its output tensors"""
    quantized: bool
    """True: its first output is int8"""


@dataclass(frozen=True)
class Graph:
    """Operators and tensors of a .tflite file, read from the file without a runtime."""

    operators: tuple[TFLiteOperator, ...]
    """in order of execution"""
    outputs: dict[str, str]
    """name in the signature -> name of the tensor"""
    scales: dict[str, tuple[float, float]]
    """name of an int8 activation -> (scale, zero point)"""

    @classmethod
    def read(cls, content: bytes) -> Graph:
        """Read the first subgraph; our networks have no other."""
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils

        model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        kinds = {
            code: name
            for name, code in vars(schema.BuiltinOperator).items()
            if isinstance(code, int)
        }
        graph = model.subgraphs[0]
        names = [tensor.name.decode() for tensor in graph.tensors]
        scales = {
            name: (float(tensor.quantization.scale[0]), float(tensor.quantization.zeroPoint[0]))
            for name, tensor in zip(names, graph.tensors, strict=True)
            if tensor.type == schema.TensorType.INT8 and len(tensor.quantization.scale) == 1
        }
        operators = tuple(
            TFLiteOperator(
                kinds[model.operatorCodes[op.opcodeIndex].builtinCode],
                tuple(names[i] for i in op.inputs if i >= 0),
                tuple(names[i] for i in op.outputs),
                graph.tensors[op.outputs[0]].type == schema.TensorType.INT8,
            )
            for op in graph.operators
        )
        outputs = {o.name.decode(): names[o.tensorIndex] for o in model.signatureDefs[0].outputs}
        return cls(operators, outputs, scales)


class TFLiteQuantizer(Quantizer):
    """Makes an int8 .tflite from an fp32 one."""

    target = "tflite"
    scales = ("max", "mse", "percentile", "kl")
    distributions = ("ai-edge-litert", "ai-edge-quantizer")

    def __init__(
        self, bundle: Bundle, images: Sequence[Image], scale: str, progress: Progress = unseen
    ) -> None:
        require("quantising for tflite", "ai_edge_litert", "ai_edge_quantizer")
        self._content = bundle.read()
        self._outputs = bundle.manifest.outputs
        self._graph = Graph.read(self._content)
        with TFLiteProbe(bundle) as probe:
            names = {tensor.name: tensor.layer for tensor in probe.tensors}
            observers = observe(probe, images, progress)
            self._source = probe.tensors[0].name
        self._layers = {
            names[op.outputs[0]]: op for op in self._graph.operators if op.outputs[0] in names
        }
        ranges = {name: observer.range(scale) for name, observer in observers.items()} | {
            self._source: PIXEL_RANGE
        }
        self._statistics: dict[str, dict[str, Any]] = {  # as from the tool's own calibration
            name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
            for name, (low, high) in ranges.items()
        }

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(
            name
            for name, op in self._layers.items()
            if op.kind in WEIGHTED and name not in self._unable
        )

    @property
    def float_layers(self) -> tuple[str, ...]:
        return tuple(f"{name} ({self._layers[name].kind})" for name in self._unable)

    @cached_property
    def _unable(self) -> tuple[str, ...]:
        """Layers that stay float even if none is reverted."""
        made = [op for op in Graph.read(self._convert(())).operators if op.kind not in ISLANDS]
        now_int8 = {
            op for op, new in zip(self._graph.operators, made, strict=True) if new.quantized
        }
        return tuple(name for name, op in self._layers.items() if op not in now_int8)

    def quantize(self, reverted: Collection[str] = ()) -> Quantized:
        self.require_known(reverted)
        content = self._convert(reverted)
        graph = Graph.read(content)
        tensors = {ours: graph.outputs[theirs] for ours, theirs in self._outputs.items()}
        if not all(tensor in graph.scales for tensor in tensors.values()):
            return Quantized({".tflite": content}, "int8")
        return Quantized(
            {".tflite": content}, "int8", {ours: graph.scales[t] for ours, t in tensors.items()}
        )

    def _convert(self, reverted: Collection[str]) -> bytes:
        from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

        tool = quantizer.Quantizer(bytearray(self._content))
        kinds = qtyping.TFLOperationName
        tool.add_static_config(".*", kinds.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
        floats = self._float_operators(reverted)
        named = ((op, TOOL_NAMES.get(op.kind, op.kind)) for op in floats)
        rules = [
            ("^" + re.escape("".join(f"{name};" for name in op.outputs)) + "$", kinds(kind))
            for op, kind in named
            if kind in kinds.__members__
        ]  # others are float in any case
        if set(self._graph.outputs.values()).intersection(
            name for op in floats for name in op.outputs
        ):
            rules.append((".*", kinds.OUTPUT))
        for scope, kind in rules:
            tool.update_quantization_recipe(
                scope, kind, None, algorithm_manager.AlgorithmName.NO_QUANTIZE
            )
        try:
            with quiet(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = tool.quantize(
                    self._statistics, enable_progress_bar=False, enable_progress_report=False
                )
        except Exception as error:  # whatever its version raises
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise QuantizeError(f"ai-edge-quantizer cannot quantise this file: {reason}") from error
        inside = with_buffers_inside(bytes(made.quantized_model))
        return _round_pixel_weights(inside, self._content)

    def _float_operators(self, reverted: Collection[str]) -> list[TFLiteOperator]:
        """The layers ``reverted``, and the operators without weights whose inputs are all float.

        An operator that reads only the image is float if all layers it feeds are ``reverted``:
        pixels are exact in int8, but the mean that PADV2 pads with is not, so with the first layer
        in float that border is float as well.
        """
        floats: list[TFLiteOperator] = []
        tensors: set[str] = set()
        for name, op in self._layers.items():
            fed_by = {source for source in op.inputs if source in self._statistics}
            if op.kind in WEIGHTED:
                kept = name in reverted
            elif fed_by == {self._source}:
                kept = all(
                    user in reverted
                    for user, other in self._layers.items()
                    if op.outputs[0] in other.inputs
                )
            else:
                kept = fed_by <= tensors
            if kept:
                floats.append(op)
                tensors.update(op.outputs)
        return floats


def _round_pixel_weights(content: bytes, source: bytes) -> bytes:
    """``content``, the int8 form of the float file ``source``, with weights that read the image
    rounded by :func:`pixel_weights`; the tool's scales, peak / WEIGHT_LEVELS, stay."""
    made = bytearray(content)
    original = dict(_pixel_filters(bytearray(source)))
    for position, filters in _pixel_filters(made):
        if filters.dtype == np.int8:  # else the layer is kept in float
            weight = original[position].transpose(0, 3, 1, 2)
            rounded, _ = pixel_weights(weight, WEIGHT_LEVELS)
            filters[...] = rounded.transpose(0, 2, 3, 1)
    return bytes(made)


def _pixel_filters(content: bytearray) -> Iterator[tuple[int, NDArray[Any]]]:
    """For each CONV_2D of a .tflite file that reads the image, directly or through operators that
    pad or convert it: (index among its CONV_2D, writable view of the weights [O, H, W, I])."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    kinds = schema.BuiltinOperator
    moving = {kinds.PAD, kinds.PADV2, kinds.QUANTIZE, kinds.DEQUANTIZE}
    pixels, position = {graph.Inputs(0)}, 0
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        kind = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if operator.Inputs(0) in pixels and kind in moving:
            pixels.add(operator.Outputs(0))
        elif kind == kinds.CONV_2D:
            if operator.Inputs(0) in pixels:
                tensor = graph.Tensors(operator.Inputs(1))
                data = model.Buffers(tensor.Buffer()).DataAsNumpy()
                dtype = np.int8 if tensor.Type() == schema.TensorType.INT8 else np.float32
                yield position, data.view(dtype).reshape(tensor.ShapeAsNumpy())
            position += 1
