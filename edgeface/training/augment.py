"""Random square crop, resize, flip and colour change, as batched tensor operations without a loop over images.

A batch is a pure function of (seed, step): the same on every run, on one process or several, and after a resume.

Geometry of one sample (all in px of the cached image):

    scale   output px per source px, drawn from one of two distributions (see AugmentOptions)
    side    = output side / scale
    origin  such that the chosen face's centre lies uniformly in the crop, then moved to keep the crop in the image
            where it fits; outside the image the crop is black, as the letterbox of the detector is

or, for the S3FD family, as :mod:`edgeface.training.crops` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from edgeface.training.crops import TRIAL_DRAWS, chosen_face, faces_of, s3fd_crop
from edgeface.training.dataset import LEVELS, Cache
from edgeface.training.options import AugmentOptions

MIRRORED = [1, 0, 2, 4, 3]
"""Which landmark of the mirror image is which: left and right of an image, not of a person"""
PIECE = 8
"""Images sampled at a time: what they need in between then stays in the allocator's pool and near the cache."""


@dataclass(frozen=True)
class Batch:
    """images float32 [B, 3, S, S] raw 0-255 RGB (channels last in memory); boxes float32 [F, 4] px, landmarks float32
    [F, 5, 2] px, NaN where there is nothing to learn; ignore bool [F] and image int64 [F] say which image each face is
    in."""

    images: Tensor
    boxes: Tensor
    landmarks: Tensor
    ignore: Tensor
    image: Tensor


def batch_indices(length: int, batch: int, step: int, seed: int) -> Tensor:
    """Image numbers int64 [batch] of batch ``step``: consecutive pieces of one seeded permutation per epoch."""
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // length
    order = {int(e): torch.randperm(length, generator=_generator(seed, 2 * int(e))) for e in torch.unique(epochs)}
    return torch.stack([order[int(p) // length][int(p) % length] for p in positions])


def make_batch(cache: Cache, options: AugmentOptions, size: int, batch: int, step: int, seed: int,
               part: slice | None = None, compiled: bool = False) -> Batch:
    """Make batch ``step``: ``batch`` crops of ``size`` x ``size`` px; ``part`` keeps only those samples of it."""
    part = part or slice(0, batch)
    device = cache.count.device
    generator = _generator(seed, 2 * step + 1)
    rand = torch.rand(batch, 16, generator=generator)[part].to(device).unbind(1)
    index = batch_indices(len(cache), batch, step, seed)[part].to(device)
    if options.crop == "s3fd":
        trials = torch.rand(batch, TRIAL_DRAWS, generator=generator)[part].to(device)
        scale, origin = s3fd_crop(cache, options.anchor_share, size, index, rand, trials)
    else:
        scale, origin = _crop(cache, options, size, index, rand)
    flip = rand[5] < 0.5
    render = _compiled_render() if compiled else _render
    images = torch.empty(len(index), size, size, 3, device=device)
    colour = _colour(options, _changes(options.colour_share, rand[7:12], rand[12:16]))
    taps = _taps(cache, index, scale, origin, flip, rand[6] < options.blur_share, size)
    for start in range(0, len(index), PIECE):
        piece = slice(start, start + PIECE)
        images[piece] = render(cache.pixels, *(t[piece] for t in (*taps, *colour)))
    return Batch(images.permute(0, 3, 1, 2), *_faces(cache, options, size, index, scale, origin, flip))


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) % 2**63)


def _log_uniform(low: Tensor | float, high: Tensor | float, u: Tensor) -> Tensor:
    low, high = torch.as_tensor(low, device=u.device), torch.as_tensor(high, device=u.device)
    return torch.exp(torch.log(low) + (torch.log(high) - torch.log(low)) * u)


def _crop(cache: Cache, o: AugmentOptions, size: int, index: Tensor, rand: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return scale [B] and crop origin [B, 2] (x, y)."""
    box, extent = chosen_face(cache, index, rand[0])
    face_px = (box[:, 2:] - box[:, :2]).prod(1).clamp(min=1.0).sqrt()
    free = _log_uniform(o.scale_low, o.scale_high, rand[1])
    asked = _log_uniform(o.face_low_px, o.face_high * size, rand[1]) / face_px
    scale = torch.where(rand[2] < o.anchor_share, asked, free)
    scale = torch.minimum(scale, o.face_high * size / face_px)  # never cut the chosen face
    scale = scale.clamp(0.75 * o.scale_low, o.scale_high)
    side = (size / scale)[:, None]
    centre = (box[:, :2] + box[:, 2:]) / 2
    origin = centre - torch.stack(rand[3:5], 1) * side
    slack = extent - side  # negative where the crop is larger than the image: the image then lies inside the crop
    return scale, torch.maximum(torch.minimum(origin, slack.clamp(min=0)), slack.clamp(max=0))


def _taps(cache: Cache, index: Tensor, scale: Tensor, origin: Tensor, flip: Tensor, blur: Tensor,
          size: int) -> tuple[Tensor, ...]:
    """Where each output row and column is sampled, on the pyramid level that fits each scale.

    Returns row0, row1 (pixel numbers of row starts) and fy, in_y, then column0, column1, fx, in_x, each [B, S].
    """
    level = (-torch.log2(scale) + 0.25).floor().long() + blur
    level = level.clamp(0, LEVELS - 1)
    height, width = cache.level_height[index, level], cache.level_width[index, level]
    base = cache.level_offset[index, level]
    grid = torch.arange(size, device=scale.device) + 0.5
    x = torch.where(flip[:, None], size - grid, grid)
    u = (origin[:, :1] + x / scale[:, None]) * (width / cache.level_width[index, 0])[:, None] - 0.5
    v = (origin[:, 1:] + grid / scale[:, None]) * (height / cache.level_height[index, 0])[:, None] - 0.5
    x0, x1, fx, in_x = _neighbours(u, width)
    y0, y1, fy, in_y = _neighbours(v, height)
    row0, row1 = base[:, None] + y0 * width[:, None], base[:, None] + y1 * width[:, None]
    return row0, row1, fy, in_y, x0, x1, fx, in_x


def _neighbours(position: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both neighbours (clamped to the image), the fraction between them, and whether the position is in the image."""
    last = (length - 1)[:, None]
    lower = position.floor()
    first = lower.long()
    inside = (position >= -0.5) & (position <= last + 0.5)
    return first.clamp(min=0).minimum(last), (first + 1).clamp(min=0).minimum(last), position - lower, inside.float()


def _render(pixels: Tensor, row0: Tensor, row1: Tensor, fy: Tensor, in_y: Tensor, x0: Tensor, x1: Tensor, fx: Tensor,
            in_x: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Bilinear samples with the colour change: float32 [B, S, S, 3]. What lies outside the image stays black.

    Written channel by channel, so that a compiler can make one loop of it: nothing between the packed pixels and the
    result is then ever stored.
    """
    corners = [torch.take(pixels, row[:, :, None] + column[:, None, :]) for row in (row0, row1) for column in (x0, x1)]
    fx, fy = fx[:, None, :], fy[:, :, None]

    def channel(shift: int) -> Tensor:
        a, b, c, d = ((corner >> shift & 255).float() for corner in corners)
        top, bottom = a + (b - a) * fx, c + (d - c) * fx
        return top + (bottom - top) * fy

    red, green, blue = channel(0), channel(8), channel(16)
    inside = in_y[:, :, None] * in_x[:, None, :]
    weights = matrix[:, :, :, None, None]
    mixed = (red * weights[:, 0, k] + green * weights[:, 1, k] + blue * weights[:, 2, k] + offset for k in range(3))
    return torch.stack([value.clamp(0, 255) * inside for value in mixed], -1)


@lru_cache(maxsize=1)
def _compiled_render() -> Callable[..., Tensor]:
    return torch.compile(_render, dynamic=False)


def _changes(share: float, draws: tuple[Tensor, ...], switches: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What :func:`_colour` draws from, with .5 (no change) in samples that are not changed in that respect."""
    hue, saturation, grey, contrast, brightness = draws
    hue, saturation, contrast, brightness = (torch.where(switch < share, draw, 0.5) for switch, draw in zip(
        switches, (hue, saturation, contrast, brightness), strict=True))
    return hue, saturation, grey, contrast, brightness


def _colour(o: AugmentOptions, rand: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation, hue and grey as one matrix [B, 3, 3] and one offset [B, 1, 1] per image.

    Hue is a rotation of the chroma plane of YIQ, which makes the whole chain linear: rgb @ matrix + offset.
    """
    batch, device = len(rand[0]), rand[0].device

    def symmetric(u: Tensor, reach: float) -> Tensor:
        return (2 * u - 1) * reach

    luma = torch.tensor([0.299, 0.587, 0.114], device=device)
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=device)
    angle = symmetric(rand[0], math.radians(o.hue_degrees))
    turn = torch.zeros(batch, 3, 3, device=device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    saturation = 1 + symmetric(rand[1], o.saturation)
    saturation = torch.where(rand[2] < o.grey_share, torch.zeros_like(saturation), saturation)[:, None, None]
    matrix = (saturation * torch.eye(3, device=device) + (1 - saturation) * luma) @ matrix
    matrix = matrix * (1 + symmetric(rand[3], o.contrast))[:, None, None]
    offset = symmetric(rand[4], o.brightness)[:, None, None]
    return matrix.transpose(1, 2), offset


def _faces(cache: Cache, o: AugmentOptions, size: int, index: Tensor, scale: Tensor, origin: Tensor,
           flip: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes in px of the crop, clipped to it, and landmarks, NaN where they lie outside; ignore and image of each face.

    Learned: centre in the crop and not tiny; other visible ones are ignored. A flip swaps left and right landmarks.
    """
    face, image = faces_of(cache, index)
    boxes = (cache.boxes[face] - origin[image].repeat(1, 2)) * scale[image, None]
    mirrored = torch.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], 1)
    boxes = torch.where(flip[image, None], mirrored, boxes)
    points = (cache.landmarks[face] - origin[image, None]) * scale[image, None, None]
    swapped = points[:, MIRRORED] * points.new_tensor([-1, 1]) + points.new_tensor([size, 0])
    points = torch.where(flip[image, None, None], swapped, points)
    points = torch.where(((points >= 0) & (points < size)).all(2, keepdim=True), points, torch.nan)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    centred = ((centre >= 0) & (centre < size)).all(1)
    boxes = boxes.clamp(0, size)
    extent = boxes[:, 2:] - boxes[:, :2]
    ignore = cache.ignore[face] | ~centred | (extent.amin(1) < o.min_face_px)
    visible = (extent > 0).all(1)
    return boxes[visible], points[visible], ignore[visible], image[visible]
