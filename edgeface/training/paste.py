"""Paste rectangles of some crops of a batch into others.

A network that is trained long on a few thousand photos learns their faces by heart. Pasted faces
are seen before other backgrounds, and partly covered. This is like CutMix (Yun et al., ICCV 2019)
and copy-paste (Ghiasi et al., CVPR 2021), but without masks: half of the rectangles are a face and
its surroundings, half are any part of a crop.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from edgeface.training.batch import Batch

PASTE_DRAWS = 9
"""random numbers per sample: whether to paste, from which crop, a face or any part; two for the
extent of the rectangle, two for its position, two for where it is pasted"""
AROUND_LOW, AROUND_HIGH = 0.3, 1.5
"""margin on each side of a face, as a share of its longer side; below the face it is 1.3 times as
large"""
PART_LOW, PART_HIGH = 0.25, 0.65
"""sides of any other rectangle, as shares of the crop's side"""
MOSTLY, WHOLLY = 0.5, 0.95
"""shares of a face that is covered, or outside its rectangle: above the first, the face is neither
learned nor background; above the second, it is dropped"""
SMALLEST_PX, LARGEST_SHARE = 8, 0.8
"""limits of a rectangle's shorter side, in px and as a share of the crop's side; other rectangles
are not pasted"""


class Pasted(NamedTuple):
    """Rectangles to paste.

    into, donor: int64 [J], numbers of the crops; source: int64 [J, 4], rectangle in the donor, x1
    y1 x2 y2 px; place: int64 [J, 2], its upper left corner in the crop ``into``, px.
    """

    into: Tensor
    donor: Tensor
    source: Tensor
    place: Tensor


def donors(draws: Tensor, share: float) -> Tensor:
    """Number of the crop from which each crop takes a part, int64 [B]; -1 for none, never itself.

    draws: [B, PASTE_DRAWS].
    """
    batch = len(draws)
    if batch < 2:
        return torch.full((batch,), -1)
    other = (torch.arange(batch) + 1 + (draws[:, 1] * (batch - 1)).long()) % batch
    return torch.where(draws[:, 0] < share, other, -1)


def paste(made: Batch, donor: Tensor, draws: Tensor, min_face_px: float) -> Batch:
    """Paste into the first B crops of ``made``, in place, and return them.

    Every rectangle shows a crop as it was before. donor: [B], numbers of crops of ``made``, see
    :func:`donors`; draws: [B, PASTE_DRAWS]. A pasted face of which less than ``min_face_px`` is
    left is not learned.
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
    """Choose the rectangles of the crops ``donor``, and where they go."""
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
    """Rectangle x1 y1 x2 y2 px, within the crop: around one of ``boxes``, or any part."""
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
    """Boxes, landmarks, ignore and image of the original faces of the first ``batch`` crops.

    Covered faces are dropped.
    """
    place = made.boxes.new_zeros(len(made.images), 4)
    extent = jobs.source[:, 2:] - jobs.source[:, :2]
    place[jobs.into] = torch.cat([jobs.place, jobs.place + extent], 1).float()
    covered = _area(_common(made.boxes, place[made.image])) / _area(made.boxes).clamp(min=1e-6)
    there = (covered <= WHOLLY) & (made.image < batch)
    ignore = made.ignore | (covered > MOSTLY)
    return tuple(v[there] for v in (made.boxes, made.landmarks, ignore, made.image))


def _brought(made: Batch, jobs: Pasted, min_face_px: float) -> tuple[Tensor, ...]:
    """Boxes, landmarks, ignore and image of the faces that come with the rectangles."""
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
    """Intersections of boxes [K, 4], pair by pair; sides are negative where there is none."""
    return torch.cat([torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])], 1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
