"""The pixels of crops: sampled from the photos of a cache, then coloured and lit.

On a CPU, OpenCV makes them, because its 8-bit pixels are the fastest there; elsewhere torch does,
on the device of the photos. OpenCV rounds positions to 1/32 px and pixels to whole numbers, so that
the two differ by a few grey levels at steep edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from edgeface.training.dataset import LEVELS, Cache
from edgeface.training.options import AugmentOptions

PIECE = 8
"""crops that torch makes at a time: their intermediate tensors then stay in the allocator's pool"""
Size = tuple[int, int]
"""width and height, px"""
UNLIT = (0.0, 1.0, 0.0, 0.0)
"""light that leaves a crop unchanged"""


@dataclass(frozen=True)
class CropSource:
    """What each crop is sampled from: a level of a photo's pyramid.

    base (number of the level's first pixel in the cache), height and width: int64 [B]. matrix [B,
    2, 2] and offset [B, 2]: level px (u, v) = matrix @ (x, y) + offset for crop px (x, y). In the
    level, pixels have their centres at whole numbers; in the crop, the first pixel has its centre
    at (.5, .5).
    """

    base: Tensor
    height: Tensor
    width: Tensor
    matrix: Tensor
    offset: Tensor


@dataclass(frozen=True)
class CropLook:
    """Colour and light of each crop.

    Pixels become rgb @ colour [B, 3, 3] + brightness [B, 1, 1]; then light [B, 4] is applied, see
    :func:`light`.
    """

    colour: Tensor
    brightness: Tensor
    light: Tensor


def source_of(
    cache: Cache, index: Tensor, scale: Tensor, to_photo: tuple[Tensor, Tensor], blur: Tensor
) -> CropSource:
    """Choose the pyramid level that fits each crop's ``scale`` [B] (crop px per photo px).

    blur: bool [B], take the next coarser level. to_photo: matrix [B, 2, 2] and offset [B, 2] of
    photo px = matrix @ crop px + offset.
    """
    level = (-torch.log2(scale) + 0.25).floor().long() + blur
    level = level.clamp(0, LEVELS - 1)
    height, width = cache.level_height[index, level], cache.level_width[index, level]
    shrink = torch.stack(
        [width / cache.level_width[index, 0], height / cache.level_height[index, 0]], 1
    )
    matrix, offset = to_photo
    return CropSource(
        cache.level_offset[index, level],
        height,
        width,
        matrix * shrink[:, :, None],
        offset * shrink - 0.5,
    )


def render(pixels: Tensor, source: CropSource, look: CropLook, size: int, compiled: bool) -> Tensor:
    """Crops float32 [B, size, size, 3], 0 to 255, from the ``pixels`` of a cache.

    Outside the photos they are black. compiled: compile the sampling; without effect on a CPU.
    """
    if pixels.device.type == "cpu":
        return warped(pixels, source, look, size)
    return gathered(pixels, source, look, size, compiled)


def gathered(
    pixels: Tensor, source: CropSource, look: CropLook, size: int, compiled: bool
) -> Tensor:
    """:func:`render` by torch, on any device."""
    make = _compiled() if compiled else sampled
    images = torch.empty(len(source.base), size, size, 3, device=pixels.device)
    grid = torch.arange(size, device=pixels.device) + 0.5
    inputs = (*vars(source).values(), *vars(look).values())
    for start in range(0, len(images), PIECE):
        piece = slice(start, start + PIECE)
        images[piece] = make(pixels, grid, *(t[piece] for t in inputs))
    return images


def warped(pixels: Tensor, source: CropSource, look: CropLook, size: int) -> Tensor:
    """:func:`render` by OpenCV, on a CPU."""
    images = np.empty((len(source.base), size, size, 3), np.float32)
    middle = source.matrix.sum(2) / 2 + source.offset  # OpenCV counts from the first px's centre
    to_level = torch.cat([source.matrix, middle[..., None]], 2).double().numpy()
    colour = torch.cat([look.colour, look.brightness.expand(-1, 1, 3)], 1).mT.double().numpy()
    levels = torch.stack([source.base, source.height, source.width], 1).tolist()
    light, lit = look.light.numpy(), (look.light != torch.tensor(UNLIT)).any(1).tolist()
    stored = pixels.numpy()
    for i, part in enumerate(_reached(source, size)):
        base, height, width = levels[i]
        level = stored[base : base + height * width].view(np.uint8).reshape(height, width, 4)
        if part is None:
            crop = _crop(level, to_level[i], colour[i], (size, size))
        else:
            crop = _cut(level, to_level[i], colour[i], part, (size, size))
        images[i] = _lit(crop, light[i]) if lit[i] else crop
    return torch.from_numpy(images)


def _crop(level: np.ndarray, to_level: np.ndarray, colour: np.ndarray, size: Size) -> np.ndarray:
    """Crop uint8 [height, width, 3]; beyond the photo its border is repeated."""
    crop = _warp(level, to_level, size, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    return cv2.transform(cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB), colour)


def _cut(
    level: np.ndarray, to_level: np.ndarray, colour: np.ndarray, part: list[int], size: Size
) -> np.ndarray:
    """:func:`_crop`, but black beyond the photo.

    Only the ``part`` (left, top, right, bottom) that the photo reaches is sampled: OpenCV takes
    longer for pixels beyond the photo.
    """
    left, top, right, bottom = part
    shape = (right - left, bottom - top)
    to_level = to_level + np.outer(to_level[:, :2] @ (left, top), (0, 0, 1))
    photo = np.ones(level.shape[:2], np.uint8)
    within = _warp(photo, to_level, shape, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    whole = np.zeros((*size[::-1], 3), np.uint8)
    whole[top:bottom, left:right] = cv2.copyTo(_crop(level, to_level, colour, shape), within)
    return whole


def _warp(level: np.ndarray, to_level: np.ndarray, size: Size, how: int, border: int) -> np.ndarray:
    return cv2.warpAffine(
        level, to_level, size, flags=how | cv2.WARP_INVERSE_MAP, borderMode=border
    )


def _reached(source: CropSource, size: int) -> list[list[int] | None]:
    """The part of each crop that the photo reaches, slightly enlarged: left, top, right, bottom px.

    None for a crop that lies within its photo, as its corners show.
    """
    ends = torch.tensor([0.5, size - 0.5])
    corners = torch.cartesian_prod(ends, ends).T
    at = source.matrix @ corners + source.offset[:, :, None]
    last = torch.stack([source.width, source.height], 1)[:, :, None] - 0.5
    outside = ((at < -0.5) | (at > last)).flatten(1).any(1)
    photo = torch.stack([last.new_full(last.shape, -0.5), last], 3)  # [B, 2, 1, 2]
    x, y = photo[:, 0, 0], photo[:, 1, 0]
    edges = torch.stack([x[:, [0, 0, 1, 1]], y[:, [0, 1, 0, 1]]], 1) - source.offset[:, :, None]
    reach = torch.linalg.inv(source.matrix) @ edges
    low = (reach.amin(2).floor() - 1).clamp(0, size - 1)
    high = (reach.amax(2).ceil() + 1).clamp(1, size).maximum(low + 1)
    parts = torch.cat([low, high], 1).long().tolist()
    return [part if cut else None for part, cut in zip(parts, outside.tolist(), strict=True)]


def _lit(crop: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Apply ``light`` [4] to a crop uint8 [S, S, 3]; returns float32."""
    bend, level, right, down = light
    grid, tone = np.arange(len(crop), dtype=np.float32) + 0.5, np.arange(256, dtype=np.float32)
    gain = (level + right * grid + down * grid[:, None]).clip(min=0)
    image: np.ndarray = cv2.LUT(crop, tone * (1 + bend - bend / 255 * tone))
    image *= gain[..., None]
    np.minimum(image, 255, out=image)
    return image


def sampled(
    pixels: Tensor,
    grid: Tensor,
    base: Tensor,
    height: Tensor,
    width: Tensor,
    matrix: Tensor,
    offset: Tensor,
    colour: Tensor,
    brightness: Tensor,
    light: Tensor,
) -> Tensor:
    """Bilinear samples with colour and light: float32 [B, S, S, 3]; black outside the image.

    Written channel by channel, so that a compiler can make one loop of it, which stores nothing
    between the packed pixels and the result.
    """
    x, y = grid[None, None, :], grid[None, :, None]
    (xx, xy), (yx, yy) = (row.unbind(1) for row in matrix[:, :, :, None, None].unbind(1))
    u = x * xx + y * xy + offset[:, 0, None, None]
    v = x * yx + y * yy + offset[:, 1, None, None]
    last_x, last_y = (width - 1)[:, None, None], (height - 1)[:, None, None]
    inside = ((u >= -0.5) & (u <= last_x + 0.5) & (v >= -0.5) & (v <= last_y + 0.5)).float()
    left, above = u.floor(), v.floor()
    fx, fy = u - left, v - above
    x0, y0 = left.long(), above.long()
    x1, y1 = (x0 + 1).clamp(min=0).minimum(last_x), (y0 + 1).clamp(min=0).minimum(last_y)
    x0, y0 = x0.clamp(min=0).minimum(last_x), y0.clamp(min=0).minimum(last_y)
    rows = [base[:, None, None] + row * width[:, None, None] for row in (y0, y1)]
    corners = [torch.take(pixels, row + column) for row in rows for column in (x0, x1)]

    def channel(shift: int) -> Tensor:
        a, b, c, d = ((corner >> shift & 255).float() for corner in corners)
        top, bottom = a + (b - a) * fx, c + (d - c) * fx
        return top + (bottom - top) * fy

    red, green, blue = channel(0), channel(8), channel(16)
    weights = colour[:, :, :, None, None]
    mixed = (
        red * weights[:, 0, k] + green * weights[:, 1, k] + blue * weights[:, 2, k] + brightness
        for k in range(3)
    )
    bend, *gain = light[:, :, None, None].unbind(1)
    gained = (gain[0] + gain[1] * x + gain[2] * y).clamp(min=0) * inside
    tones = (value.clamp(0, 255) for value in mixed)
    lit = (tone * (1 + bend - bend / 255 * tone) * gained for tone in tones)
    return torch.stack([value.clamp(max=255) for value in lit], -1)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(sampled, dynamic=False)


def changes(
    share: float, draws: tuple[Tensor, ...], switches: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Random numbers for :func:`colour`: .5 (no change) in samples that are not changed.

    Hue, saturation, contrast and brightness each change in samples whose switch is below ``share``.
    """
    hue, saturation, grey, contrast, brightness = draws
    hue, saturation, contrast, brightness = (
        torch.where(switch < share, draw, 0.5)
        for switch, draw in zip(switches, (hue, saturation, contrast, brightness), strict=True)
    )
    return hue, saturation, grey, contrast, brightness


def colour(o: AugmentOptions, rand: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """All colour changes as one matrix [B, 3, 3] and one offset [B, 1, 1] per image.

    They are brightness, contrast, saturation, hue and grey. Hue is a rotation of the chroma plane
    of YIQ, which makes the whole chain linear: rgb @ matrix + offset.
    """
    batch, device = len(rand[0]), rand[0].device

    def symmetric(u: Tensor, reach: float) -> Tensor:
        return (2 * u - 1) * reach

    luma = torch.tensor([0.299, 0.587, 0.114], device=device)
    to_yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=device
    )
    angle = symmetric(rand[0], math.radians(o.hue_degrees))
    turn = torch.zeros(batch, 3, 3, device=device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    saturation = 1 + symmetric(rand[1], o.saturation)
    saturation = torch.where(rand[2] < o.grey_share, torch.zeros_like(saturation), saturation)[
        :, None, None
    ]
    matrix = (saturation * torch.eye(3, device=device) + (1 - saturation) * luma) @ matrix
    matrix = matrix * (1 + symmetric(rand[3], o.contrast))[:, None, None]
    offset = symmetric(rand[4], o.brightness)[:, None, None]
    return matrix.transpose(1, 2), offset


def light(o: AugmentOptions, size: int, rand: tuple[Tensor, ...]) -> Tensor:
    """Light of each crop, [B, 4]: bend of the tone curve, and a, b, c of the gain.

    The tone curve is x + bend x (1 - x), bend from -1 (dark) to 1. The gain of a crop px is a + b x
    + c y. Along an axis of the crop it falls from between 1 and 1.5 to between .15 and 1; between
    opposite corners it changes by up to 1.4 times as much, and may leave these bounds.
    """
    strong, weak, angle = 1 + 0.5 * rand[1], 0.15 + 0.85 * rand[2], rand[3] * 2 * math.pi
    slope = torch.stack([angle.cos(), angle.sin()], 1) * ((strong - weak) / size)[:, None]
    middle = (strong + weak)[:, None] / 2 - slope.sum(1, True) * size / 2
    changed = torch.cat([(2 * rand[4] - 1)[:, None], middle, slope], 1)
    return torch.where((rand[0] < o.light_share)[:, None], changed, changed.new_tensor(UNLIT))
