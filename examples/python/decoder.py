"""Faces from a model file of edgeface, by its manifest.json: NumPy alone, to copy into an app.

photo --letterbox--> tensor --your runtime--> outputs --decode--> faces
"""

import json
from pathlib import Path

import numpy as np


class Decoder:
    """Follows ``contract``, a part of manifest.json; reads no other file."""

    def __init__(self, manifest):
        self.contract = json.loads(Path(manifest).read_text(encoding="utf-8"))["contract"]

    def fit(self, width, height):
        """Width and height of a photo in px -> (those on the canvas, those of the canvas)."""
        rule, source = self.contract["fit"], self.contract["input"]
        box = source["shape"][2:0:-1] if source["layout"] == "NHWC" else source["shape"][:1:-1]
        box = [rule["long_side_px"] or side for side in box]
        s = min(box[0] / width, box[1] / height)
        fitted = [min(b, max(1, round(v * s))) for b, v in zip(box, (width, height), strict=True)]
        if rule["long_side_px"]:
            box = [-(-v // rule["multiple_px"]) * rule["multiple_px"] for v in fitted]
        return fitted, box

    def letterbox(self, photo):
        """uint8 RGB [H, W, 3] -> uint8 canvas [H, W, 3].

        Pixels equal those of OpenCV, which models are checked with: the same sums in the same
        order, in integers where OpenCV uses them.
        """
        rule, (height, width) = self.contract["fit"], photo.shape[:2]
        fitted, (right, bottom) = self.fit(width, height)
        area = rule["shrink" if max(fitted) < max(width, height) else "enlarge"] == "area"
        whole = area and width % fitted[0] == height % fitted[1] == 0
        covered = width // fitted[0] * (height // fitted[1]) if whole else 1
        across = np.zeros((height, fitted[0], 3), np.float32)
        for at, share in zip(*_taps(width, fitted[0], area, whole), strict=True):
            across += share[:, None] * photo[:, at]
        levels = np.zeros((fitted[1], fitted[0], 3), np.float32)
        for at, share in zip(*_taps(height, fitted[1], area, whole), strict=True):
            share = share[:, None, None]
            if area:
                levels += share * across[at]
            else:
                levels += (across[at].astype(int) >> 4) * share.astype(int) >> 16
        levels *= np.float32(1 / covered if area else 0.25)
        halves = [width, height] == [2 * side for side in fitted]
        canvas = np.full((bottom, right, 3), rule["value"], np.uint8)
        even = area and not halves
        canvas[: fitted[1], : fitted[0]] = np.rint(levels) if even else levels + np.float32(0.5)
        return canvas

    def tensor(self, canvas):
        """Input tensor of the model: shape, layout and dtype of the contract."""
        source = self.contract["input"]
        values = (canvas / np.float32(source["scale"]) + source["zero_point"])[None]
        values = values.transpose(0, 3, 1, 2) if source["layout"] == "NCHW" else values
        return np.ascontiguousarray(values, source["dtype"])

    def decode(self, outputs, width, height):
        """Arrays in the order of contract.outputs, sides of the photo -> boxes [N, 4] (x1, y1, x2,
        y2), scores [N] and landmarks [N, 5, 2] or None, best first, in px of the photo."""
        levels, rule = {}, self.contract["results"]
        for spec, array in zip(self.contract["outputs"], outputs, strict=True):
            value = np.float32(spec["scale"]) * (array[0].astype(np.float32) - spec["zero_point"])
            value = value.transpose(1, 2, 0) if spec["layout"] == "NCHW" else value
            levels.setdefault(spec["stride"], {})[spec["kind"]] = value
        parts = [self._level(stride, level) for stride, level in levels.items()]
        scores, boxes, points = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(-scores, kind="stable")[: rule["candidates"]]
        kept = _suppress(boxes, order, rule["nms_iou"])
        means = _mean_landmarks(boxes, scores, points, order, kept, rule["nms_iou"])
        fitted = self.fit(width, height)[0]
        factors = np.array([fitted[0] / width, fitted[1] / height] * 2)
        boxes = np.clip(boxes[kept] / factors, 0, [width, height] * 2)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if not self.contract["landmarks"]:
            return boxes[inside], scores[kept][inside], None
        return boxes[inside], scores[kept][inside], means[inside] / factors[:2]

    def _level(self, stride, level):
        rule = self.contract["boxes"]
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-level["cls"].astype(np.float64)))
        picked = np.nonzero(scores >= self.contract["results"]["score"])
        row, column, _ = picked
        at = np.stack((column, row), 1) + rule["offset"]
        v = level["box"].reshape(*scores.shape, 4)[picked]
        low, high = at - v[:, :2], at + v[:, 2:]
        if rule["coding"] == "ssd":
            half = np.exp(v[:, 2:]) * rule["prior"] / 2
            centre = at + v[:, :2] * rule["prior"]
            low, high = centre - half, centre + half
        points = np.zeros((len(at), 5, 2))
        if self.contract["landmarks"]:
            points = at[:, None] + level["kps"].reshape(*scores.shape, 5, 2)[picked]
        return scores[picked], np.hstack((low, high)) * stride, points * stride


def _taps(old, new, area, whole):
    """Indices of old pixels for each of ``new`` ones, int [K, new], and weights, float32 [K, new].

    Area: overlap of the old pixel with the new one, in px if ``whole``, else scaled to a sum of 1.
    Bilinear: the two old pixels around the centre, with weights that sum to 2048.
    """
    step, i = old / new, np.arange(new)
    if not area:
        centre = ((i + 0.5) * step - 0.5).astype(np.float32)
        first = np.floor(centre)
        share = np.rint(2048 * (centre - first))
        at = np.stack((first, first + 1)).astype(int)
        return np.clip(at, 0, old - 1), np.stack((2048 - share, share))
    low, high = i * step, np.minimum((i + 1) * step, old)
    at = low.astype(int) + np.arange(int(step) + 2)[:, None]
    share = np.minimum(at + 1, high) - np.maximum(at, low)
    share = np.where(share > 1e-3, share, 0) / (1 if whole else high - low)
    return np.minimum(at, old - 1), share.astype(np.float32)


def _suppress(boxes, order, most):
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[_iou(boxes[best], boxes[order]) <= most]
    return np.array(kept, int)


def _mean_landmarks(boxes, scores, points, order, kept, most):
    """Mean landmarks of all candidates that overlap a face by more than ``most``, itself included,
    weighted as the contract says."""
    means = points[kept]
    for i, face in enumerate(kept):
        weight = np.maximum(_iou(boxes[face], boxes[order]) - most, 0) * scores[order]
        if weight.any():
            means[i] = np.average(points[order], axis=0, weights=weight)
    return means


def _iou(box, boxes):
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = [np.prod(np.maximum(b[..., 2:] - b[..., :2], 0), axis=-1) for b in (box, boxes)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)
