"""Rectangles of other crops of a batch, pasted into some of its crops.

Trained long on a few thousand photos, a network learns their faces by heart. Pasted, they are seen
before other backgrounds and partly covered. As CutMix (Yun et al., ICCV 2019) and copy-paste
(Ghiasi et al., CVPR 2021) do, without masks: half of the rectangles are a face and what is around
it, half are anything.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from edgeface.training.batch import Batch

PASTE_DRAWS = 9
"""Random numbers of a sample: whether, of which crop, a face or anything, two for the extent of the
rectangle, two for where it lies, two for where it goes"""
AROUND_LOW, AROUND_HIGH = 0.3, 1.5
"""what is taken on each side of a face, of its longer side; below it 1.3 times as much"""
PART_LOW, PART_HIGH = 0.25, 0.65
"""sides of another rectangle, of the crop's side"""
MOSTLY, WHOLLY = 0.5, 0.95
"""shares of a face that is covered, or that a rectangle leaves out, from which on it is neither
learned nor background, and from which on it is not there"""
SMALLEST_PX, LARGEST_SHARE = 8, 0.8
"""sides of a rectangle, px and of the crop's side: smaller ones, and those larger both ways, are
left out"""


class Pasted(NamedTuple):
    """into, donor int64 [J]: numbers of crops; source, place int64 [J, 4], [J, 2]: the rectangle,
    x1 y1 x2 y2 px, and where its upper left corner goes."""

    into: Tensor
    donor: Tensor
    source: Tensor
    place: Tensor


def donors(draws: Tensor, share: float) -> Tensor:
    """int64 [B]: of which crop of the batch each takes a part, never itself; -1 where of none.
    draws [B, PASTE_DRAWS]."""
    batch = len(draws)
    if batch < 2:
        return torch.full((batch,), -1)
    other = (torch.arange(batch) + 1 + (draws[:, 1] * (batch - 1)).long()) % batch
    return torch.where(draws[:, 0] < share, other, -1)


def paste(made: Batch, donor: Tensor, draws: Tensor, min_face_px: float) -> Batch:
    """The first B crops of ``made``, changed in place.

    Every rectangle is of a crop as it was before. donor [B] as :func:`donors` gives it, draws [B,
    PASTE_DRAWS]; a face of which less than ``min_face_px`` is left is not learned.
    """
    jobs, images = _jobs(made, donor, draws), made.images
    parts = [
        images[j, :, y1:y2, x1:x2].clone()
        for j, (x1, y1, x2, y2) in zip(jobs.donor.tolist(), jobs.source.tolist(), strict=True)
    ]
    for part, i, (x, y) in zip(parts, jobs.into.tolist(), jobs.place.tolist(), strict=True):
        images[i, :, y : y + part.shape[1], x : x + part.shape[2]] = part
    both = (_left(made, jobs, len(donor)), _brought(made, jobs, min_face_px))
    boxes, landmarks, ignore, image = (torch.cat(values) for values in zip(*both, strict=True))
    order = image.argsort(stable=True)
    return Batch(images[: len(donor)], boxes[order], landmarks[order], ignore[order], image[order])


def _jobs(made: Batch, donor: Tensor, draws: Tensor) -> Pasted:
    """Which rectangles of ``donor`` go where."""
    boxes, image, size = made.boxes[~made.ignore], made.image[~made.ignore], made.images.shape[-1]
    rows = []
    for i, j in enumerate(donor.tolist()):
        if j < 0:
            continue
        x1, y1, x2, y2 = _rectangle(boxes[image == j], draws[i, 2:7].tolist(), size)
        sides = x2 - x1, y2 - y1
        if SMALLEST_PX <= min(sides) <= LARGEST_SHARE * size:
            right, down = (int(draws[i, 7 + k] * (size - sides[k])) for k in (0, 1))
            rows.append((i, j, x1, y1, x2, y2, right, down))
    table = torch.tensor(rows, dtype=torch.long, device=boxes.device).view(-1, 8)
    return Pasted(table[:, 0], table[:, 1], table[:, 2:6], table[:, 6:])


def _rectangle(boxes: Tensor, draws: list[float], size: int) -> list[int]:
    """x1 y1 x2 y2 px, within the crop."""
    kind, first, second, right, down = draws
    if kind < 0.5 and len(boxes):
        x1, y1, x2, y2 = boxes[int(first * len(boxes))].tolist()
        more = max(x2 - x1, y2 - y1) * (AROUND_LOW + (AROUND_HIGH - AROUND_LOW) * second)
        corners = [x1 - more, y1 - more, x2 + more, y2 + 1.3 * more]
    else:
        width, height = (size * (PART_LOW + (PART_HIGH - PART_LOW) * u) for u in (first, second))
        left, top = right * (size - width), down * (size - height)
        corners = [left, top, left + width, top + height]
    return [min(max(round(value), 0), size) for value in corners]


def _left(made: Batch, jobs: Pasted, batch: int) -> tuple[Tensor, ...]:
    """Boxes, landmarks, ignore and image of the faces that the first ``batch`` crops had, without
    those that are covered."""
    place = made.boxes.new_zeros(len(made.images), 4)
    extent = jobs.source[:, 2:] - jobs.source[:, :2]
    place[jobs.into] = torch.cat([jobs.place, jobs.place + extent], 1).float()
    covered = _area(_common(made.boxes, place[made.image])) / _area(made.boxes).clamp(min=1e-6)
    there = (covered <= WHOLLY) & (made.image < batch)
    ignore = made.ignore | (covered > MOSTLY)
    return tuple(v[there] for v in (made.boxes, made.landmarks, ignore, made.image))


def _brought(made: Batch, jobs: Pasted, min_face_px: float) -> tuple[Tensor, ...]:
    """The same of the faces that come with the rectangles."""
    job, face = torch.nonzero(jobs.donor[:, None] == made.image, as_tuple=True)
    source, boxes, points = jobs.source[job], made.boxes[face], made.landmarks[face]
    shift = (jobs.place[job] - source[:, :2]).float()
    part = _common(boxes, source)
    left_out = 1 - _area(part) / _area(boxes).clamp(min=1e-6)
    small = (part[:, 2:] - part[:, :2]).amin(1) < min_face_px
    inside = (points >= source[:, None, :2]) & (points < source[:, None, 2:])
    points = torch.where(inside.all(2, keepdim=True), points + shift[:, None], torch.nan)
    ignore = made.ignore[face] | (left_out > MOSTLY) | small
    there = left_out <= WHOLLY
    return tuple(v[there] for v in (part + shift.repeat(1, 2), points, ignore, jobs.into[job]))


def _common(a: Tensor, b: Tensor) -> Tensor:
    """What boxes [K, 4] have in common, pair by pair; sides below 0 where nothing."""
    return torch.cat([torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])], 1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
