"""ONNX files for ``cv2.FaceDetectorYN``, made for YuNet. It expects at strides 8, 16 and 32

    cls_s, obj_s   [1, N, 1]    score = sqrt(cls * obj): both are our score
    bbox_s         [1, N, 4]    centre x, y from the corner of the cell, log width, log height
    kps_s          [1, N, 10]   five points x, y from the corner of the cell

in strides, for raw BGR pixels of any size in multiples of 32; N = cells of the level, row by row.
The weights of the first convolution are reversed along the channels, so that BGR costs nothing. 1x1
convolutions with weights 0, 1/2 and 1, which are exact, convert the distances of a box to centre
and size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeface.architecture.strides import STRIDES
from edgeface.bundle import Bundle, Manifest
from edgeface.decode import HeadLayout
from edgeface.types import Floats
from export.apis.base import Adapted, Batch, Outputs, largest_differences

SMALLEST = 1e-3
"""least side of a box, in strides, because the logarithm needs a positive number"""
CENTRE = ((-0.5, 0, 0.5, 0), (0, -0.5, 0, 0.5))
SIZE = ((1, 0, 1, 0), (0, 1, 0, 1))
"""rows: x, y; columns: left, top, right, bottom"""
OUTPUTS = tuple(f"{kind}_{s}" for kind in ("cls", "obj", "bbox", "kps") for s in STRIDES)


class OpenCV:
    """Adapter for ``cv2.FaceDetectorYN``."""

    target, dynamic = "onnx", True

    def refusal(self, layout: HeadLayout, precision: str) -> str:
        if not layout.landmarks:
            return (
                "cv2.FaceDetectorYN needs five landmarks a face: take a network that has them"
                " (edgeface-n, or a -kps one)"
            )
        if layout.anchors != 1 or layout.strides != STRIDES or layout.coding != "distance":
            return (
                "cv2.FaceDetectorYN takes one box a cell at strides 8, 16 and 32, and the heads of"
                " this network are others: take one with plain heads, such as edgeface-n"
            )
        return "" if precision == "fp32" else "cv2.FaceDetectorYN takes fp32 alone"

    def convert(self, bundle: Bundle) -> Adapted:
        import onnx

        model = onnx.load_from_string(bundle.read())
        graph = model.graph
        _reverse_channels(graph, bundle.manifest.input.name)
        _rename_outputs(graph)
        del graph.output[:]
        for stride in STRIDES:
            _append_level(graph, stride, bundle.manifest.head_layout.offset)
        onnx.checker.check_model(model, full_check=True)
        return Adapted(model.SerializeToString(deterministic=True), OUTPUTS, "BGR")

    def expected(self, heads: Mapping[str, Floats], manifest: Manifest) -> Outputs:
        offset, found = manifest.head_layout.offset, {}
        for s in STRIDES:
            cls, box, kps = (
                heads[f"{kind}_{s}"].astype(np.float64).reshape(1, -1, n)
                for kind, n in (("cls", 1), ("box", 4), ("kps", 10))
            )
            left, top, right, bottom = np.moveaxis(box, 2, 0)
            size = np.maximum(np.stack((left + right, top + bottom), 2), SMALLEST)
            centre = np.stack((right - left, bottom - top), 2) / 2 + offset
            found[f"cls_{s}"] = found[f"obj_{s}"] = 1 / (1 + np.exp(-cls))
            found[f"bbox_{s}"] = np.concatenate((centre, np.log(size)), 2)
            found[f"kps_{s}"] = kps + offset
        return found

    def run(self, content: bytes, batch: Batch) -> Outputs:
        import onnxruntime

        from edgeface.runners.onnxruntime import session_options

        session = onnxruntime.InferenceSession(
            content, session_options(onnxruntime, 1), providers=["CPUExecutionProvider"]
        )
        bgr = np.ascontiguousarray(batch[..., ::-1].transpose(0, 3, 1, 2), np.float32)
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, {session.get_inputs()[0].name: bgr})
        return dict(zip(names, values, strict=True))

    def differences(self, found: Outputs, expected: Outputs) -> dict[str, float]:
        return largest_differences(found, expected)


def _reverse_channels(graph: Any, source: str) -> None:
    """Reverse the weights of convolutions that read the image, so that they take BGR."""
    from onnx import numpy_helper

    readers = [node for node in graph.node if source in node.input]
    weights = {node.input[1] for node in readers if node.op_type == "Conv"}
    found = [tensor for tensor in graph.initializer if tensor.name in weights]
    assert readers and len(found) == len(readers), "a network begins with convolutions of the image"
    for tensor in found:
        reversed_ = np.ascontiguousarray(numpy_helper.to_array(tensor)[:, ::-1])
        tensor.CopyFrom(numpy_helper.from_array(reversed_, tensor.name))


def _rename_outputs(graph: Any) -> None:
    """Rename ``cls_8`` to ``heads/cls_8`` and so on, so that new outputs can have these names."""
    names = {output.name for output in graph.output}
    for node in graph.node:
        for places in (node.input, node.output):
            for i, name in enumerate(places):
                if name in names:
                    places[i] = f"heads/{name}"


def _append_level(graph: Any, stride: int, offset: float) -> None:
    """Add the operators and outputs of one level."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, values: Any, dtype: Any = np.float32) -> str:
        name = f"yunet/{name}_{stride}"
        graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def node(kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        output = f"yunet/{name}_{stride}"
        graph.node.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def linear(name: str, rows: Any, bias: float) -> str:
        weight = constant(f"{name}_weight", np.array(rows)[:, :, None, None])
        bias_name = constant(f"{name}_bias", [bias] * len(rows))
        return node("Conv", name, f"heads/box_{stride}", weight, bias_name, kernel_shape=[1, 1])

    def output(name: str, value: str, channels: int) -> None:
        rows = node("Transpose", f"{name}_rows", value, perm=[0, 2, 3, 1])
        shape = constant(f"{name}_shape", [1, -1, channels], np.int64)
        full = f"{name}_{stride}"
        graph.node.append(helper.make_node("Reshape", [rows, shape], [full], full))
        cells = f"cells_{stride}"
        graph.output.append(
            helper.make_tensor_value_info(full, TensorProto.FLOAT, [1, cells, channels])
        )

    score = node("Sigmoid", "score", f"heads/cls_{stride}")
    size = node("Max", "positive", linear("size", SIZE, 0), constant("smallest", SMALLEST))
    boxes = node(
        "Concat", "box", linear("centre", CENTRE, offset), node("Log", "log", size), axis=1
    )
    points = node("Add", "points", f"heads/kps_{stride}", constant("offset", offset))
    for name, value, channels in (
        ("cls", score, 1),
        ("obj", score, 1),
        ("bbox", boxes, 4),
        ("kps", points, 10),
    ):
        output(name, value, channels)
