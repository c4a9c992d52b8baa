"""Faces from a model file of edgeface, by its manifest.json: NumPy alone, to copy into an app.

photo --letterbox--> tensor --your runtime--> outputs --decode--> faces
"""

import json
from pathlib import Path

import numpy as np


class Decoder:
    """Does what ``contract`` says, a part of manifest.json; no other file is read."""

    def __init__(self, manifest):
        self.contract = json.loads(Path(manifest).read_text(encoding="utf-8"))["contract"]

    def fit(self, width, height):
        """Sides of a photo in px -> (its sides on the canvas, sides of the canvas)."""
        rule, source = self.contract["fit"], self.contract["input"]
        box = source["shape"][2:0:-1] if source["layout"] == "NHWC" else source["shape"][:1:-1]
        box = [rule["long_side_px"] or side for side in box]
        s = min(box[0] / width, box[1] / height)
        fitted = [min(b, max(1, round(v * s))) for b, v in zip(box, (width, height), strict=True)]
        if rule["long_side_px"]:
            box = [-(-v // rule["multiple_px"]) * rule["multiple_px"] for v in fitted]
        return fitted, box

    def letterbox(self, photo):
        """uint8 RGB [H, W, 3] -> uint8 canvas [H, W, 3]."""
        rule, (height, width) = self.contract["fit"], photo.shape[:2]
        fitted, (right, bottom) = self.fit(width, height)
        area = rule["shrink" if max(fitted) < max(width, height) else "enlarge"] == "area"
        down, across = _weights(height, fitted[1], area), _weights(width, fitted[0], area)
        small = np.einsum("ph,hwc->pwc", down, photo.astype(np.float32), optimize=True)
        canvas = np.full((bottom, right, 3), rule["value"], np.uint8)
        values = across @ small
        # OpenCV, which models are checked with, rounds bilinear values up from .625, and halves up
        # only where it halves a photo; else to even
        even = area and [width, height] != [2 * side for side in fitted]
        values = np.rint(values) if even else values + (0.5 if area else 0.375)
        canvas[: fitted[1], : fitted[0]] = values
        return canvas

    def tensor(self, canvas):
        """What the file takes: shape, layout and type as the contract has them."""
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
        fitted = self.fit(width, height)[0]
        factors = np.array([fitted[0] / width, fitted[1] / height] * 2)
        boxes = np.clip(boxes[kept] / factors, 0, [width, height] * 2)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        points = points[kept][inside] / factors[:2] if self.contract["landmarks"] else None
        return boxes[inside], scores[kept][inside], points

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


def _weights(old, new, area):
    """[new, old] px: how much of each old one is in a new one."""
    step, at = old / new, np.arange(new)[:, None]
    source = np.arange(old)
    if area:
        covered = np.minimum(source + 1, (at + 1) * step) - np.maximum(source, at * step)
        return np.maximum(covered, 0) / step
    centre = np.clip((at + 0.5) * step - 0.5, 0, old - 1)
    return np.maximum(1 - np.abs(source - centre), 0)


def _suppress(boxes, order, most):
    kept = []
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.prod(np.maximum(np.minimum(boxes[best, 2:], boxes[order, 2:]) - low, 0), axis=1)
        order = order[shared <= most * (area[best] + area[order] - shared)]
    return np.array(kept, int)
