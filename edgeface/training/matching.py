"""Assign the prior boxes of the S3FD family to faces by overlap.

Both matchers start alike: every prior is compared with the face that it overlaps most, and every
face is given its best prior, however small the overlap. If two faces have the same best prior, the
later face gets it. The matchers differ in how much overlap makes another prior positive.

As in :mod:`edgeface.training.assign`, the faces of a batch are one flat list. Only pairs of a face
and a prior that touch are considered: a few hundred for a face, of the 34 125 priors of an input of
640 x 640 px.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeface.decode import HeadLayout
from edgeface.training.assign import Cells, best_of_cell, pair_iou

FORCED = 2.0
"""Merit of the best prior of face 0, above any IoU; for face i it is FORCED + i"""


def overlap(
    cells: Cells, boxes: Tensor, image: Tensor, layout: HeadLayout, threshold: float = 0.4
) -> tuple[Tensor, Tensor]:
    """Priors with an IoU of at least ``threshold``, and the best of each face.

    SSD's matching (Liu et al., ECCV 2016, section 2.2) with the threshold of DSFD and ASFD. Returns
    pairs face [K], cell [K].
    """
    face, cell, merit, _ = _matches(cells, boxes, image, layout, threshold)
    chosen = merit >= threshold
    return face[chosen], cell[chosen]


def compensated(
    cells: Cells,
    boxes: Tensor,
    image: Tensor,
    layout: HeadLayout,
    low: float = 0.1,
    middle: float = 0.35,
    high: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Scale compensation (Zhang et al., "S3FD", ICCV 2017, section 3.2).

    It starts as :func:`overlap` with ``middle``. Then N further priors of the image are added,
    those with the largest IoU between ``low`` and ``middle``, so that faces between two prior sizes
    have enough. In the paper N is per face: the mean number of priors that faces got. In the
    released code, and here, N is per image: the number of faces whose best IoU reaches ``middle``
    plus the number of those that reach ``high``, halved and rounded down. Returns pairs face [K],
    cell [K].
    """
    face, cell, merit, best = _matches(cells, boxes, image, layout, low)
    chosen = merit >= middle
    reached = (best >= middle).long() + (best >= high).long()
    images = int(image.max()) + 1 if len(image) else 0
    wanted = (
        torch.zeros(images, dtype=torch.long, device=image.device).index_add(0, image, reached) // 2
    )
    between = torch.nonzero((merit > low) & (merit < middle)).squeeze(1)
    between = between[merit[between].argsort(descending=True, stable=True)]
    of = image[face[between]]
    chosen[between[_rank(of, images) < wanted[of]]] = True
    return face[chosen], cell[chosen]


def touching(cells: Cells, boxes: Tensor, layout: HeadLayout) -> tuple[Tensor, Tensor]:
    """All pairs of a face and a prior that touch, and some others: face int64 [P], cell int64 [P].

    On each level the priors of a face lie in a rectangle of rows and columns::

        lowest column = (x1 - prior width / 2) / stride - offset, rounded down
    """
    faces, numbers, first = [], [], 0
    for s in layout.strides:
        points = cells.point[cells.stride == s]
        last = (points.amax(0) / s - layout.offset).round().long()
        for anchor in range(layout.anchors):
            reach = cells.size[first + anchor] / 2
            low = (
                ((boxes[:, :2] - reach) / s - layout.offset)
                .floor()
                .long()
                .clamp(min=0)
                .minimum(last)
            )
            high = (
                ((boxes[:, 2:] + reach) / s - layout.offset)
                .ceil()
                .long()
                .clamp(min=0)
                .minimum(last)
            )
            across, down = (high - low + 1).unbind(1)
            face = torch.repeat_interleave(
                torch.arange(len(boxes), device=boxes.device), across * down
            )
            at = (
                torch.arange(len(face), device=boxes.device)
                - ((across * down).cumsum(0) - across * down)[face]
            )
            column, row = low[face, 0] + at % across[face], low[face, 1] + at // across[face]
            faces.append(face)
            numbers.append(first + (row * (last[0] + 1) + column) * layout.anchors + anchor)
        first += len(points)
    return torch.cat(faces), torch.cat(numbers)


def _matches(
    cells: Cells, boxes: Tensor, image: Tensor, layout: HeadLayout, least: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Priors whose IoU reaches ``least`` or that are the best of a face, each with its face.

    Returns face [M], cell [M], merit [M] in the order of images, then cells; and the best IoU of
    each face [F]. The merit is the IoU, or more than any IoU for the best prior of a face. Of equal
    overlaps, the earlier face gets the prior, and the earlier prior is the best of a face.
    """
    face, cell = touching(cells, boxes, layout)
    iou = pair_iou(cells.priors[cell], boxes[face])
    best = torch.zeros(len(boxes), device=boxes.device).scatter_reduce(0, face, iou, "amax")
    candidates = torch.where(iou == best[face], cell, len(cells))
    own = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device).scatter_reduce(
        0, face, candidates, "amin", include_self=False
    )
    merit = torch.where(cell == own[face], FORCED + face, iou)
    likely = torch.nonzero(merit >= least).squeeze(1)
    keep = likely[best_of_cell(cells, image, face[likely], cell[likely], merit[likely])]
    return face[keep], cell[keep], merit[keep], best


def _rank(group: Tensor, groups: int) -> Tensor:
    """Place of each element among those of its group, int64 [K]: 0 for the first."""
    order = group.argsort(stable=True)
    count = torch.bincount(group, minlength=groups)
    rank = torch.empty_like(group)
    rank[order] = (
        torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group[order]]
    )
    return rank
