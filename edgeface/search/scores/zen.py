"""Zen-score of a backbone (Lin et al., ICCV 2021).

It is the only score that runs a network, so it needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from edgeface.architecture import Architecture
from edgeface.architecture.layers import parts_of
from edgeface.search.scores.macs import ENDS

ZEN_GAMMA = 0.01
ZEN_BATCH = 16
"""images at a time, as published"""
ZEN_SIDE = 64
"""side of the images, px"""
ZEN_REPEATS = 4
"""draws of weights and images"""


@lru_cache(maxsize=1 << 12)  # a second per network
def zen(architecture: Architecture, seed: int = 0) -> float:
    """Zen-score: how much the backbone's last map c5 changes with its input, at random weights::

        score = ln mean over images( sum over c5 |f(x) - f(x + 0.01 e)| ) + sum over layers ln
        sqrt(mean variance)

    Images x, noise e and weights are standard normal. f has no shortcuts: its convolutions follow
    each other, each with the batch's own normalisation and ReLU; the second sum restores the
    scale that normalisation removes. Means over :data:`ZEN_REPEATS` draws, on :data:`ZEN_BATCH`
    images of :data:`ZEN_SIDE` px. Needs torch.
    """
    import torch

    path = [
        layer for part in parts_of(architecture, ZEN_SIDE, ZEN_SIDE)[:-ENDS] for layer in part.path
    ]
    generator = torch.Generator().manual_seed(seed)
    scores = []
    with torch.inference_mode(), _one_thread():
        for _ in range(ZEN_REPEATS):
            clean, noise = torch.randn(2, ZEN_BATCH, 3, ZEN_SIDE, ZEN_SIDE, generator=generator)
            maps, scale = [clean, clean + ZEN_GAMMA * noise], 0.0
            for layer in path:
                weight = torch.randn(
                    layer.out_channels,
                    layer.inputs,
                    layer.kernel,
                    layer.kernel,
                    generator=generator,
                )
                maps = [
                    torch.conv2d(
                        x,
                        weight,
                        stride=layer.stride,
                        padding=(layer.kernel - layer.stride + 1) // 2,
                        groups=layer.in_channels // layer.inputs,
                    )
                    for x in maps
                ]
                scale += 0.5 * math.log(float(maps[0].var((0, 2, 3), unbiased=False).mean()))
                maps = [
                    torch.relu(torch.nn.functional.batch_norm(x, None, None, training=True))
                    for x in maps
                ]
            scores.append(math.log(float((maps[0] - maps[1]).abs().sum((1, 2, 3)).mean())) + scale)
    return sum(scores) / len(scores)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: more compute maps this small no faster, and much slower if other
    programs run too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
