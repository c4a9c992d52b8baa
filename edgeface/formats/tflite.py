"""TFLite files (FlatBuffers) in a form that every version of the runtime reads."""

from __future__ import annotations


def with_buffers_inside(content: bytes) -> bytes:
    """Return the .tflite file ``content`` with all weights inside the FlatBuffer.

    ai-edge-quantizer puts larger weights behind the FlatBuffer (``Buffer.offset`` and ``size`` of
    the schema, meant for files above 2 GB). Some runtimes still in use treat such a tensor as one
    without data: TensorFlowLiteC of CocoaPods, whose last version is 2.17, and TFLite Micro. The
    returned file has the same tensors and operators. Needs ai-edge-litert.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
