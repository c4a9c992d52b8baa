"""Spaces: which Architectures a search may consider.

======= ============================================================================================================
idw     DamoFD's space for 0.5 GFLOPs: inverted depthwise residuals, kernels 3 to 7 (Jiang et al., ICLR 2023)
xx      DamoFD's space for 2.5 GFLOPs and more, at tiny widths: basic and bottleneck residuals, kernels 3 to 7
resnet  standard 3x3 convolutions only: plain, basic and bottleneck blocks of pruned width, as in EResFD
======= ============================================================================================================

All of them end in a top-down pyramid and a plain head, of widths that are searched too: batch normalisation that folds
away, ReLU, bilinear resize, widths that are multiples of 8, so that every network drawn has a fast form in every
runtime, INT8 included.

Limits beside the published ones keep out what no clock would choose (thin, deep, all kernels 7): a stage is at least
as wide as the one before and at most four times, inner widths are at least a tenth of the output, kernel 7 does not
occur at stride 4, and at most 5 inner layers make a block.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgeface.errors import OptionError
from edgeface.models.architecture import Architecture, Backbone, Head, Neck
from edgeface.models.structure import SuperBlock, format_structure, parse, round8
from edgeface.search.layers import macs_of

COUNTED_AT = (640, 480)
"""px: the input size at which multiply-accumulates are limited and quoted"""
MAX_TRIES = 100_000
STAGES = 4
"""behind the stem: c2 to c5"""
MAX_GROWTH = 4
GROWTHS = (1, 1.25, 1.5, 2, 2.5)
"""of the width from stage to stage, as published"""


@dataclass(frozen=True)
class Space:
    """A set of Architectures, drawn from at random."""

    name: str
    blocks: tuple[tuple[str, int, int], ...]
    """(kind, kernel, expansion) that a stage may have"""
    stems: tuple[int, ...]
    """widths of the stem, a 3x3 convolution of stride 2"""
    stem_layers: int
    """convolutions of the stem at most"""
    max_width: int
    """of a stage"""
    max_inner: int
    """bottleneck width of a block at most"""
    depth: int
    """inner layers of a block at most"""
    max_layers: int
    """inner layers of all blocks together, stem included, at most"""
    necks: tuple[int, ...] = (16, 24, 32, 48, 64)
    heads: tuple[int, ...] = (16, 24, 32, 48, 64)
    macs: tuple[float, float] = (0.15e9, 0.8e9)
    """fewest and most multiply-accumulates at :data:`COUNTED_AT`"""

    def sample(self, seed: int) -> Architecture:
        """One Architecture, the same for the same seed: log-uniform over :attr:`macs`."""
        draw = random.Random(f"{self.name} {seed}")
        wanted = math.exp(draw.uniform(*(math.log(bound) for bound in self.macs)))
        for _ in range(MAX_TRIES):
            drawn = self._draw(draw, f"{self.name}-{seed}")
            near = drawn is not None and abs(macs_of(drawn, *COUNTED_AT) / wanted - 1) < 0.1
            if drawn is not None and near and self.contains(drawn):
                return drawn
        raise OptionError(f"space {self.name}: nothing drawn has about {wanted / 1e6:.0f} million multiply-accumulates "
                          f"in {MAX_TRIES} tries")

    def mutate(self, parent: Architecture, draw: random.Random) -> Architecture:
        """A neighbour of ``parent``: one block, or neck and head, drawn anew; the widths around it follow."""
        for _ in range(MAX_TRIES):
            blocks, neck, head = list(parse(parent.backbone.structure)), parent.neck, parent.head
            place = draw.randint(1, len(blocks))
            if place == len(blocks):
                neck, head = self._ends(draw, blocks)
            else:
                fresh = self._block(draw, blocks[place - 1].out_channels, place - 1)
                if fresh is None:
                    continue
                blocks[place] = fresh
                if place + 1 < len(blocks):
                    blocks[place + 1] = dataclasses.replace(blocks[place + 1], in_channels=fresh.out_channels)
            child = dataclasses.replace(parent, backbone=dataclasses.replace(
                parent.backbone, structure=format_structure(blocks)), neck=neck, head=head)
            if child != parent and self.contains(child):
                return dataclasses.replace(child, name=self._name(child))
        raise OptionError(f"space {self.name}: {parent.name} has no neighbour inside its limits")

    def _name(self, architecture: Architecture) -> str:
        """Its own for every network, because files are named after it."""
        content = dataclasses.replace(architecture, name="").dumps()
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def contains(self, architecture: Architecture) -> bool:
        """Does it keep the limits? Asked of networks made of this space's blocks."""
        blocks = parse(architecture.backbone.structure)
        widths_fit = all(before.out_channels <= block.out_channels <= min(MAX_GROWTH * before.out_channels,
                                                                          self.max_width)
                         for before, block in pairwise(blocks))
        inner_fit = all(10 * block.bottleneck >= block.out_channels for block in blocks if block.bottleneck)
        return (widths_fit and inner_fit and sum(block.layers for block in blocks) <= self.max_layers
                and self.macs[0] <= macs_of(architecture, *COUNTED_AT) <= self.macs[1])

    def _draw(self, draw: random.Random, name: str) -> Architecture | None:
        """Uniform choices, inner widths log-uniform; None where they break a limit."""
        blocks = [SuperBlock("conv", 3, 3, draw.choice(self.stems), 2, draw.randint(1, self.stem_layers))]
        for stage in range(STAGES):
            block = self._block(draw, blocks[-1].out_channels, stage)
            if block is None:
                return None
            blocks.append(block)
        if sum(block.layers for block in blocks) > self.max_layers:
            return None
        return Architecture(name, Backbone("plainnet", format_structure(blocks)), *self._ends(draw, blocks))

    def _block(self, draw: random.Random, before: int, stage: int) -> SuperBlock | None:
        """One super-block behind ``before`` channels; None where it breaks a limit."""
        out = min(round8(before * draw.choice(GROWTHS)), self.max_width)
        kind, kernel, expansion = draw.choice(self.blocks)
        if kernel == 7 and stage == 0:
            return None
        least = 8 * math.ceil(out / 80)
        inner = 0 if kind == "conv" else round8(math.exp(draw.uniform(math.log(least), math.log(self.max_inner))))
        return SuperBlock(kind, kernel, before, out, 2, draw.randint(1, self.depth), inner, expansion)

    def _ends(self, draw: random.Random, blocks: Sequence[SuperBlock]) -> tuple[Neck, Head]:
        depthwise = any(block.kind == "inverted" for block in blocks) and draw.random() < 0.5
        head = Head("plain", draw.choice(self.heads), draw.randint(1, 2), depthwise=depthwise)
        return Neck("fpn", draw.choice(self.necks)), head


_KERNELS = (3, 5, 7)

SPACES: dict[str, Space] = {
    space.name: space for space in (
        Space("idw", tuple(("inverted", k, e) for k in _KERNELS for e in (1, 2, 4, 6)), (16, 24, 32), 1, 160, 128,
              2, 14),
        Space("xx", tuple((kind, k, 0) for kind in ("basic", "bottleneck") for k in _KERNELS), (8, 16, 24, 32), 1, 128,
              64, 3, 14),
        Space("resnet", (("conv", 3, 0), ("basic", 3, 0), ("bottleneck", 3, 0)), (8, 16, 24, 32), 1, 128, 128, 3, 14),
    )
}


def get_space(name: str) -> Space:
    """The space called ``name``. Raises OptionError that lists the known ones."""
    if name not in SPACES:
        raise OptionError(f"unknown space {name!r} (known: {', '.join(SPACES)})")
    return SPACES[name]
