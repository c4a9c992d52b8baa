"""TFLite files (FlatBuffers) as every version of the runtime reads them."""

from __future__ import annotations


def with_buffers_inside(content: bytes) -> bytes:
    """``content``, a .tflite file, with all weights in the FlatBuffer itself.

    ai-edge-quantizer puts larger ones behind it (``Buffer.offset`` and ``size`` of the schema,
    meant for files above 2 GB). Runtimes that are still in use take such a tensor for one without
    data: TensorFlowLiteC of CocoaPods, whose last version is 2.17, and TFLite Micro. The file
    written holds the same tensors and operators. Needs ai-edge-litert.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
