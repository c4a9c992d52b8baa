"""Degrade some samples of a batch in place: covered faces, motion blur, noise, compression.

Each change affects a few samples, and only those are copied: all changes together cost a few
percent of a training step. Every sample has random numbers of its own, so that a batch made in
parts is the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import torch
from torch import Tensor

if TYPE_CHECKING:
    from edgeface.training.options import AugmentOptions

Change = Callable[[Tensor, float, float], Tensor]
"""(image float32 [S, S, 3], two random numbers from 0 to 1) -> changed image"""
DRAWS = 4 * 6
"""Random numbers per sample: six for each change, the first of which decides whether it happens"""
HIDDEN = 0.6
"""a face of which more than this share is covered is neither learned nor background"""
TAPS = 7
"""copies that are averaged in a motion blur"""


def degrade(
    images: Tensor, boxes: Tensor, image: Tensor, ignore: Tensor, o: AugmentOptions, rand: Tensor
) -> Tensor:
    """Change ``images`` float32 [B, S, S, 3], 0 to 255, in place; return bool [F]: hidden faces.

    boxes [F, 4] px and image [F] are as in a Batch; ignore [F]: faces that are not covered; rand
    [B, DRAWS].
    """
    draws = rand.view(len(rand), -1, 6).unbind(1)
    hidden = _cover(images, boxes, image, ignore, draws[0], o.occlusion_share)
    changes: tuple[tuple[float, Change], ...] = (
        (o.motion_share, motion_blur),
        (o.noise_share, noise),
        (o.compression_share, compress),
    )
    for (share, change), draw in zip(changes, draws[1:], strict=True):
        for sample in torch.nonzero(draw[:, 0] < share).squeeze(1).tolist():
            images[sample] = change(images[sample], *draw[sample, 1:3].tolist())
    return hidden


def _cover(
    images: Tensor, boxes: Tensor, image: Tensor, ignore: Tensor, draw: Tensor, share: float
) -> Tensor:
    """Cover a part of one face in some samples; return the hidden faces, bool [F].

    The rectangle has one colour, or that colour mixed with the mirrored content.
    """
    hidden = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for sample in torch.nonzero(draw[:, 0] < share).squeeze(1).tolist():
        faces = torch.nonzero((image == sample) & ~ignore).squeeze(1)
        if not len(faces):
            continue
        _, which, part, side, tone, texture = draw[sample].tolist()
        box = _part(boxes[faces[int(which * len(faces))]].tolist(), 0.25 + 0.35 * part, side)
        x1, y1, x2, y2 = (max(0, round(value)) for value in box)  # -3 would count from the end
        area = images[sample, y1:y2, x1:x2]
        colours = (
            torch.tensor(
                [math.modf(tone * k)[0] for k in (1.0, 61.0, 3539.0)], device=images.device
            )
            * 255
        )
        area.copy_(colours if texture < 0.5 else area.flip(1) * 0.3 + colours * 0.7)
        every = boxes[image == sample]
        overlap = every[:, 2:].minimum(every.new_tensor(box[2:])) - every[:, :2].maximum(
            every.new_tensor(box[:2])
        )
        whole = (every[:, 2:] - every[:, :2]).prod(1).clamp(min=1e-6)
        hidden[image == sample] = overlap.clamp(min=0).prod(1) / whole > HIDDEN
    return hidden


def _part(box: list[float], share: float, side: float) -> list[float]:
    """The left, upper, right or lower ``share`` of a box; ``side``, 0 to 1, chooses which.

    It also reaches a tenth of the box beyond the edges of the box.
    """
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    more = 0.1
    chosen = int(side * 4)
    return [
        [x1 - more * width, y1 - more * height, x1 + share * width, y2 + more * height],
        [x1 - more * width, y1 - more * height, x2 + more * width, y1 + share * height],
        [x2 - share * width, y1 - more * height, x2 + more * width, y2 + more * height],
        [x1 - more * width, y2 - share * height, x2 + more * width, y2 + more * height],
    ][min(chosen, 3)]


def motion_blur(image: Tensor, length: float, turn: float) -> Tensor:
    """Mean of TAPS copies along a line of 3 to 11 px in any direction.

    A margin of half that length, rounded up, stays unchanged.
    """
    reach, angle = 1.5 + 4 * length, turn * math.pi
    margin, side = math.ceil(reach), len(image)
    total = torch.zeros_like(image[margin:-margin, margin:-margin])
    for k in range(TAPS):
        step = (2 * k / (TAPS - 1) - 1) * reach
        y, x = margin + round(math.sin(angle) * step), margin + round(math.cos(angle) * step)
        total += image[y : y + side - 2 * margin, x : x + side - 2 * margin]
    blurred = image.clone()
    blurred[margin:-margin, margin:-margin] = total / TAPS
    return blurred


def noise(image: Tensor, strength: float, place: float) -> Tensor:
    """Add Gaussian noise of standard deviation 4 to 30 grey levels, cut from a fixed bank."""
    bank, side = _noise(len(image)), len(image)
    row, column = divmod(int(place * side * side), side)
    part = bank[row : row + side, column : column + side].to(image.device)
    return torch.add(image, part, alpha=4 + 26 * strength**2).clamp_(0, 255)


def compress(image: Tensor, strength: float, _: float) -> Tensor:
    """Compress as JPEG of quality 10 to 50."""
    pixels = image.round().to(torch.uint8).flip(2).cpu().numpy()  # blue first, as OpenCV has it
    coded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 10 + round(40 * strength)))[1]
    found = torch.from_numpy(cv2.imdecode(coded, cv2.IMREAD_COLOR)).flip(2)
    return found.to(image.device, torch.float32)


@lru_cache(maxsize=4)
def _noise(side: int) -> Tensor:
    """Gaussian noise of standard deviation 1, float32 [2 side, 2 side, 3], always the same."""
    return torch.randn(2 * side, 2 * side, 3, generator=torch.Generator().manual_seed(0))
