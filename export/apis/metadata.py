"""Metadata in a .tflite file for Google's object detectors.

TFLite Metadata is a FlatBuffer in the file (``M001``, metadata_schema.fbs); a zip behind it holds
the list of labels; the anchors for MediaPipe's own decoding are another FlatBuffer (``V001``,
object_detector_metadata_schema.fbs). Field numbers are those of the schemas.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np

from edgeface.types import Floats
from export.apis.flat import FlatTable, Scalar, dumps

LABELS = "labels.txt"
LABEL = "face"
PARSER = "1.0.0"
"""least version of the TFLite Metadata parser that supports all of this"""
FIRST_DATE = (1980, 1, 1, 0, 0, 0)
"""first date that a zip can hold; a fixed date makes the file reproducible"""
RGB, FEATURE, IMAGE, BOXES, NORMALIZATION = 1, 1, 2, 3, 1
"""members of the enum ColorSpaceType (RGB) and of the unions ContentProperties (FEATURE, IMAGE,
BOXES) and ProcessUnitOptions (NORMALIZATION)"""
AXIS_LABELS, VALUE_LABELS = 2, 3
"""AssociatedFileType: labels of an output's positions, and of its values"""
BOUNDARIES = 1
"""BoundingBoxType: two corners"""
CORNERS = (1, 0, 3, 2)
"""indices of left, top, right and bottom in ymin, xmin, ymax, xmax"""


def raw_metadata(name: str, licence: str, anchors: Floats, points: int) -> bytes:
    """Metadata of a file without NMS: outputs location and score, decoded by MediaPipe.

    anchors: float32 [N, 4], centre x, y, width, height, 0 to 1. points: number of landmarks behind
    the box in location.
    """
    outputs = [_boxes("location"), _feature("score", AXIS_LABELS)]
    options = _decoding(anchors, points)
    custom = [FlatTable({0: "DETECTOR_METADATA", 1: dumps(options, b"V001")})]
    return _model(name, licence, FlatTable({2: [_image()], 3: outputs, 9: custom}))


def suppressed_metadata(name: str, licence: str) -> bytes:
    """Metadata of a file with NMS: outputs location, category, score and number of detections."""
    count = "number of detections"
    outputs = [_boxes("location"), _feature("category", VALUE_LABELS), _feature("score")]
    group = FlatTable({0: "detection_result", 1: ["location", "category", "score"]})
    return _model(
        name, licence, FlatTable({2: [_image()], 3: [*outputs, _feature(count)], 8: [group]})
    )


def with_labels(content: bytes) -> bytes:
    """A .tflite file with the zip of its labels appended."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, FIRST_DATE), LABEL + "\n")
    return buffer.getvalue()


def _model(name: str, licence: str, graph: FlatTable) -> bytes:
    text = "Finds faces: one box a face."
    table = FlatTable({0: name, 1: text, 2: "1", 3: [graph], 5: licence, 7: PARSER})
    return dumps(table, b"M001")


def _image() -> FlatTable:
    """Metadata of the input: raw pixels, mean 0 and standard deviation 1."""
    content = FlatTable({0: Scalar("Uint8", IMAGE), 1: FlatTable({0: Scalar("Uint8", RGB)})})
    norm = FlatTable({0: np.zeros(1, np.float32), 1: np.ones(1, np.float32)})
    unit = FlatTable({0: Scalar("Uint8", NORMALIZATION), 1: norm})
    zero_to_255 = FlatTable({0: np.full(1, 255, np.float32), 1: np.zeros(1, np.float32)})
    return FlatTable({0: "image", 3: content, 4: [unit], 5: zero_to_255})


def _boxes(name: str) -> FlatTable:
    properties = FlatTable({0: np.array(CORNERS, np.uint32), 1: Scalar("Uint8", BOUNDARIES)})
    return FlatTable({0: name, 3: FlatTable({0: Scalar("Uint8", BOXES), 1: properties})})


def _feature(name: str, labels: int | None = None) -> FlatTable:
    table = FlatTable({0: name, 3: FlatTable({0: Scalar("Uint8", FEATURE), 1: FlatTable()})})
    if labels is not None:
        table[6] = [FlatTable({0: LABELS, 2: Scalar("Uint8", labels)})]
    return table


def _decoding(anchors: Floats, points: int) -> FlatTable:
    """ObjectDetectorOptions: values are in sides of an anchor, without exponential or sigmoid left
    to apply."""
    fixed = [
        FlatTable({i: Scalar("Float32", float(value)) for i, value in enumerate(anchor)})
        for anchor in anchors
    ]
    numbers = {0: 1, 1: len(anchors), 2: 4 + 2 * points, 3: 4, 4: points, 5: 2}
    decoding = FlatTable({field: Scalar("Int32", value) for field, value in numbers.items()})
    decoding |= {field: Scalar("Float32", 1.0) for field in (6, 7, 8, 9)}
    return FlatTable({0: PARSER, 1: FlatTable({0: FlatTable({0: fixed})}), 2: decoding})
