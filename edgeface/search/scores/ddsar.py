"""DDSAR, DamoFD's zero-cost score of a backbone (Liu et al., ICLR 2023), published and corrected.

A network of ReLU layers cuts its input space into linear regions; the more regions, the more it can
express (Xiong et al., ICML 2020, bound their number for convolutions). The score rates each stage
separately, stem and c2 to c5::

    E_i   = ln(h_i^2 d0) + sum over convolutions l of stage i:  h_l^2 d0 ln(c_l / d0)      d0 = 3
    SES_i = ln E_i                              expressivity
    FSS_i = sum over l: k_l                     filter sensitivity; 1 for a 1x1
    SAR_i = SES_i + alpha FSS_i
    DDSAR = sum over i: w_i SAR_i

c_l and h_l are channels and side of the input of convolution l, k_l is its kernel, h_i the side of
the input of stage i; shortcut projections do not count. The weights are the shares of faces that
the stages are responsible for (:func:`stage_weights`).

The published scorer assumes that the second half of an inverted residual is as wide as the first,
which is wrong. The corrected score uses true widths and drops the stem, whose one convolution
scores a constant: with it, families of networks cannot be compared; without it, nothing changes in
a search that does not change the stem.

The score of a whole detector (:func:`detector_score`) is the corrected one with neck and head
counted, for searches that change these, too: the convolutions on the level of stride 8 belong to
c3, those of 16 to c4, those of 32 to c5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import Block, block_part, blocks_of
from edgeface.architecture.specs import (
    Backbone,
    ConvNetSpec,
    MobileNetSpec,
    PlainHeadSpec,
    PlainNetSpec,
    ResNetSpec,
)
from edgeface.architecture.structure import SuperBlock, parse
from edgeface.errors import DataError, ModelError, OptionError
from edgeface.options import check_number
from edgeface.zoo.named import named_architecture

STAGES = ("stem", "c2", "c3", "c4", "c5")
WEIGHTS = (0.20, 0.27, 0.25, 0.18, 0.10)
"""as published, for WIDER FACE"""
ALPHA = 0.25
"""as published, for the 500M search"""
SIDE_PX = 224
"""side of the square image on which the published scores are computed"""
INPUT_CHANNELS = 3
EDGES_PX = (9, 16, 32, 64)
"""faces below 9 px belong to the stem, below 16 to c2, and so on: a stage of stride s owns those
from 2s to 4s. The first edge is 9 and not 8 because with 9 the faces of WIDER FACE give the
published weights (within .03; 8 is .06 off)."""


@dataclass(frozen=True)
class Conv:
    """The properties of a convolution that the score uses."""

    channels: int
    """input channels"""
    side: int
    """side of the square input map, px"""
    kernel: int


@dataclass(frozen=True)
class BackboneScore:
    """Scores of one backbone."""

    ddsar: float
    """as published"""
    corrected: float
    """true widths, without the stem, weights renormalised"""
    ses: tuple[float, ...]
    """expressivity of stem and c2 to c5, as published"""
    fss: tuple[int, ...]

    def to_json(self) -> dict[str, object]:
        """As ``edgeface score --format json`` prints it."""
        stages = {
            name: {"ses": ses, "fss": fss}
            for name, ses, fss in zip(STAGES, self.ses, self.fss, strict=True)
        }
        return {"ddsar": self.ddsar, "corrected": self.corrected, "stages": stages}


def score(
    backbone: Backbone,
    alpha: float = ALPHA,
    weights: Sequence[float] = WEIGHTS,
    side: int = SIDE_PX,
) -> BackboneScore:
    """Score ``backbone`` on a square image of ``side`` px.

    Raises OptionError for weights that are not five shares, ModelError for a backbone that has no
    five stages.
    """
    check_weights(weights)
    check_number("--alpha", alpha, 0, 1000)
    literal = stages_of(backbone, side, literal=True)
    ses, fss = (
        [expressivity(stage) for stage in literal],
        [sum(conv.kernel for conv in stage) for stage in literal],
    )
    corrected = _corrected(stages_of(backbone, side)[1:], alpha, weights)
    ddsar = sum(w * (s + alpha * f) for w, s, f in zip(weights, ses, fss, strict=True))
    return BackboneScore(ddsar, corrected, tuple(ses), tuple(fss))


def detector_score(
    architecture: Architecture,
    alpha: float = ALPHA,
    weights: Sequence[float] = WEIGHTS,
    side: int = SIDE_PX,
) -> float:
    """The corrected score with the convolutions of neck and head, but not those of the outputs,
    which no ReLU follows.

    Raises ModelError for a neck other than fpn, a head other than plain, and a backbone without
    five stages.
    """
    neck, head = architecture.neck, architecture.head
    if neck.kind != "fpn" or not isinstance(head, PlainHeadSpec):
        raise ModelError(
            f"{architecture.name}: the detector score is for neck fpn and head plain, this is"
            f" {neck.kind} with {head.kind}"
        )
    stages = stages_of(architecture.backbone, side)[1:]
    for stage, stride, channels in zip(
        stages[1:], (8, 16, 32), _widths(architecture.backbone), strict=True
    ):
        stage += [Conv(channels, side // stride, 1), *_tower(neck.channels, head, side // stride)]
    return _corrected(stages, alpha, weights)


def levels(
    architecture: Architecture, alpha: float = ALPHA, weights: Sequence[float] = WEIGHTS
) -> float:
    """The detector score of c3, c4 and c5 alone. Raises OptionError if all their weights are 0."""
    weights = (0, 0, *weights[2:])
    check_weights(weights)
    return detector_score(architecture, alpha, weights)


def _tower(channels: int, head: PlainHeadSpec, side: int) -> Iterator[Conv]:
    for _ in range(head.stack):
        if head.depthwise:
            yield Conv(channels, side, 3)
        yield Conv(channels, side, 1 if head.depthwise else 3)
        channels = head.channels


def _widths(backbone: Backbone) -> tuple[int, ...]:
    """Output channels of c3, c4 and c5."""
    if not isinstance(backbone, PlainNetSpec):
        return backbone.widths[-3:]
    blocks = parse(backbone.structure)
    last = [block for block, after in pairwise(blocks) if after.stride > 1]
    return tuple(block.out_channels for block in (*last, blocks[-1]))[-3:]


def _corrected(stages: Sequence[Sequence[Conv]], alpha: float, weights: Sequence[float]) -> float:
    """Corrected score of the stages c2 to c5."""
    return sum(
        w * (expressivity(stage) + alpha * sum(conv.kernel for conv in stage))
        for w, stage in zip(weights[1:], stages, strict=True)
    ) / sum(weights[1:])


def read_backbone(text: str) -> Backbone:
    """Backbone given as a structure string, or as the name of its network. Raises ModelError."""
    return PlainNetSpec(text) if text.startswith("Super") else named_architecture(text).backbone


def weights_of_annotations(path: Path) -> tuple[float, ...]:
    """:func:`stage_weights` of the faces in an annotation file, in px of its photos, without those
    marked invalid. Raises DataError."""
    from edgeface.images.annotations import read_annotations

    sides = [
        math.sqrt(max(0.0, float(x2 - x1)) * max(0.0, float(y2 - y1)))
        for image in read_annotations(path)
        for x1, y1, x2, y2 in image.boxes[~image.invalid]
    ]
    return stage_weights(sides)


def expressivity(stage: Sequence[Conv]) -> float:
    """SES of the convolutions of one stage; 0 for no convolutions, as in the stem of a network
    whose first convolution has stride 4 and belongs to c2."""
    if not stage:
        return 0.0
    if min(conv.channels for conv in stage) < 1:
        raise ModelError("a stage whose width is below 1 has no score")
    total = math.log(stage[0].side ** 2 * INPUT_CHANNELS)
    total += sum(c.side**2 * INPUT_CHANNELS * math.log(c.channels / INPUT_CHANNELS) for c in stage)
    if total <= 0:
        raise ModelError(
            f"a stage that reads {stage[0].channels} channels has no score: its widths are below "
            f"{INPUT_CHANNELS}"
        )
    return math.log(total)


def block_score(block: SuperBlock, side: int) -> tuple[float, int]:
    """Published (SES, FSS) of a block that is a whole stage, on a map of ``side`` px."""
    stage = _convs(block, side, literal=True)
    return expressivity(stage), sum(conv.kernel for conv in stage)


def stage_weights(sides_px: Iterable[float]) -> tuple[float, ...]:
    """Stage weights for a data set: shares of its faces between successive :data:`EDGES_PX`.

    sides_px: sqrt(width height) of each face, px. Raises DataError if there are no faces.
    """
    counts = [0] * len(STAGES)
    for side in sides_px:
        counts[sum(side >= edge for edge in EDGES_PX)] += 1
    if not sum(counts):
        raise DataError(
            "stage weights are shares of faces, and there are no faces: check the annotations"
        )
    return tuple(count / sum(counts) for count in counts)


def check_weights(weights: Sequence[float]) -> None:
    """Raise OptionError unless there are five finite shares of at least 0, of which the last four
    sum to more than 0."""
    good = (
        len(weights) == len(STAGES)
        and all(math.isfinite(w) and w >= 0 for w in weights)
        and sum(weights[1:]) > 0
    )
    if not good:
        raise OptionError(
            f"stage weights {list(weights)}: give {len(STAGES)} numbers of at least 0, for "
            f"{', '.join(STAGES)}, of which the last four are not all 0"
        )


def stages_of(backbone: Backbone, side: int, literal: bool = False) -> list[list[Conv]]:
    """Convolutions of stem and c2 to c5, in order. ``literal``: as the published scorer counts
    them."""
    try:
        stages = list(_stages(backbone, side, literal))
    except (IndexError, ValueError):
        raise ModelError(
            f"{backbone.kind}: its widths and depths do not describe five stages"
        ) from None
    if len(stages) != len(STAGES):
        raise ModelError(
            f"the score is for backbones of {len(STAGES)} stages, this one has {len(stages)}"
        )
    return stages


def _stages(backbone: Backbone, side: int, literal: bool) -> Iterator[list[Conv]]:
    if isinstance(backbone, PlainNetSpec):
        return _plainnet(backbone, side, literal)
    if isinstance(backbone, ConvNetSpec):
        return _convnet(backbone, side)
    if isinstance(backbone, MobileNetSpec):
        return _mobilenet(backbone, side)
    if isinstance(backbone, ResNetSpec):
        return _resnet(backbone, side)
    raise ModelError(
        "the score is for backbones of five stages (plainnet, convnet, mobilenetv1, resnetv1e),"
        f" not for {backbone.kind}"
    )


def _plainnet(backbone: PlainNetSpec, side: int, literal: bool) -> Iterator[list[Conv]]:
    stage: list[Conv] = []
    for block in parse(backbone.structure):
        if block.stride == 4:
            yield []
        if block.stride > 1 and stage:  # blocks of stride 1 belong to the stage before
            yield stage
            stage = []
        stage += _convs(block, side, literal)
        side //= block.stride
    yield stage


def _convs(block: Block, side: int, literal: bool = False) -> list[Conv]:
    """Convolutions of a block on a map of ``side`` px, without shortcuts."""
    part, convs = block_part(block, side, side), []
    inverted = literal and isinstance(block, SuperBlock) and block.kind == "inverted"
    for place, layer in enumerate(part.path):
        channels = layer.in_channels
        if inverted and place % 3:  # after the widening 1x1, in both halves
            assert isinstance(block, SuperBlock)
            channels = block.expansion * block.bottleneck
        convs.append(Conv(channels, side, layer.kernel))
        side = layer.width
    return convs


def _convnet(backbone: ConvNetSpec, side: int) -> Iterator[list[Conv]]:
    yield []
    for block in blocks_of(backbone):
        yield _convs(block, side)
        side //= block_part(block, side, side).stride


def _mobilenet(backbone: MobileNetSpec, side: int) -> Iterator[list[Conv]]:
    widths = backbone.widths
    yield [
        Conv(INPUT_CHANNELS, side, 3),
        Conv(widths[0], side // 2, 3),
        Conv(widths[0], side // 2, 1),
    ]
    side //= 2
    for before, out, depth in zip(widths[1:-1], widths[2:], backbone.depths, strict=True):
        stage = [Conv(before, side, 3), Conv(before, side // 2, 1)]
        side //= 2
        stage += [
            conv for _ in range(depth - 1) for conv in (Conv(out, side, 3), Conv(out, side, 1))
        ]
        yield stage


def _resnet(backbone: ResNetSpec, side: int) -> Iterator[list[Conv]]:
    """A max-pool stands between stem and c2, so c2 reads and writes maps of a quarter of the
    side."""
    width = backbone.widths[0]
    half = max(1, width // 2)
    yield [Conv(INPUT_CHANNELS, side, 3), Conv(half, side // 2, 3), Conv(half, side // 2, 3)]
    side //= 4
    for index, (out, depth) in enumerate(zip(backbone.widths[1:], backbone.depths, strict=True)):
        stage: list[Conv] = []
        for block in range(depth):
            after = side // 2 if index and not block else side
            if backbone.block == "basic":
                stage += [Conv(width, side, 3), Conv(out, after, 3)]
            else:
                stage += [Conv(width, side, 1), Conv(out // 4, side, 3), Conv(out // 4, after, 1)]
            width, side = out, after
        yield stage
