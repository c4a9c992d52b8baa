"""What a network is trained on in one step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """images float32 [B, 3, S, S] raw 0-255 RGB (channels last in memory); boxes float32 [F, 4] px,
    landmarks float32 [F, 5, 2] px, NaN where there is nothing to learn; ignore bool [F] and image
    int64 [F] say which image each face is in."""

    images: Tensor
    boxes: Tensor
    landmarks: Tensor
    ignore: Tensor
    image: Tensor
