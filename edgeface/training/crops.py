"""Crops of the S3FD family, as in EXTD's released code (after S3FD and PyramidBox).

    data-anchor sampling   a face of the image is scaled to the size of a prior times 2^U(-1, 1);
                           the prior is drawn from those up to the next one above the face's own
                           size; the crop then lies anywhere around the face
    square parts           five squares, one as large as the image allows, four of .3 to 1 of that;
                           each is drawn until it contains a face, 50 times at most; one of those
                           with a face is taken

Differences from the released code: crops come from photos of at most LONG_SIDE_PX. A face never
becomes larger than the crop (theirs may, and the crop is then drawn up to 50 times in the hope of
other faces). If no square part contains a face, the whole photo is letterboxed as in the detector,
not stretched. Outside the photo a crop is black, not mean grey, and it can reach equally far beyond
each side. All resizing is bilinear, not with a filter drawn at random. Colours change as in all our
crops: the same four changes with the same strength, but in one fixed order.

The functions that pick faces of images serve the other crops, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeface.training.dataset import Cache

ANCHORS_PX = (16, 32, 64, 128, 256, 512)
LARGEST_PX = 12_000
"""Data-anchor sampling enlarges a photo to the area of a square of this side at most"""
PARTS, TRIALS = 5, 50
SMALLEST_PART = 0.3
TRIAL_DRAWS = 2 + 3 * PARTS * TRIALS
"""Random numbers for one sample: the prior, which part, and side, x and y of every trial"""


def faces_of(cache: Cache, index: Tensor) -> tuple[Tensor, Tensor]:
    """All faces of the images ``index`` [B].

    Returns face int64 [F], numbered as in the cache, and image int64 [F], positions in ``index``.
    """
    count = cache.count[index]
    image = torch.repeat_interleave(torch.arange(len(index), device=count.device), count)
    start = count.cumsum(0) - count
    return (
        cache.first[index][image] + torch.arange(len(image), device=count.device) - start[image],
        image,
    )


def chosen_face(cache: Cache, index: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
    """One face of each image, or the whole image if it has none: box [B, 4] px, extent [B, 2] px.

    draw: [B], which face; extent: width and height of the image.
    """
    count = cache.count[index]
    face = (cache.first[index] + (draw * count).long()).clamp(max=max(len(cache.boxes) - 1, 0))
    extent = torch.stack([cache.level_width[index, 0], cache.level_height[index, 0]], 1).float()
    whole = torch.cat([0 * extent, extent], 1)
    return (
        torch.where(count[:, None] > 0, cache.boxes[face], whole) if len(cache.boxes) else whole
    ), extent


def largest_face(cache: Cache, index: Tensor) -> Tensor:
    """Box [B, 4] px of the largest face of each image that is not ignored; of equal ones the last.

    An empty box where an image has none.
    """
    face, image = faces_of(cache, index)
    learned = ~cache.ignore[face]
    face, image = face[learned], image[learned]
    if not len(face):
        return torch.zeros(len(index), 4, device=index.device)
    boxes = cache.boxes[face]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    most = torch.zeros(len(index), device=index.device).scatter_reduce(0, image, area, "amax")
    leads = area == most[image]
    number = torch.zeros_like(index).scatter_reduce(0, image[leads], face[leads], "amax")
    return torch.where(most[:, None] > 0, cache.boxes[number], 0)


def s3fd_crop(
    cache: Cache,
    anchor_share: float,
    size: int,
    index: Tensor,
    rand: tuple[Tensor, ...],
    trials: Tensor,
) -> tuple[Tensor, Tensor]:
    """Scale [B] (crop px per photo px) and crop origin [B, 2] (x, y in px of the photo).

    anchor_share: share of data-anchor sampling. rand: five random numbers [B] each; trials: further
    ones [B, TRIAL_DRAWS].
    """
    box, extent = chosen_face(cache, index, rand[0])
    anchored = (rand[2] < anchor_share) & (cache.count[index] > 0)
    scale = torch.where(anchored, _anchor_scale(box, extent, size, rand[1], trials[:, 0]), 1.0)
    side = (size / scale)[:, None]
    whole = extent.amax(1, keepdim=True) <= side
    low = torch.where(whole, extent - side, box[:, 2:] - side)
    high = torch.where(whole, 0.0, box[:, :2])
    origin = low + (high - low) * torch.stack(rand[3:5], 1)
    part_side, part_origin = _square_part(cache, index, extent, trials[:, 1:])
    return torch.where(anchored, scale, size / part_side), torch.where(
        anchored[:, None], origin, part_origin
    )


def _anchor_scale(box: Tensor, extent: Tensor, size: int, spread: Tensor, choice: Tensor) -> Tensor:
    """Scale [B] of data-anchor sampling. A face's side is sqrt((width + 1) * (height + 1))."""
    sides = box[:, 2:] - box[:, :2]
    side = (sides + 1).prod(1).sqrt()
    anchors = torch.tensor(ANCHORS_PX, device=box.device)
    own = (anchors - side[:, None]).abs().argmin(1)
    choices = (own + 1).clamp(max=len(anchors) - 1) + 1
    target = anchors[torch.minimum((choice * choices).long(), choices - 1)]
    scale = target / side * torch.exp2(2 * spread - 1)
    return scale.minimum(LARGEST_PX / extent.prod(1).sqrt()).minimum(
        size / sides.amax(1).clamp(min=1)
    )


def _square_part(
    cache: Cache, index: Tensor, extent: Tensor, draws: Tensor
) -> tuple[Tensor, Tensor]:
    """Side [B] and origin [B, 2], px, of a square part of each photo.

    The part contains at least one face used for training. Where no drawn part does, it is the whole
    photo.
    """
    draw = draws[:, 1:].reshape(-1, PARTS, TRIALS, 3)
    share = SMALLEST_PART + (1 - SMALLEST_PART) * draw[..., 0]
    share[:, 0] = 1.0
    side = (share * extent.amin(1)[:, None, None]).flatten(1)[..., None]
    origin = draw[..., 1:].flatten(1, 2) * (extent[:, None] - side)
    face, image = faces_of(cache, index)
    face, image = face[~cache.ignore[face]], image[~cache.ignore[face]]
    box = cache.boxes[face][:, None]
    held = ((box[..., :2] >= origin[image]) & (box[..., 2:] <= (origin + side)[image])).all(-1)
    holds = torch.zeros(side.shape[:2], dtype=torch.long, device=side.device).index_add(
        0, image, held.long()
    )
    trial = torch.arange(TRIALS, device=side.device)
    first = torch.where(holds.reshape(-1, PARTS, TRIALS) > 0, trial, TRIALS).amin(2)
    good = first < TRIALS
    nth = (draws[:, 0] * good.sum(1)).long()
    part = ((good.cumsum(1) - 1 == nth[:, None]) & good).long().argmax(1)
    row = torch.arange(len(index), device=side.device)
    at = part * TRIALS + first[row, part].clamp(max=TRIALS - 1)
    any_good = good.any(1)
    whole = extent.amax(1)
    return (
        torch.where(any_good, side[row, at, 0], whole),
        torch.where(any_good[:, None], origin[row, at], torch.zeros_like(extent)),
    )
