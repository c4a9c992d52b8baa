"""Random faces and outputs for training the S3FD family, and a slow reference of its matching."""

from __future__ import annotations

import numpy as np
import torch

from edgeface.architecture import get_architecture
from edgeface.decode import HeadLayout, head_layout
from edgeface.training.batch import Batch
from edgeface.training.options import RECIPES
from edgeface.types import Doubles, Floats

CPU = torch.device("cpu")
FAMILY = ("extd-fpn-32-prelu", "eresfd-16", "asfd-d0")
EXTD, ERESFD, ASFD = (head_layout(get_architecture(name)) for name in FAMILY)
S3FD_CROPS = RECIPES["extd"].augment


def random_faces(seed: int, count: int, size: int, low: float = 3.0) -> torch.Tensor:
    """Boxes with sides from about ``low`` px to the whole image, clipped to the image."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=g) * size
    side = (
        low
        * (size / low) ** torch.rand(count, 1, generator=g)
        * (0.7 + 0.6 * torch.rand(count, 2, generator=g))
    )
    return torch.cat([centre - side / 2, centre + side / 2], 1).clamp(0, size)


def random_outputs(
    layout: HeadLayout, size: int, batch: int, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return tuple(
        (
            0.5 * torch.randn(batch, channels, -(-size // s), -(-size // s), generator=g)
        ).requires_grad_()
        for s in layout.strides
        for channels in (layout.anchors, 4 * layout.anchors)
    )


def make_faces(boxes: torch.Tensor, image: list[int], ignore: list[bool] | None = None) -> Batch:
    return Batch(
        torch.zeros(0),
        boxes,
        torch.full((len(boxes), 5, 2), torch.nan),
        torch.tensor(ignore or [False] * len(boxes), dtype=torch.bool),
        torch.tensor(image, dtype=torch.long),
    )


def dense_iou(faces: Doubles, priors: Doubles) -> Floats:
    """IoU [F, A] in float32; this order of operations gives equal values to equal overlaps."""
    table = np.zeros((len(faces), len(priors)), np.float32)
    for f, (x1, y1, x2, y2) in enumerate(faces):
        w = np.maximum(np.minimum(x2, priors[:, 2]) - np.maximum(x1, priors[:, 0]), np.float32(0))
        h = np.maximum(np.minimum(y2, priors[:, 3]) - np.maximum(y1, priors[:, 1]), np.float32(0))
        both = (x2 - x1) * (y2 - y1) + (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
        table[f] = w * h / np.maximum(both - w * h, np.float32(1e-6))
    return table


def slow_match(faces: Doubles, priors: Doubles, compensate: bool) -> dict[int, int]:
    """Prior -> face of one image, step by step as in the released code."""
    if not len(faces):
        return {}
    table = dense_iou(faces, priors)
    truth = [int(np.argmax(table[:, a])) for a in range(len(priors))]
    value = [float(table[truth[a], a]) for a in range(len(priors))]
    best = [float(row.max()) for row in table]
    for f, row in enumerate(table):
        value[int(np.argmax(row))], truth[int(np.argmax(row))] = 2.0, f
    threshold = np.float32(0.35 if compensate else 0.4)
    positive = {a: truth[a] for a in range(len(priors)) if value[a] >= threshold}
    if compensate:
        n = (
            sum(b >= np.float32(0.35) for b in best) + sum(b >= np.float32(0.5) for b in best)
        ) // 2
        between = [a for a in range(len(priors)) if np.float32(0.1) < value[a] < threshold]
        for a in sorted(between, key=lambda a: -value[a])[:n]:
            positive[a] = truth[a]
    return positive
