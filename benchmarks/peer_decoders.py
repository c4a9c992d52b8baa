"""How the outputs of published detectors become boxes and points, as their authors do it.

For a cell (column, row) of stride s, from the upper left corner of the input:

YuNet         score = sqrt(cls x obj), centre = (column, row) s + xy s, size = exp(wh) s,
              point = (column, row) s + xy s
SCRFD         two anchors a cell; distances to left, top, right, bottom of (column, row) s, and
              points from there, in strides
SSD family    priors around (column + .5, row + .5) s, variances .1 and .2, score = channel 1:
              centre = prior + .1 xy side, size = side exp(.2 wh), point = prior + .1 xy side
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgeface.decode import Decoded
from edgeface.types import Floats

Outputs = Mapping[str, Floats]
Size = tuple[int, int]
"""width, height of the input in px"""

STRIDES = (8, 16, 32)
VARIANCES = (0.1, 0.2)
ULTRA_LIGHT = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}
"""stride -> sides of the priors in px"""
RETINAFACE = {8: (10, 20), 16: (32, 64), 32: (128, 256)}


def decode_yunet(outputs: Outputs, size: Size) -> Decoded:
    """cls, obj, bbox and kps of strides 8, 16, 32, each [1, cells, channels]; every cell, in px."""
    boxes, scores, points = [], [], []
    for stride in STRIDES:
        cells = _cells(size, stride)
        cls, obj, box, kps = (
            outputs[f"{kind}_{stride}"][0] for kind in ("cls", "obj", "bbox", "kps")
        )
        centre, half = (cells + box[:, :2]) * stride, np.exp(box[:, 2:]) * (stride / 2)
        boxes.append(np.hstack((centre - half, centre + half)))
        scores.append(np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))[:, 0])
        points.append((cells[:, None] + kps.reshape(-1, 5, 2)) * stride)
    return _joined(boxes, scores, points)


def decode_scrfd(outputs: Outputs, size: Size) -> Decoded:
    """Outputs in the order of the file: three of scores, three of boxes, three of points."""
    values = [value[0] for value in outputs.values()]
    boxes, scores, points = [], [], []
    for stride, score, box, kps in zip(STRIDES, values[:3], values[3:6], values[6:], strict=True):
        cells = np.repeat(_cells(size, stride), 2, axis=0)
        boxes.append(np.hstack((cells - box[:, :2], cells + box[:, 2:])) * stride)
        scores.append(score[:, 0])
        points.append((cells[:, None] + kps.reshape(-1, 5, 2)) * stride)
    return _joined(boxes, scores, points)


def decode_ultra_light(outputs: Outputs, size: Size) -> Decoded:
    """boxes and scores, each [1, priors, channels]; no points."""
    return _decode_ssd(_priors(size, ULTRA_LIGHT), outputs["boxes"], outputs["scores"], None)


def decode_retinaface(outputs: Outputs, size: Size) -> Decoded:
    """loc, conf and landms, each [1, priors, channels]."""
    return _decode_ssd(
        _priors(size, RETINAFACE), outputs["loc"], outputs["conf"], outputs["landms"]
    )


def _decode_ssd(priors: Floats, coded: Floats, scores: Floats, kps: Floats | None) -> Decoded:
    centre = priors[:, :2] + coded[0, :, :2] * VARIANCES[0] * priors[:, 2:]
    half = priors[:, 2:] * np.exp(coded[0, :, 2:] * VARIANCES[1]) / 2
    points = []
    if kps is not None:
        offsets = kps[0].reshape(-1, 5, 2) * VARIANCES[0]
        points = [priors[:, None, :2] + offsets * priors[:, None, 2:]]
    return _joined([np.hstack((centre - half, centre + half))], [scores[0, :, 1]], points)


def _cells(size: Size, stride: int) -> Floats:
    """column, row [cells, 2], row by row."""
    columns, rows = (math.ceil(side / stride) for side in size)
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack((column, row), axis=1).astype(np.float32)


def _priors(size: Size, sides: Mapping[int, tuple[int, ...]]) -> Floats:
    """Centre x, y, width, height in px [priors, 4]; none is larger than the input."""
    levels = []
    for stride, level in sides.items():
        centres = np.repeat((_cells(size, stride) + 0.5) * stride, len(level), axis=0)
        lengths = np.tile(np.array(level, np.float32), len(centres) // len(level))
        levels.append(np.column_stack((centres, lengths, lengths)))
    return np.asarray(np.minimum(np.concatenate(levels), size * 2), np.float32)


def _joined(boxes: list[Floats], scores: list[Floats], points: list[Floats]) -> Decoded:
    return Decoded(
        np.concatenate(boxes).astype(np.float32),
        np.concatenate(scores).astype(np.float32),
        np.concatenate(points).astype(np.float32) if points else None,
    )
