"""TFLite: float32 NHWC raw pixels in, float32 NHWC heads out, and no TRANSPOSE in between.

litert-torch converts a graph to channels-last itself if every operator has such a form. Group
normalisation has none, so it is rewritten (:mod:`export.group_norm`), as are operators that INT8
files would keep in float (:mod:`export.rewrite`). fp16 stores convolution weights as float16 (float
casting of ai-edge-quantizer); the runtime converts them back to float32 at load time.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from edgeface.decode import head_layout
from edgeface.errors import ExportError
from edgeface.formats.tflite import with_buffers_inside
from edgeface.models.detector import FaceNet
from export.group_norm import ChannelSums, without_group_norm
from export.request import INPUT_NAME, Converted, ExportRequest, require, versions
from export.rewrite import without_minimum, without_nearest, without_prelu


def export_tflite(network: FaceNet, request: ExportRequest) -> Converted:
    """Convert the deployable ``network``. Raises MissingExtraError, ExportError if a TRANSPOSE
    would remain."""
    require("exporting to tflite", "litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    names = head_layout(network.architecture).output_names
    content = _convert(network, request, names)
    tools = ["torch", "litert-torch", "litert-converter", "ai-edge-litert"]
    if request.precision == "fp16":
        content = _store_weights_as_float16(content)
        tools.append("ai-edge-quantizer")
    operators = count_operators(content)
    if "TRANSPOSE" in operators:
        raise ExportError(
            f"the TFLite graph of {network.architecture.name} would have {operators['TRANSPOSE']} "
            "TRANSPOSE: one of its layers has no channels-last form"
        )
    return Converted(
        {".tflite": content}, "NHWC", {name: name for name in names}, operators, versions(*tools)
    )


def count_operators(content: bytes) -> dict[str, int]:
    """Operator -> number of times that a .tflite file contains it, read without a runtime."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    names = {
        code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
    }
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return dict(
        Counter(codes[op.opcodeIndex] for graph in model.subgraphs for op in graph.operators)
    )


def _convert(network: FaceNet, request: ExportRequest, names: tuple[str, ...]) -> bytes:
    import litert_torch

    network = without_nearest(without_minimum(without_prelu(without_group_norm(network))))
    heads = litert_torch.to_channel_last_io(network, args=[0], outputs=list(range(len(names))))
    wrapped = NamedHeads(heads, names).eval()
    image = torch.zeros(1, request.height, request.width, 3)
    content: bytes = litert_torch.convert(
        wrapped, sample_kwargs={INPUT_NAME: image}
    ).model_content()
    return content


class NamedHeads(nn.Module):
    """Keyword ``input`` [1, H, W, 3] -> {name: [1, H/s, W/s, C]}; the keyword and the keys become
    the names in the file."""

    def __init__(self, channels_last: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.heads, self.names = channels_last, names

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.heads(input), strict=True))


def _store_weights_as_float16(content: bytes) -> bytes:
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    recipe = quantizer.Quantizer(bytearray(content))
    recipe.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    # ChannelSums stay float32: the converter multiplies their weights, which are ones, by the
    # channels' share of a group, and 1/6 is not exact in float16.
    recipe.update_quantization_recipe(
        f".*{ChannelSums.__name__}.*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        None,
        algorithm_manager.AlgorithmName.NO_QUANTIZE,
    )
    return with_buffers_inside(bytes(recipe.quantize().quantized_model))
