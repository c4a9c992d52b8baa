"""Scores that count multiply-accumulates per stage, and convolutions that hinder training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from edgeface.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, Layer, Part, parts_of
from edgeface.search.scores.ddsar import WEIGHTS

ENDS = 2
"""number of parts behind the backbone: neck and head"""
STRIDES = (4, 8, 16, 32)
"""strides of the outputs of c2 to c5"""
BURDEN = 0.1
"""gain in ln(multiply-accumulates) that one more convolution without a shortcut must bring"""


def stage_macs(architecture: Architecture) -> tuple[int, ...]:
    """Multiply-accumulates of c2 to c5 at 640x480. c2 includes the stem; c3, c4 and c5 include the
    layers of neck and head on their level."""
    stages = by_stage(architecture, *COUNTED_AT, lambda part: part.layers)
    stages[STRIDES[0]] += stages.pop(STRIDES[0] // 2, [])
    return tuple(sum(layer.macs for layer in stages[stride]) for stride in STRIDES)


def stage_macs_score(architecture: Architecture, weights: Sequence[float] = WEIGHTS) -> float:
    """Sum over c2 to c5: w_i ln(MACs of stage i), weights renormalised. Among networks of equal
    MACs, one that distributes them like the weights scores highest."""
    terms = (
        weight * math.log(macs)
        for weight, macs in zip(weights[1:], stage_macs(architecture), strict=True)
    )
    return sum(terms) / sum(weights[1:])


def depth(architecture: Architecture) -> int:
    """Number of successive convolutions from the image to an output of stride 32; shortcuts do not
    count."""
    blocks, head = parts_of(architecture, *COUNTED_AT)[:-ENDS], architecture.head
    lateral, tower, output = 1, head.stack * (2 if head.depthwise else 1), 1
    return sum(len(part.path) for part in blocks) + lateral + tower + output


def unbypassed(architecture: Architecture) -> int:
    """Number of convolutions from the image to an output of stride 32 that no shortcut bypasses:
    gradients pass through all of them, which slows training down (He et al., CVPR 2016)."""
    blocks, head = parts_of(architecture, *COUNTED_AT)[:-ENDS], architecture.head
    count = sum(
        (
            not part.layers[0].shortcut
            if any(layer.kind == "add" for layer in part.layers)
            else len(part.path)
        )
        for part in blocks
    )
    lateral, tower, output = 1, head.stack * (2 if head.depthwise else 1), 1
    return count + lateral + tower + output


def trainable(architecture: Architecture, weights: Sequence[float] = WEIGHTS) -> float:
    """stage-macs minus :data:`BURDEN` times the convolutions that no shortcut bypasses: ten more of
    them must bring e times the multiply-accumulates. Not derived: found among short trainings, see
    benchmarks/evidence.
    """
    return stage_macs_score(architecture, weights) - BURDEN * unbypassed(architecture)


def by_stage(
    architecture: Architecture, width: int, height: int, pick: Callable[[Part], Iterable[Layer]]
) -> dict[int, list[Layer]]:
    """Output stride of a stage -> the layers that ``pick`` returns for its blocks, and all layers
    of neck and head on its level."""
    *blocks, neck, head = parts_of(architecture, width, height)
    stages: dict[int, list[Layer]] = {}
    stride = 1
    for part in blocks:
        stride *= part.stride
        stages.setdefault(stride, []).extend(pick(part))
    for layer in (*neck.layers, *head.layers):
        stages[width // layer.width].append(layer)
    return stages
