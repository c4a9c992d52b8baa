"""Editor for a .tflite file, to add operators behind its outputs and in front of its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.types import Floats

METADATA = b"TFLITE_METADATA"
OPTIONS = {
    "RESHAPE": "ReshapeOptions",
    "CONCATENATION": "ConcatenationOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
}
"""operator -> its table of options in the schema"""
VERSIONS = {"FULLY_CONNECTED": 5, "DEQUANTIZE": 2}
"""operator -> version that introduced keep_num_dims or int8; other operators have version 1"""


class GraphEditor:
    """Edits the first subgraph, the only one of our files. Tensors are identified by number."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils

        self.schema: Any = schema
        self.model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        self.graph: Any = self.model.subgraphs[0]
        self.signature: Any = self.model.signatureDefs[0]

    def output(self, name: str) -> int:
        """Tensor number of the output with this name in the signature."""
        found: int = next(o.tensorIndex for o in self.signature.outputs if o.name.decode() == name)
        return found

    def shape(self, tensor: int) -> list[int]:
        return [int(side) for side in self.graph.tensors[tensor].shape]

    def is_int8(self, tensor: int) -> bool:
        found: bool = self.graph.tensors[tensor].type == self.schema.TensorType.INT8
        return found

    def tensor(
        self, name: str, shape: Sequence[int], buffer: int = 0, kind: str = "FLOAT32"
    ) -> int:
        """Add a tensor, with the content of ``buffer`` or (0) without. Returns its number."""
        made = self.schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), list(shape), buffer
        made.type = getattr(self.schema.TensorType, kind)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: NDArray[Any]) -> int:
        """Add a tensor with constant values. Returns its number."""
        kind = {"float32": "FLOAT32", "int32": "INT32"}[values.dtype.name]
        return self.tensor(name, values.shape, self._buffer(values.tobytes()), kind)

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        output: int,
        first: bool = False,
        **options: Any,
    ) -> int:
        """Add a builtin operator, behind or, with ``first``, in front of all others. Returns
        ``output``."""
        operator = self._operator(self._code(kind), inputs, [output])
        if kind in OPTIONS:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, OPTIONS[kind])
            operator.builtinOptions = getattr(self.schema, OPTIONS[kind] + "T")()
            for name, value in options.items():
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.insert(0 if first else len(self.graph.operators), operator)
        return output

    def add_custom(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: bytes
    ) -> None:
        """Add a custom operator, which a runtime knows by name, behind all others."""
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = self.schema.BuiltinOperator.CUSTOM
        code.customCode, code.version = name.encode(), 1
        self.model.operatorCodes.append(code)
        operator = self._operator(len(self.model.operatorCodes) - 1, inputs, outputs)
        operator.customOptions = np.frombuffer(options, np.uint8)
        self.graph.operators.append(operator)

    def take_floats(self) -> None:
        """Turn an int8 input into one of float32 pixels."""
        inner = int(self.graph.inputs[0])
        if not self.is_int8(inner):
            return
        name = self.graph.tensors[inner].name.decode()
        self.graph.tensors[inner].name = f"{name}_int8".encode()
        outer = self.tensor(name, self.shape(inner))
        self.add("QUANTIZE", [outer], inner, first=True)
        self.graph.inputs = [outer]
        self.signature.inputs[0].tensorIndex = outer

    def give(self, outputs: Mapping[str, int]) -> None:
        """Make ``outputs`` (name in the signature -> tensor) the outputs of the file."""
        self.graph.outputs = list(outputs.values())
        self.signature.outputs = []
        for name, tensor in outputs.items():
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), tensor
            self.signature.outputs.append(entry)

    def describe(self, metadata: bytes) -> None:
        """Add TFLite Metadata to the file."""
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = METADATA, self._buffer(metadata)
        self.model.metadata = [*(self.model.metadata or []), entry]

    def dumps(self) -> bytes:
        from ai_edge_litert.tools import flatbuffer_utils

        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))

    def _buffer(self, content: bytes) -> int:
        made = self.schema.BufferT()
        made.data = np.frombuffer(content, np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1

    def _operator(self, code: int, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = code, list(inputs), list(outputs)
        return operator

    def _code(self, kind: str) -> int:
        builtin, version = getattr(self.schema.BuiltinOperator, kind), VERSIONS.get(kind, 1)
        for index, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == builtin and code.version >= version:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, builtin, version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def anchor_grid(cells: Mapping[int, tuple[int, int]], offset: float, anchors: int) -> Floats:
    """float32 [N, 4]: centre x, y, width, height of each anchor, 0 to 1. cells: stride -> (rows,
    columns)."""
    parts = []
    stride = min(cells)
    height, width = (side * stride for side in cells[stride])
    for s, (rows, columns) in cells.items():
        y, x = np.divmod(np.arange(rows * columns), columns)
        centre = np.stack(((x + offset) * s / width, (y + offset) * s / height), 1)
        side = np.broadcast_to((s / width, s / height), centre.shape)
        parts.append(np.repeat(np.concatenate((centre, side), 1), anchors, 0))
    return np.concatenate(parts).astype(np.float32)
