"""The multi-scale test of EXTD and EResFD: a photo in several sizes and mirrored, with a box vote.

A = sqrt(1700 * 1200 / (width * height)) is the factor that gives a photo the area of 1700x1200 px.

    view         px of the view / px of the photo                  boxes that count
    plain        1, or A if that is less                           all
    mirrored     the same                                          all
    small        .5, or .5 A if A < .75                            long side over 30 px
    large        A > 1: the lesser of A and 2; A > 2: also 4, 8,   short side under 100 px
                 ... below A, and A
                 else: half way between small and A                long side over 30 px

Box sides are those in the photo, plus 1 px. NMS runs on each view separately and leaves at most 750
boxes.

Sources: ``wider_test.py`` of clovaai/EXTD_Pytorch, ``test_wider.py`` of clovaai/EResFD;
:func:`box_vote` is theirs, too. They differ in what they do with a box that no other box agrees
with: EXTD drops it, EResFD keeps it.

Differences here: boxes are clipped to the photo. A view is padded to the multiple of 32 px that all
our networks take. A resized view less than 128 px high or wide is enlarged to that (to the area of
the largest view at most), and its boxes are scaled back by the factor after that enlargement;
EResFD divides by the factor from before, so that its boxes of flat photos are wrong, and EXTD has
no least size. Views that become equal, as for photos of less than 64 px, are merged into one: a box
that is found again in an equal view is no second box that agrees.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import OptionError
from edgeface.evaluation.wider import overlaps
from edgeface.images import Image, as_rgb, read_image
from edgeface.types import Doubles

SCORE_THRESHOLD = 0.05
NMS_IOU = 0.3
VOTE_IOU = 0.3
TOP_K = 750
"""most boxes of a view, and of a photo"""
AREA_PX = 1700 * 1200
MIN_SIDE_PX = 128
LARGE_SIDE_PX, SMALL_SIDE_PX = 30, 100


@dataclass(frozen=True)
class ScaledView:
    """One view of a photo: its scale, whether it is mirrored, and which boxes count."""

    scale: float
    """px of the view / px of the photo"""
    mirrored: bool = False
    counts: str = "all"
    """which boxes are kept: all, large or small ones"""

    def detect(self, image: Image, detect: Callable[[Image], Detections]) -> Detections:
        """Run ``detect`` on this view of ``image``; boxes in px of ``image``."""
        height, width = image.shape[:2]
        size = max(1, round(width * self.scale)), max(1, round(height * self.scale))
        seen = image[:, ::-1] if self.mirrored else image
        if size != (width, height):
            seen = np.asarray(cv2.resize(seen, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        found = detect(np.ascontiguousarray(seen))
        factors = np.array((size[0] / width, size[1] / height) * 2, np.float32)
        boxes = np.asarray(found.boxes[:TOP_K] / factors, np.float32)
        if self.mirrored:
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        kept = np.ones(len(boxes), np.bool_)
        if self.counts == "large":
            kept = sides.max(axis=1) > LARGE_SIDE_PX
        elif self.counts == "small":
            kept = sides.min(axis=1) < SMALL_SIDE_PX
        return Detections(boxes[kept], found.scores[:TOP_K][kept])


class MultiScaleDetector:
    """A Detector that runs on each photo in several sizes and mirrored.

    It is slow, and meant for figures that are compared with papers.
    """

    def __init__(self, detector: Detector, agreed_only: bool = False) -> None:
        """Use the network and the thresholds of ``detector``; closing either closes the network.

        agreed_only: keep only faces that two or more boxes agree on, as EXTD's test does; otherwise
        all, as EResFD's does. Raises OptionError for a model of one fixed size.
        """
        runner = detector.runner
        if runner.input_size is not None:
            raise OptionError(
                f"{runner.model} is fixed at {runner.input_size[0]}x{runner.input_size[1]} px and"
                " cannot look at a photo in several sizes: use a zoo name or a file exported with"
                " --dynamic"
            )
        self.runner = runner
        self.score_threshold, self.nms_iou = detector.score_threshold, detector.nms_iou
        self.agreed_only = agreed_only
        self.size = "multi-agreed" if agreed_only else "multi"
        self._single = Detector(runner, self.score_threshold, self.nms_iou, "original")

    def detect(self, image: NDArray[np.uint8] | Path | str) -> Detections:
        """Faces in one image, best first, in px of that image.

        image: see :meth:`Detector.detect`.
        """
        rgb = read_image(image) if isinstance(image, (str, os.PathLike)) else as_rgb(image)
        return detect_views(rgb, self._single.detect, self.agreed_only)


def detect_views(
    image: Image, detect: Callable[[Image], Detections], agreed_only: bool = False
) -> Detections:
    """Run ``detect`` on each view of ``image`` [H, W, 3] and merge the boxes by the vote."""
    found = [view.detect(image, detect) for view in views(image.shape[1], image.shape[0])]
    boxes, scores = box_vote(
        np.concatenate([f.boxes for f in found]).astype(np.float64),
        np.concatenate([f.scores for f in found]).astype(np.float64),
        agreed_only,
    )
    return Detections(boxes[:TOP_K].astype(np.float32), scores[:TOP_K].astype(np.float32))


def views(width: int, height: int) -> Iterator[ScaledView]:
    """The views of a photo of ``width`` x ``height`` px, in the order of the table above."""
    once: dict[tuple[float, bool], ScaledView] = {}
    for view in _rows(width, height):
        known = once.setdefault((view.scale, view.mirrored), view)
        if known.counts != view.counts:  # large and small boxes together are all boxes
            once[view.scale, view.mirrored] = replace(known, counts="all")
    return iter(once.values())


def _rows(width: int, height: int) -> Iterator[ScaledView]:
    """The rows of the table above; the least size can make some equal."""
    area = math.sqrt(AREA_PX / (width * height))
    least = _least_scale(width, height)
    small = 0.5 if area >= 0.75 else 0.5 * area
    plain = plain_scale(width, height)
    yield ScaledView(plain)
    yield ScaledView(plain, mirrored=True)
    yield ScaledView(max(small, least), counts="large")
    if area <= 1:
        yield ScaledView(max((small + area) / 2, least), counts="large")
        return
    scale = min(2.0, area)
    while scale < area:
        yield ScaledView(max(scale, least), counts="small")
        scale *= 2
    yield ScaledView(max(area, least), counts="small")


def plain_scale(width: int, height: int) -> float:
    """px of the plain view / px of the photo."""
    area = math.sqrt(AREA_PX / (width * height))
    return 1.0 if area >= 1 else max(area, _least_scale(width, height))


def _least_scale(width: int, height: int) -> float:
    """Scale that makes the short side 128 px; at most 1, or A above if that is more."""
    return min(MIN_SIDE_PX / min(width, height), max(1.0, math.sqrt(AREA_PX / (width * height))))


def box_vote(boxes: Doubles, scores: Doubles, agreed_only: bool = False) -> tuple[Doubles, Doubles]:
    """Merge overlapping boxes [N, 4] (x1, y1, x2, y2 in px); return boxes and scores, best first.

    The best box and all boxes with an IoU (+ 1 px convention) of .3 or more with it become one: the
    mean of their corners weighted by score, with the best score. The same follows with the best of
    the remaining boxes, and so on. agreed_only: groups of a single box are dropped.
    """
    order = np.argsort(-scores, kind="stable")
    corners, scores = boxes[order], scores[order]
    # x, y, w, h, as overlaps takes them
    rest = np.column_stack((corners[:, :2], corners[:, 2:] - corners[:, :2]))
    merged: list[Doubles] = []
    best: list[float] = []
    while len(rest):
        together = overlaps(rest[:1], rest)[0] >= VOTE_IOU
        if together.sum() > 1 or not agreed_only:
            # A least weight: boxes whose scores are all 0 have a mean, too.
            merged.append(
                np.average(corners[together], axis=0, weights=np.maximum(scores[together], 1e-9))
            )
            best.append(float(scores[0]))
        rest, corners, scores = rest[~together], corners[~together], scores[~together]
    return np.array(merged).reshape(-1, 4), np.array(best)
