"""Random square crop, turn, resize, flip and colour change of a batch of photos.

A batch is a pure function of (seed, step): the same on every run, on one process or several, and
after a resume.

Geometry of one sample (all in px of the cached image):

    scale   output px per source px, drawn from one of two distributions (see AugmentOptions)
    side    = output side / scale
    origin  the chosen face's centre is placed uniformly in the crop, which is then moved into the
            image where it fits; outside the image the crop is black, like the letterbox of the
            detector. In a photo without faces the crop lies anywhere, at the scale of the first
            distribution
    warp    in some samples the crop is stretched and sheared about its centre, at equal area
    roll    in some samples the crop is turned about its centre, after that
    large   in some samples the image's largest face takes most of the crop, or more than all of it

:mod:`edgeface.training.render` makes the pixels, :mod:`edgeface.training.degrade` adds the effects
of a camera, and :mod:`edgeface.training.paste` pastes parts of other crops last. Crops for the S3FD
family are described in :mod:`edgeface.training.crops`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeface.training.batch import Batch
from edgeface.training.crops import TRIAL_DRAWS, chosen_face, faces_of, largest_face, s3fd_crop
from edgeface.training.dataset import Cache
from edgeface.training.degrade import DRAWS, degrade
from edgeface.training.options import AugmentOptions
from edgeface.training.paste import PASTE_DRAWS, donors, paste
from edgeface.training.render import CropLook, changes, colour, light, render, source_of

MIRRORED = [1, 0, 2, 4, 3]
"""Order of the landmarks in the mirrored image: left and right are those of the image, not of the
person"""
MORE_DRAWS = 11 + DRAWS
"""Random numbers per sample for large faces, roll, light, and degradation"""
WARP_DRAWS = 4
"""Random numbers per sample: whether to warp, by which stretch and shear, and along which axis"""


def batch_indices(length: int, batch: int, step: int, seed: int) -> Tensor:
    """Image numbers int64 [batch] of batch ``step``.

    Batches are consecutive pieces of one seeded permutation per epoch.
    """
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // length
    order = {
        int(e): torch.randperm(length, generator=_generator(seed, 2 * int(e)))
        for e in torch.unique(epochs)
    }
    return torch.stack([order[int(p) // length][int(p) % length] for p in positions])


def make_batch(
    cache: Cache,
    options: AugmentOptions,
    size: int,
    batch: int,
    step: int,
    seed: int,
    part: slice | None = None,
    compiled: bool = False,
) -> Batch:
    """Make batch ``step``: ``batch`` crops of ``size`` x ``size`` px.

    part: the samples of the batch to make; default: all.
    """
    generator, s3fd = _generator(seed, 2 * step + 1), options.crop == "s3fd"
    counts = (16, TRIAL_DRAWS if s3fd else 0, MORE_DRAWS, PASTE_DRAWS, WARP_DRAWS)
    *draws, pasted, warped = (torch.rand(batch, n, generator=generator) for n in counts)
    draws.append(warped)
    mine, donor = torch.arange(batch)[part or slice(None)], donors(pasted, options.paste_share)
    # A crop may be pasted from one that another process makes: that one is made here, too.
    asked = donor[mine]
    others = sorted({*asked.tolist()} - {*mine.tolist(), -1})
    rows = torch.cat([mine, torch.tensor(others, dtype=torch.long)])
    index = batch_indices(len(cache), batch, step, seed)[rows]
    made = _crops(cache, options, size, index, [draw[rows] for draw in draws], compiled)
    if not options.paste_share:
        return made
    number = torch.zeros_like(donor).index_put((rows,), torch.arange(len(rows)))
    donor = torch.where(asked >= 0, number[asked.clamp(min=0)], -1)
    return paste(made, donor, pasted[mine], options.min_face_px)


def _crops(
    cache: Cache,
    options: AugmentOptions,
    size: int,
    index: Tensor,
    draws: list[Tensor],
    compiled: bool,
) -> Batch:
    """One crop of each photo ``index`` [B], from its random numbers ``draws`` [B, ...]."""
    device = cache.count.device
    index, trials = index.to(device), draws[1].to(device)
    rand, more = (draw.to(device).unbind(1) for draw in (draws[0], draws[2]))
    warp = _warp(options, draws[3].to(device))
    if options.crop == "s3fd":
        scale, origin = s3fd_crop(cache, options.anchor_share, size, index, rand, trials)
    else:
        scale, origin = _crop(cache, options, size, index, rand)
    if options.large_share:
        scale, origin = _large(cache, options, size, index, more[:4], scale, origin)
    view = View(size, scale, origin, _roll(options, more[4:6]), rand[5] < 0.5, warp)
    source = source_of(cache, index, scale, view.to_photo(), rand[6] < options.blur_share)
    changed = changes(options.colour_share, rand[7:12], rand[12:16])
    look = CropLook(*colour(options, changed), light(options, size, more[6:11]))
    images = render(cache.pixels, source, look, size, compiled)
    boxes, landmarks, ignore, image = _faces(cache, options, index, view)
    hidden = degrade(images, boxes, image, ignore, options, torch.stack(more[11:], 1))
    return Batch(images.permute(0, 3, 1, 2), boxes, landmarks, ignore | hidden, image)


@dataclass(frozen=True)
class View:
    """How each crop lies in its image.

    scale [B]: crop px per photo px; origin [B, 2]: of the unturned crop, in px of the photo; roll
    [B]: turn of the content about the centre of the crop, in radians, clockwise; flip: bool [B];
    warp [B, 2, 2]: of the content, before it is turned; its determinant is 1.
    """

    size: int
    scale: Tensor
    origin: Tensor
    roll: Tensor
    flip: Tensor
    warp: Tensor

    def _turned(self) -> Tensor:
        """Matrix [B, 2, 2] of warp and roll."""
        cos, sin = self.roll.cos(), self.roll.sin()
        return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2) @ self.warp

    def to_photo(self) -> tuple[Tensor, Tensor]:
        """Matrix [B, 2, 2] and offset [B, 2]: photo px (x, y) = matrix @ (crop px) + offset."""
        (a, b), (c, d) = (row.unbind(1) for row in self._turned().unbind(1))
        mirror, half = torch.where(self.flip, -1.0, 1.0), self.size / 2
        # The inverse of a matrix whose determinant is 1.
        matrix = torch.stack([d * mirror, -b, -c * mirror, a], 1).view(-1, 2, 2)
        centre = half / self.scale[:, None] + self.origin
        matrix = matrix / self.scale[:, None, None]
        return matrix, centre - matrix.sum(2) * half

    def points(self, points: Tensor, image: Tensor) -> Tensor:
        """Convert points [F, K, 2] px of the photos ``image`` [F] to px of the crops.

        They are mirrored where the crop is.
        """
        half = self.size / 2
        x, y = ((points - self.origin[image, None]) * self.scale[image, None, None] - half).unbind(
            2
        )
        (a, b), (c, d) = (row.unbind(2) for row in self._turned()[image, None].unbind(2))
        mirror = torch.where(self.flip, -1.0, 1.0)[image, None]
        return torch.stack([(a * x + b * y) * mirror, c * x + d * y], 2) + half

    def boxes(self, boxes: Tensor, image: Tensor) -> Tensor:
        """Convert boxes [F, 4] px of the photos to px of the crops.

        A turned or warped face gets the box around what becomes of the ellipse that is inscribed in
        its original box.
        """
        centre = self.points((boxes[:, None, :2] + boxes[:, None, 2:]) / 2, image)[:, 0]
        half = (boxes[:, 2:] - boxes[:, :2]) * (self.scale[image, None] / 2)
        across, down = (self._turned()[image] * half[:, None]).unbind(2)
        reach = torch.hypot(across, down)
        return torch.cat([centre - reach, centre + reach], 1)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(
        (seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) % 2**63
    )


def _log_uniform(low: Tensor | float, high: Tensor | float, u: Tensor) -> Tensor:
    low, high = torch.as_tensor(low, device=u.device), torch.as_tensor(high, device=u.device)
    return torch.exp(torch.log(low) + (torch.log(high) - torch.log(low)) * u)


def _crop(
    cache: Cache, o: AugmentOptions, size: int, index: Tensor, rand: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return scale [B] and crop origin [B, 2] (x, y)."""
    box, extent = chosen_face(cache, index, rand[0])
    face_px = (box[:, 2:] - box[:, :2]).prod(1).clamp(min=1.0).sqrt()
    free = _log_uniform(o.scale_low, o.scale_high, rand[1])
    asked = _log_uniform(o.face_low_px, o.face_high * size, rand[1]) / face_px
    scale = torch.where(rand[2] < o.anchor_share, asked, free)
    scale = torch.minimum(scale, o.face_high * size / face_px)  # never cut the chosen face
    scale = scale.clamp(0.75 * o.scale_low, o.scale_high)
    empty = cache.count[index] == 0  # the whole photo then stands for the face, but may be cut
    scale = torch.where(empty, free, scale)
    side = (size / scale)[:, None]
    centre, place = (box[:, :2] + box[:, 2:]) / 2, torch.stack(rand[3:5], 1)
    # Negative where the crop is larger than the image: the image then lies inside the crop.
    slack = extent - side
    origin = (centre - place * side).minimum(slack.clamp(min=0)).maximum(slack.clamp(max=0))
    return scale, torch.where(empty[:, None], place * slack, origin)


def _large(
    cache: Cache,
    o: AugmentOptions,
    size: int,
    index: Tensor,
    rand: tuple[Tensor, ...],
    scale: Tensor,
    origin: Tensor,
) -> tuple[Tensor, Tensor]:
    """Replace ``scale`` and ``origin`` in the samples in which the largest face is to be large.

    The image's largest face then fills most of the crop or reaches beyond it.
    """
    box = largest_face(cache, index)
    face_px = (box[:, 2:] - box[:, :2]).prod(1).clamp(min=1.0).sqrt()
    wanted = _log_uniform(o.large_low, o.large_high, rand[1]) * size / face_px
    found = box[:, 2] > box[:, 0]
    chosen = (rand[0] < o.large_share) & (wanted <= o.large_scale) & found
    # The face's centre lies in the middle half of the crop.
    shift = torch.stack([rand[2], rand[3]], 1) / 2 + 0.25
    centre = (box[:, :2] + box[:, 2:]) / 2
    return (
        torch.where(chosen, wanted, scale),
        torch.where(chosen[:, None], centre - shift * (size / wanted)[:, None], origin),
    )


def _roll(o: AugmentOptions, rand: tuple[Tensor, ...]) -> Tensor:
    """Angles [B] in radians. Squared draws make small turns likelier, as they are among people."""
    draw = 2 * rand[1] - 1
    return torch.where(
        rand[0] < o.roll_share, draw * draw.abs() * math.radians(o.roll_degrees), 0.0
    )


def _warp(o: AugmentOptions, draws: Tensor) -> Tensor:
    """Matrices [B, 2, 2] with determinant 1 from ``draws`` [B, WARP_DRAWS]: a shear along x or y,
    then a stretch of x and y."""
    warped = draws[:, 0] < o.stretch_share
    x = torch.where(warped, o.stretch ** (2 * draws[:, 1] - 1), 1.0)
    shear = torch.where(warped, (2 * draws[:, 2] - 1) * o.shear, 0.0)
    along_x = draws[:, 3] < 0.5
    right, down = torch.where(along_x, shear, 0.0), torch.where(along_x, 0.0, shear)
    return torch.stack([x, x * right, down / x, 1 / x], 1).view(-1, 2, 2)


def _faces(
    cache: Cache, o: AugmentOptions, index: Tensor, view: View
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes, landmarks, ignore and image of the visible faces.

    Boxes are in px of the crop and clipped to it; landmarks outside the crop are NaN. A face is
    learned if its centre lies in the crop and it is neither tiny nor marked as ignored; other
    visible faces are ignored. A flip swaps left and right landmarks.
    """
    face, image = faces_of(cache, index)
    size = view.size
    boxes = view.boxes(cache.boxes[face], image)
    points = view.points(cache.landmarks[face], image)
    points = torch.where(view.flip[image, None, None], points[:, MIRRORED], points)
    points = torch.where(((points >= 0) & (points < size)).all(2, keepdim=True), points, torch.nan)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    centred = ((centre >= 0) & (centre < size)).all(1)
    boxes = boxes.clamp(0, size)
    extent = boxes[:, 2:] - boxes[:, :2]
    ignore = cache.ignore[face] | ~centred | (extent.amin(1) < o.min_face_px)
    visible = (extent > 0).all(1)
    return boxes[visible], points[visible], ignore[visible], image[visible]
