"""Assign faces to cells: cells, their boxes, and the assigners of this project's own networks.

Both assigners work on one flat list of faces of the whole batch, so there is no loop over images.
Cells are numbered level by level, row by row, anchor by anchor, exactly as :func:`flatten` lays out
the network's outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import edgeface.models.first_calls  # noqa: F401
from edgeface.decode import HeadLayout

ANCHOR_SCALE = 2.0
"""Side of anchor a of a cell, in strides: 2 * 2^a (SCRFD: 16 and 32 px at stride 8); a single
anchor has a side of 4 strides."""
LARGEST_GROWTH = 6.0
"""largest log(box side / prior side) that training decodes: after a bad step, exp of a larger
output would overflow"""


@dataclass(frozen=True)
class Cells:
    """Cells of all levels, numbered as in the module's docstring.

    point: float32 [A, 2] px; stride: float32 [A]; size: float32 [A, 2] px, width and height of the
    prior; level: int64 [A]. For networks without prior boxes the priors are square: the anchors of
    ATSS.
    """

    point: Tensor
    stride: Tensor
    size: Tensor
    level: Tensor

    def __len__(self) -> int:
        return len(self.stride)

    @property
    def priors(self) -> Tensor:
        """Boxes float32 [A, 4] px: ``size`` around each point."""
        return torch.cat([self.point - self.size / 2, self.point + self.size / 2], 1)


def make_cells(layout: HeadLayout, height: int, width: int, device: torch.device) -> Cells:
    """Cells of an input of ``height`` x ``width`` px.

    Each level has ceil(height / stride) rows of ceil(width / stride) cells.
    """
    points, strides, sizes, levels = [], [], [], []
    for level, s in enumerate(layout.strides):
        y, x = torch.meshgrid(
            torch.arange(-(-height // s), device=device),
            torch.arange(-(-width // s), device=device),
            indexing="ij",
        )
        point = (torch.stack([x, y], -1).reshape(-1, 1, 2) + layout.offset) * s
        points.append(point.expand(-1, layout.anchors, 2).reshape(-1, 2).float())
        n = len(points[-1])
        strides.append(torch.full((n,), float(s), device=device))
        sizes.append(
            torch.tensor(_prior_sizes(layout), device=device).mul(s).repeat(n // layout.anchors, 1)
        )
        levels.append(torch.full((n,), level, device=device))
    return Cells(torch.cat(points), torch.cat(strides), torch.cat(sizes), torch.cat(levels))


def _prior_sizes(layout: HeadLayout) -> list[tuple[float, ...]]:
    """Width and height of each anchor of a cell, in strides."""
    if layout.coding == "ssd":
        return [layout.prior] * layout.anchors
    return (
        [(4.0, 4.0)]
        if layout.anchors == 1
        else [(ANCHOR_SCALE * 2**a,) * 2 for a in range(layout.anchors)]
    )


def flatten(outputs: tuple[Tensor, ...], layout: HeadLayout) -> tuple[Tensor, ...]:
    """Network outputs -> one float32 [B, A, values of an anchor] per kind; [B, A] for ``cls``."""
    kinds = {kind: channels // layout.anchors for kind, channels in layout.channels.items()}
    flat = [
        torch.cat(
            [
                o.permute(0, 2, 3, 1).reshape(len(o), -1, values)
                for o in outputs[first :: len(kinds)]
            ],
            1,
        )
        for first, values in enumerate(kinds.values())
    ]
    return flat[0].squeeze(2).float(), *(values.float() for values in flat[1:])


def to_boxes(cells: Cells, coded: Tensor, layout: HeadLayout) -> Tensor:
    """Decode box outputs [..., A, 4] to boxes [..., A, 4], x1 y1 x2 y2 in px.

    The result is the same as that of :mod:`edgeface.decode`.
    """
    return (
        offsets_to_boxes(cells, coded)
        if layout.coding == "ssd"
        else distances_to_boxes(cells, coded)
    )


def offsets_to_boxes(cells: Cells, offsets: Tensor) -> Tensor:
    """Decode SSD offsets [..., A, 4] to boxes in px.

    Offsets are the shift of the centre in prior sizes, and the logarithm of size over prior size.
    """
    centre = cells.point + offsets[..., :2] * cells.size
    half = offsets[..., 2:].clamp(max=LARGEST_GROWTH).exp() * cells.size / 2
    return torch.cat([centre - half, centre + half], -1)


def boxes_to_offsets(point: Tensor, size: Tensor, boxes: Tensor) -> Tensor:
    """Encode boxes [K, 4] px as SSD offsets [K, 4].

    size, point: [K, 2] px, sizes and centres of the priors.
    """
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return torch.cat([(centre - point) / size, (extent.clamp(min=1e-3) / size).log()], 1)


def distances_to_boxes(cells: Cells, distances: Tensor) -> Tensor:
    """Distances [..., A, 4] in strides -> boxes [..., A, 4] x1 y1 x2 y2 in px."""
    reach = distances * cells.stride[:, None]
    return torch.cat([cells.point - reach[..., :2], cells.point + reach[..., 2:]], -1)


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes [..., 4] pair by pair."""
    overlap = (
        (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]))
        .clamp(min=0)
        .prod(-1)
    )
    areas = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1) + (b[..., 2:] - b[..., :2]).clamp(
        min=0
    ).prod(-1)
    return overlap / (areas - overlap).clamp(min=1e-6)


def atss(cells: Cells, boxes: Tensor, image: Tensor, top: int = 9) -> tuple[Tensor, Tensor]:
    """Adaptive training sample selection (Zhang et al., CVPR 2020, algorithm 1).

    On each level, the ``top`` anchors nearest to the face's centre are candidates. The face gets
    those whose IoU with it reaches mean + standard deviation over all its candidates, and whose
    point lies inside the face (nearest side over sqrt(area) > 0.001). Returns pairs face [K], cell
    [K].
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    candidates = []
    for level in range(int(cells.level[-1]) + 1):
        where = torch.nonzero(cells.level == level).squeeze(1)
        distance = torch.cdist(centre, cells.point[where])
        nearest = distance.topk(min(top, len(where)), largest=False).indices
        candidates.append(where[nearest])
    cell = torch.cat(candidates, 1)
    iou = pair_iou(cells.priors[cell], boxes[:, None])
    threshold = iou.mean(1) + iou.std(1)
    sides = torch.cat(
        [cells.point[cell] - boxes[:, None, :2], boxes[:, None, 2:] - cells.point[cell]], -1
    )
    size = (boxes[:, 2:] - boxes[:, :2]).prod(-1).clamp(min=1e-6).sqrt()
    chosen = (iou >= threshold[:, None]) & (sides.amin(-1) / size[:, None] > 0.001)
    face = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(cell)
    return _best_face(cells, image, face[chosen], cell[chosen], iou[chosen])


def dynamic(
    cells: Cells,
    boxes: Tensor,
    image: Tensor,
    logits: Tensor,
    predicted: Tensor,
    layout: HeadLayout,
) -> tuple[Tensor, Tensor]:
    """Cost-based one-to-many assignment, after SimOTA (YOLOX, Ge et al. 2021, section 2.1).

    Candidates of a face are the 3 x 3 cells around its centre on each level, so that a face smaller
    than a cell gets its share too. Cost = -log(score) - 3 log(IoU). A face takes the k cheapest; k
    is the sum of its 10 largest IoUs, rounded down, and at least 1. logits [B, A] and predicted
    boxes [B, A, 4] px carry no gradient here. Returns pairs face [K], cell [K].
    """
    cell, valid = _around(cells, boxes, layout)
    iou = pair_iou(predicted[image[:, None], cell], boxes[:, None]) * valid
    cost = (
        -F.logsigmoid(logits[image[:, None], cell]) - 3 * iou.clamp(min=1e-6).log() + 1e6 * ~valid
    )
    k = iou.topk(min(10, iou.shape[1])).values.sum(1).long().clamp(min=1)
    rank = cost.argsort(1).argsort(1)
    chosen = (rank < k[:, None]) & valid
    face = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(cell)
    return _best_face(cells, image, face[chosen], cell[chosen], -cost[chosen])


def _around(cells: Cells, boxes: Tensor, layout: HeadLayout) -> tuple[Tensor, Tensor]:
    """Numbers [F, K] of the 3 x 3 cells around each face's centre on every level; which exist."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    ring = torch.tensor([[x, y] for y in (-1, 0, 1) for x in (-1, 0, 1)], device=boxes.device)
    anchor = torch.arange(layout.anchors, device=boxes.device)
    first, numbers, valid = 0, [], []
    for s in layout.strides:
        on_level = cells.stride == s
        points = cells.point[on_level]
        columns, rows = ((points.amax(0) / s - layout.offset).round().long() + 1).tolist()
        at = (centre / s - layout.offset).round().long()[:, None] + ring
        ok = (at >= 0).all(-1) & (at[..., 0] < columns) & (at[..., 1] < rows)
        number = first + ((at[..., 1] * columns + at[..., 0]) * layout.anchors)[..., None] + anchor
        numbers.append(torch.where(ok[..., None], number, 0).flatten(1))
        valid.append(ok[..., None].expand_as(number).flatten(1))
        first += rows * columns * layout.anchors
    return torch.cat(numbers, 1), torch.cat(valid, 1)


def _best_face(
    cells: Cells, image: Tensor, face: Tensor, cell: Tensor, merit: Tensor
) -> tuple[Tensor, Tensor]:
    keep = best_of_cell(cells, image, face, cell, merit)
    return face[keep], cell[keep]


def best_of_cell(cells: Cells, image: Tensor, face: Tensor, cell: Tensor, merit: Tensor) -> Tensor:
    """Give a cell that several faces chose to the face with the highest merit.

    Equal merits go to the earlier face. Returns which of the pairs (face [K], cell [K]) to keep, in
    the order of images, then cells.
    """
    order = merit.argsort(descending=True, stable=True)
    key = (image[face] * len(cells) + cell)[order]
    by_key = key.argsort(stable=True)
    sorted_key = key[by_key]
    leads = torch.ones_like(sorted_key, dtype=torch.bool)
    leads[1:] = sorted_key[1:] != sorted_key[:-1]
    return order[by_key[leads]]


def ignored_cells(cells: Cells, boxes: Tensor, image: Tensor, batch: int) -> Tensor:
    """Cells with their point in one of ``boxes`` enlarged by half a stride: bool [batch, A]."""
    ignored = torch.zeros(batch, len(cells), dtype=torch.bool, device=boxes.device)
    margin = cells.stride[:, None] / 2
    # In parts, to bound the memory that a crowd takes.
    for part in torch.split(torch.arange(len(boxes), device=boxes.device), 512):
        b = boxes[part][:, None]
        inside = (cells.point > b[..., :2] - margin).all(-1) & (
            cells.point < b[..., 2:] + margin
        ).all(-1)
        which, cell = torch.nonzero(inside, as_tuple=True)
        ignored[image[part][which], cell] = True
    return ignored
