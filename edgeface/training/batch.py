"""The images and faces of one training step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images of one step, and their faces.

    images: float32 [B, 3, S, S], raw 0-255 RGB (channels last in memory); boxes: float32 [F, 4] px;
    landmarks: float32 [F, 5, 2] px, NaN where there is nothing to learn; ignore: bool [F], faces
    that are neither learned nor background; image: int64 [F], the image that each face is in.
    """

    images: Tensor
    boxes: Tensor
    landmarks: Tensor
    ignore: Tensor
    image: Tensor
