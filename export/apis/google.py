"""TFLite files for Google's object detectors: MediaPipe's, and that of the TFLite Task Library.

A few float operators are added behind the heads of a Bundle, float or INT8, and a QUANTIZE in front
of an int8 input, because these APIs pass float32 or uint8 pixels. The outputs, for all N anchors of
all levels, in sides of an anchor (its cell of s x s px):

    location [1, N, 4 + 10]   centre y, x: (bottom - top) / 2, (right - left) / 2;
                              height, width: top + bottom, left + right; then y, x of five points
    score    [1, N, 1]        0 to 1

A ``mediapipe`` file ends here, and MediaPipe decodes with the anchors in the metadata. In a
``task-library`` file, height and width are logarithms, there are no points, and the operator
TFLite_Detection_PostProcess decodes and applies NMS. The linear part is one FULLY_CONNECTED with
weights 0, 1/2 and 1, which is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeface.architecture.strides import LANDMARKS
from edgeface.bundle import Bundle, Manifest
from edgeface.decode import DEFAULT_IOU, HeadLayout, decode, nms
from edgeface.runners.tflite import load_runtime
from edgeface.types import Doubles, Floats
from export.apis.base import Adapted, Batch, Outputs, largest_differences
from export.apis.graph import GraphEditor, anchor_grid
from export.apis.metadata import raw_metadata, suppressed_metadata, with_labels

CORNERS = ((0, -0.5, 0, 0.5), (-0.5, 0, 0.5, 0), (0, 1, 0, 1), (1, 0, 1, 0))
"""rows: y, x, height, width; columns: left, top, right, bottom"""
SMALLEST = 1e-6
"""least side of a box, in sides of an anchor, because the logarithm needs a positive number"""
MOST = 100
"""largest number of faces that a file with NMS inside returns"""
LOWEST = 0.05
"""least score that a file with NMS inside returns; an app sets a higher threshold"""
SUPPRESSED = ("boxes", "classes", "scores", "count")
"""output names in the signature of a file with NMS inside, in the order that the APIs expect"""


class _Google:
    """Common parts of :class:`MediaPipe` and :class:`TaskLibrary`."""

    target, dynamic = "tflite", False

    def refusal(self, layout: HeadLayout, precision: str) -> str:
        if layout.coding != "distance":
            return "its boxes are coded by prior boxes: take a network of another family"
        return ""

    def run(self, content: bytes, batch: Batch) -> Outputs:
        interpreter = load_runtime().interpreter(model_content=content, num_threads=1)
        runner = interpreter.get_signature_runner()
        image = next(iter(runner.get_input_details()))
        return dict(runner(**{image: batch.astype(np.float32)}))


class MediaPipe(_Google):
    """Adapter for MediaPipe's ObjectDetector: no NMS in the file."""

    def convert(self, bundle: Bundle) -> Adapted:
        graph, manifest = GraphEditor(bundle.read()), bundle.manifest
        graph.take_floats()
        points = manifest.head_layout.landmarks
        location, score, anchors = _joined(graph, manifest, points)
        graph.give({"location": location, "score": score})
        graph.describe(raw_metadata(manifest.model, manifest.weights.licence, anchors, points))
        return Adapted(with_labels(graph.dumps()), ("location", "score"))

    def expected(self, heads: Mapping[str, Floats], manifest: Manifest) -> Outputs:
        location, score = _expected_parts(heads, manifest)
        return {"location": location, "score": score}

    def differences(self, found: Outputs, expected: Outputs) -> dict[str, float]:
        return largest_differences(found, expected)


class TaskLibrary(_Google):
    """Adapter for the Task Library's ObjectDetector, and MediaPipe's as well: NMS in the file."""

    def convert(self, bundle: Bundle) -> Adapted:
        graph, manifest = GraphEditor(bundle.read()), bundle.manifest
        graph.take_floats()
        location, score, anchors = _joined(graph, manifest, 0)
        outputs = {
            name: graph.tensor(name, shape)
            for name, shape in zip(
                SUPPRESSED, ([1, MOST, 4], [1, MOST], [1, MOST], [1]), strict=True
            )
        }
        yxhw = graph.constant("anchors", np.ascontiguousarray(anchors[:, [1, 0, 3, 2]]))
        inputs = [_log_sides(graph, location), score, yxhw]
        graph.add_custom(
            "TFLite_Detection_PostProcess", inputs, list(outputs.values()), _suppression()
        )
        graph.give(outputs)
        graph.describe(suppressed_metadata(manifest.model, manifest.weights.licence))
        return Adapted(with_labels(graph.dumps()), SUPPRESSED)

    def expected(self, heads: Mapping[str, Floats], manifest: Manifest) -> Outputs:
        spec = manifest.input
        boxes, scores, _ = decode(heads, manifest.head_layout, LOWEST)
        kept = nms(boxes, scores, DEFAULT_IOU)[:MOST]
        corners = boxes[kept][:, [1, 0, 3, 2]]
        return {"boxes": corners / ((spec.height, spec.width) * 2), "scores": scores[kept]}

    def differences(self, found: Outputs, expected: Outputs) -> dict[str, float]:
        """Differences of faces in any order: two with nearly equal scores may be swapped."""
        count = int(found["count"][0])
        boxes, scores = found["boxes"][0, :count], found["scores"][0, :count]
        if count != len(expected["scores"]) or found["classes"][0, :count].any():
            return {"count": float("inf")}
        if not count:
            return {"boxes": 0.0, "scores": 0.0}
        apart = np.abs(boxes[:, None] - expected["boxes"]).max(axis=2)
        of_score = np.abs(scores[:, None] - expected["scores"])
        twin = np.argmin(apart + of_score, axis=1)
        rows = np.arange(count)
        return {
            "boxes": float(apart[rows, twin].max()),
            "scores": float(of_score[rows, twin].max()),
        }


def _joined(graph: GraphEditor, manifest: Manifest, points: int) -> tuple[int, int, Floats]:
    """(location, score, anchors) of all levels, concatenated."""
    layout = manifest.head_layout
    values, logits = [], []
    cells: dict[int, tuple[int, int]] = {}
    kinds = {kind: n for kind, n in layout.channels.items() if kind != "kps" or points}
    for stride in layout.strides:
        rows = {
            kind: _rows(graph, manifest.outputs[f"{kind}_{stride}"], channels // layout.anchors)
            for kind, channels in kinds.items()
        }
        shape = graph.shape(graph.output(manifest.outputs[f"cls_{stride}"]))
        cells[stride] = (shape[1], shape[2])
        logits.append(rows.pop("cls"))
        values.append(_concatenated(graph, f"values_{stride}", list(rows.values()), 2))
    joined = _concatenated(graph, "values", values, 1)
    matrix = _matrix(points).astype(np.float32)
    location = graph.tensor("location", [1, graph.shape(joined)[1], len(matrix)])
    weights = graph.constant("sides", matrix)
    graph.add("FULLY_CONNECTED", [joined, weights, -1], location, keepNumDims=True)
    flat = _concatenated(graph, "logits", logits, 1)
    score = graph.add("LOGISTIC", [flat], graph.tensor("score", graph.shape(flat)))
    return location, score, anchor_grid(cells, layout.offset, layout.anchors)


def _rows(graph: GraphEditor, name: str, channels: int) -> int:
    """One head as float32 [1, anchors of the level, channels]."""
    tensor = graph.output(name)
    shape = graph.shape(tensor)
    if graph.is_int8(tensor):
        tensor = graph.add("DEQUANTIZE", [tensor], graph.tensor(f"{name}_float", shape))
    wanted = [1, int(np.prod(shape)) // channels, channels]
    made = graph.tensor(f"{name}_rows", wanted)
    new_shape = graph.constant(f"{name}_shape", np.array(wanted, np.int32))
    return graph.add("RESHAPE", [tensor, new_shape], made, newShape=wanted)


def _concatenated(graph: GraphEditor, name: str, tensors: list[int], axis: int) -> int:
    if len(tensors) == 1:
        return tensors[0]
    shape = graph.shape(tensors[0])
    shape[axis] = sum(graph.shape(tensor)[axis] for tensor in tensors)
    return graph.add("CONCATENATION", tensors, graph.tensor(name, shape), axis=axis)


def _matrix(points: int) -> Doubles:
    """Matrix that maps the box and landmark values of an anchor to those of location."""
    matrix = np.zeros((4 + 2 * points,) * 2)
    matrix[:4, :4] = CORNERS
    for i in range(points):
        x, y = 4 + 2 * i, 5 + 2 * i
        matrix[x, y] = matrix[y, x] = 1  # y first
    return matrix


def _log_sides(graph: GraphEditor, location: int) -> int:
    """location with height and width as logarithms."""
    shape = graph.shape(location)
    parts = []
    for name, rows in (("centre", (0, 1)), ("sides", (2, 3))):
        weights = graph.constant(f"{name}_rows", np.eye(4, dtype=np.float32)[list(rows)])
        part = graph.tensor(name, [1, shape[1], 2])
        parts.append(graph.add("FULLY_CONNECTED", [location, weights, -1], part, keepNumDims=True))
    smallest = graph.constant("smallest", np.full(1, SMALLEST, np.float32))
    positive = graph.add(
        "MAXIMUM", [parts[1], smallest], graph.tensor("positive_sides", [1, shape[1], 2])
    )
    parts[1] = graph.add("LOG", [positive], graph.tensor("log_sides", [1, shape[1], 2]))
    return _concatenated(graph, "coded", parts, 2)


def _suppression() -> bytes:
    """Options of TFLite_Detection_PostProcess."""
    from flatbuffers import flexbuffers

    builder: Any = flexbuffers.Builder()
    with builder.Map():
        for key, number in (
            ("max_detections", MOST),
            ("max_classes_per_detection", 1),
            ("detections_per_class", MOST),
            ("num_classes", 1),
        ):
            builder.Int(key, number)
        builder.Bool("use_regular_nms", False)
        for key, value in (
            ("nms_score_threshold", LOWEST),
            ("nms_iou_threshold", DEFAULT_IOU),
            *((f"{side}_scale", 1.0) for side in "yxhw"),
        ):
            builder.Float(key, value)
    return bytes(builder.Finish())


def _expected_parts(heads: Mapping[str, Floats], manifest: Manifest) -> tuple[Doubles, Doubles]:
    """(location, score) computed from heads, in float64."""
    layout = manifest.head_layout
    values: dict[str, Any] = {
        kind: np.concatenate(
            [
                heads[f"{kind}_{s}"].astype(np.float64).reshape(-1, n // layout.anchors)
                for s in layout.strides
            ]
        )
        for kind, n in layout.channels.items()
    }
    left, top, right, bottom = values["box"].T
    parts = [
        np.stack((bottom - top, right - left), 1) / 2,
        np.stack((top + bottom, left + right), 1),
    ]
    if layout.landmarks:
        parts.append(values["kps"].reshape(-1, LANDMARKS, 2)[:, :, ::-1].reshape(-1, 2 * LANDMARKS))
    return np.concatenate(parts, 1)[None], 1 / (1 + np.exp(-values["cls"]))[None]
