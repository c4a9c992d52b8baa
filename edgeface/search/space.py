"""Spaces: which Architectures a search may consider.

======  ==========================================================================================
idw     DamoFD's space for 0.5 GFLOPs: inverted depthwise residuals, kernels 3 to 7 (Liu et al.,
        ICLR 2023)
xx      DamoFD's space for 2.5 GFLOPs and more, at tiny widths: basic and bottleneck residuals,
        kernels 3 to 7
resnet  standard 3x3 convolutions only: plain, basic and bottleneck blocks of pruned width, as in
        EResFD
edge    our own: the blocks of resnet, residuals led by a convolution and depthwise separable
        convolutions, behind a stem of stride 2 or 4
======  ==========================================================================================

A space of your own is a .json file with the fields of :class:`Space`. All networks end in a
top-down pyramid and a plain head, whose widths are searched too. They use only batch
normalisation that folds away, ReLU, bilinear resize and widths that are multiples of 8, so that
every network drawn has a fast form in every runtime, INT8 included.

Limits beside the published ones exclude networks that measured latency would never favour (thin,
deep, all kernels 7): a stage is one to four times as wide as the one before, inner widths are at
least a tenth of the output, kernel 7 does not occur at stride 4, and a block has at most
:attr:`Space.depth` inner layers, 2 in idw and 3 in the others.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, macs_of
from edgeface.architecture.registry import get_architecture, listed
from edgeface.architecture.specs import (
    Backbone,
    ConvNetSpec,
    Head,
    Neck,
    PlainHeadSpec,
    PlainNetSpec,
    PyramidSpec,
)
from edgeface.architecture.structure import (
    PLAIN,
    STEM_KERNEL,
    SuperBlock,
    format_structure,
    parse,
    round8,
)
from edgeface.bundle import PLAIN_NAME
from edgeface.errors import EdgefaceError, OptionError
from edgeface.files import read_regular
from edgeface.schema import from_fields, short

MAX_TRIES = 100_000
STAGES = 4
"""stages behind a stem of stride 2: c2 to c5"""
STEPS = (-16, -8, 8, 16)
"""channels that a small mutation adds"""
MAX_GROWTH = 4
GROWTHS = (1, 1.25, 1.5, 2, 2.5)
"""factors of the width from stage to stage, as published"""


@dataclass(frozen=True)
class Space:
    """A set of Architectures, drawn from at random."""

    name: str
    """beginning of the names of its networks, after which files are named"""
    blocks: tuple[tuple[str, int, int], ...]
    """(kind, kernel, expansion) that a stage may have"""
    stems: tuple[int, ...]
    """widths of the stem: a 3x3 convolution of stride 2, or a 6x6 one of stride 4, which is c2"""
    stem_layers: int
    """most convolutions in a stem of stride 2"""
    max_width: int
    """largest output width of a stage"""
    max_inner: int
    """largest bottleneck width of a block"""
    depth: int
    """most inner layers of a block"""
    max_layers: int
    """most inner layers of all blocks together, stem included"""
    necks: tuple[int, ...] = (16, 24, 32, 48, 64)
    heads: tuple[int, ...] = (16, 24, 32, 48, 64)
    macs: tuple[float, float] = (0.15e9, 0.8e9)
    """fewest and most multiply-accumulates at :data:`COUNTED_AT`"""
    stem_strides: tuple[int, ...] = (2,)
    """2, 4 or both"""

    def __post_init__(self) -> None:
        widths = (*self.stems, *self.necks, *self.heads, self.max_width, self.max_inner)
        limits = {
            "blocks": (bool(self.blocks), "at least one"),
            "stems, necks and heads": (
                bool(self.stems and self.necks and self.heads),
                "at least one width each",
            ),
            "widths": (all(w >= 8 and w % 8 == 0 for w in widths), "multiples of 8"),
            "stem_strides": (
                bool(self.stem_strides) and set(self.stem_strides) <= {2, 4},
                "2, 4 or both",
            ),
            "depth": (min(self.depth, self.stem_layers) >= 1, "1 or more, and so is stem_layers"),
            "max_width": (
                self.max_width >= min(self.stems, default=8),
                "as wide as the narrowest stem at least",
            ),
            "max_layers": (
                self.max_layers > STAGES,
                f"more than {STAGES}: one a stage and the stem",
            ),
            "macs": (0 < self.macs[0] < self.macs[1], "two numbers, of which the second is larger"),
        }
        for name, (kept, accepted) in limits.items():
            if not kept:
                raise ValueError(f"{name} contradict the rest of the space; accepted: {accepted}")
        if not PLAIN_NAME.fullmatch(f"{self.name}-{'0' * 12}"):
            raise ValueError(
                f"name {short(self.name)} is no beginning of the names of files; accepted: 1 to 51"
                " letters, digits, '.', '_' or '-', the first a letter or digit"
            )
        for kind, kernel, expansion in self.blocks:
            SuperBlock(kind, kernel, 8, 8, 1, 1, 0 if kind in PLAIN else 8, expansion)

    def sample(self, seed: int) -> Architecture:
        """One Architecture, the same for the same seed: log-uniform over :attr:`macs`."""
        draw = random.Random(f"{self.name} {seed}")
        wanted = math.exp(draw.uniform(*(math.log(bound) for bound in self.macs)))
        for _ in range(MAX_TRIES):
            drawn = self._draw(draw, f"{self.name}-{seed}")
            near = drawn is not None and abs(macs_of(drawn, *COUNTED_AT) / wanted - 1) < 0.1
            if drawn is not None and near and self.contains(drawn):
                return drawn
        raise OptionError(
            f"space {self.name}: nothing drawn has about {wanted / 1e6:.0f} million"
            f" multiply-accumulates in {MAX_TRIES} tries"
        )

    def members(self) -> list[Architecture]:
        """Networks of the zoo that lie in this space, without landmarks: a search begins with
        networks known to be good."""
        found = [
            Architecture(
                name,
                _plain(known.backbone),
                known.neck,
                dataclasses.replace(known.head, landmarks=0),
            ).named_by_content(self.name)
            for name in listed()
            if isinstance((known := get_architecture(name)).backbone, ConvNetSpec | PlainNetSpec)
            and isinstance(known.head, PlainHeadSpec)
        ]
        return [a for a in found if self._made_of(a) and self.contains(a)]

    def _made_of(self, architecture: Architecture) -> bool:
        """Does it consist of this space's blocks, stem, neck and head?"""
        stem, *blocks = parse(architecture.structure)
        neck, head = architecture.neck, architecture.head
        return (
            stem.stride in self.stem_strides
            and stem.out_channels in self.stems
            and stem.layers <= self.stem_layers
            and all((b.kind, b.kernel, b.expansion) in self.blocks for b in blocks)
            and all(b.layers <= self.depth and b.bottleneck <= self.max_inner for b in blocks)
            and neck.kind == "fpn"
            and neck.channels in self.necks
            and head.channels in self.heads
        )

    def mutate(self, parent: Architecture, draw: random.Random) -> Architecture:
        """A neighbour of ``parent``: one block, the stem, or neck and head is drawn anew, or one
        block is changed by a step; input widths are adapted."""
        for _ in range(MAX_TRIES):
            blocks, neck, head = list(parse(parent.structure)), parent.neck, parent.head
            place = draw.randint(0, len(blocks))
            if place == len(blocks):
                neck, head = self._ends(draw)
            elif place == 0:
                blocks = self._other_stem(draw, blocks)
            else:
                before, stage = blocks[place - 1].out_channels, place - len(blocks) + STAGES
                step = draw.random() < 0.5
                fresh = (
                    self._step(draw, blocks[place]) if step else self._block(draw, before, stage)
                )
                blocks = [*blocks[:place], fresh, *blocks[place + 1 :]] if fresh else []
            child = self._child(parent, blocks, neck, head) if blocks else None
            # Names count, too: a drawn network may get a child of equal layers. To refuse it would
            # change what every recorded search drew.
            if child is not None and child != parent:
                return child
        raise OptionError(f"space {self.name}: {parent.name} has no neighbour inside its limits")

    def cross(self, first: Architecture, second: Architecture, draw: random.Random) -> Architecture:
        """A child with the stem and first stages of ``first``, the last stages of ``second``, and
        neck and head of one of them; ``first`` itself if the child breaks a limit."""
        ours, theirs = parse(first.structure), parse(second.structure)
        kept = draw.randrange(STAGES)  # number of stages from second
        blocks = [*ours[: len(ours) - kept], *theirs[len(theirs) - kept :]]
        ends = draw.choice((first, second))
        return self._child(first, blocks, ends.neck, ends.head) or first

    def _child(
        self, parent: Architecture, blocks: Sequence[SuperBlock], neck: Neck, head: Head
    ) -> Architecture | None:
        """A network of these parts, input widths adapted; None if it breaks a limit."""
        chained = [blocks[0]]
        for block in blocks[1:]:
            chained.append(dataclasses.replace(block, in_channels=chained[-1].out_channels))
        child = dataclasses.replace(
            parent, backbone=PlainNetSpec(format_structure(chained)), neck=neck, head=head
        )
        return child.named_by_content(self.name) if self.contains(child) else None

    def _other_stem(self, draw: random.Random, blocks: Sequence[SuperBlock]) -> list[SuperBlock]:
        """``blocks`` with another stem: c2 is a block behind a stem of stride 2, else the stem.
        Empty if the block drawn for c2 breaks a limit."""
        stem, behind = self._stem(draw), list(blocks[len(blocks) - STAGES + 1 :])
        if stem.stride == 2:
            c2 = blocks[1] if len(blocks) > STAGES else self._block(draw, stem.out_channels, 0)
            return [stem, c2, *behind] if c2 else []
        return [stem, *behind]

    def _step(self, draw: random.Random, block: SuperBlock) -> SuperBlock | None:
        """``block``, a little wider, narrower, deeper or less deep; None where it breaks a
        limit."""
        name = draw.choice(
            ("out_channels", "layers")
            if block.kind in PLAIN
            else ("out_channels", "layers", "bottleneck")
        )
        step, most = (
            (draw.choice((-1, 1)), self.depth)
            if name == "layers"
            else (draw.choice(STEPS), self.max_inner if name == "bottleneck" else self.max_width)
        )
        value = getattr(block, name) + step
        return dataclasses.replace(block, **{name: value}) if 1 <= value <= most else None

    def contains(self, architecture: Architecture) -> bool:
        """Does a network made of this space's blocks keep the limits?"""
        blocks = parse(architecture.structure)
        widths_fit = all(
            before.out_channels
            <= block.out_channels
            <= min(MAX_GROWTH * before.out_channels, self.max_width)
            for before, block in pairwise(blocks)
        )
        inner_fit = all(
            10 * block.bottleneck >= block.out_channels for block in blocks if block.bottleneck
        )
        return (
            widths_fit
            and inner_fit
            and sum(block.layers for block in blocks) <= self.max_layers
            and self.macs[0] <= macs_of(architecture, *COUNTED_AT) <= self.macs[1]
        )

    def _draw(self, draw: random.Random, name: str) -> Architecture | None:
        """A network of uniform choices, inner widths log-uniform; None if it breaks a limit."""
        blocks = [self._stem(draw)]
        for stage in range(blocks[0].stride // 2 - 1, STAGES):
            block = self._block(draw, blocks[-1].out_channels, stage)
            if block is None:
                return None
            blocks.append(block)
        if sum(block.layers for block in blocks) > self.max_layers:
            return None
        return Architecture(name, PlainNetSpec(format_structure(blocks)), *self._ends(draw))

    def _stem(self, draw: random.Random) -> SuperBlock:
        stride = (
            self.stem_strides[0] if len(self.stem_strides) == 1 else draw.choice(self.stem_strides)
        )
        width = draw.choice(self.stems)
        if stride == 4:
            return SuperBlock("conv", STEM_KERNEL, 3, width, 4, 1)
        return SuperBlock("conv", 3, 3, width, 2, draw.randint(1, self.stem_layers))

    def _block(self, draw: random.Random, before: int, stage: int) -> SuperBlock | None:
        """One super-block behind ``before`` channels; None where it breaks a limit."""
        out = min(round8(before * draw.choice(GROWTHS)), self.max_width)
        kind, kernel, expansion = draw.choice(self.blocks)
        least = 0 if kind in PLAIN else 8 * math.ceil(out / 80)
        if (kernel == 7 and stage == 0) or least > self.max_inner:
            return None
        inner = (
            round8(math.exp(draw.uniform(math.log(least), math.log(self.max_inner))))
            if least
            else 0
        )
        return SuperBlock(
            kind, kernel, before, out, 2, draw.randint(1, self.depth), inner, expansion
        )

    def _ends(self, draw: random.Random) -> tuple[Neck, Head]:
        has_depthwise = any(kind in ("inverted", "separable") for kind, _, _ in self.blocks)
        depthwise = has_depthwise and draw.random() < 0.5
        head = PlainHeadSpec(draw.choice(self.heads), draw.randint(1, 2), depthwise=depthwise)
        return PyramidSpec("fpn", draw.choice(self.necks)), head


def _plain(backbone: Backbone) -> PlainNetSpec:
    """The same layers as a structure string."""
    if isinstance(backbone, PlainNetSpec):
        return backbone
    assert isinstance(backbone, ConvNetSpec), backbone.kind
    widths = backbone.widths
    blocks = [SuperBlock("conv", STEM_KERNEL, 3, widths[0], 4, 1)]
    for before, out, depth in zip(widths[:-1], widths[1:], backbone.depths, strict=True):
        kind, inner = ("led", out) if depth else ("conv", 0)
        blocks.append(SuperBlock(kind, 3, before, out, 2, max(depth, 1), inner))
    return PlainNetSpec(format_structure(blocks))


_KERNELS = (3, 5, 7)

SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        Space(
            "idw",
            tuple(("inverted", k, e) for k in _KERNELS for e in (1, 2, 4, 6)),
            (16, 24, 32),
            1,
            160,
            128,
            2,
            14,
        ),
        Space(
            "xx",
            tuple((kind, k, 0) for kind in ("basic", "bottleneck") for k in _KERNELS),
            (8, 16, 24, 32),
            1,
            128,
            64,
            3,
            14,
        ),
        Space(
            "resnet",
            (("conv", 3, 0), ("basic", 3, 0), ("bottleneck", 3, 0)),
            (8, 16, 24, 32),
            1,
            128,
            128,
            3,
            14,
        ),
        Space(
            "edge",
            (
                ("conv", 3, 0),
                ("separable", 3, 0),
                ("separable", 5, 0),
                ("basic", 3, 0),
                ("led", 3, 0),
                ("bottleneck", 3, 0),
            ),
            (8, 16, 24, 32),
            1,
            160,
            128,
            3,
            14,
            macs=(0.04e9, 2e9),
            stem_strides=(2, 4),
        ),
    )
}


def get_space(name: str) -> Space:
    """The space called ``name``, or the one in the .json file ``name``. Raises OptionError."""
    if name.endswith(".json"):
        return _read(Path(name))
    if name not in SPACES:
        raise OptionError(f"unknown space {name!r} (known: {', '.join(SPACES)}, or a .json file)")
    return SPACES[name]


def _read(path: Path) -> Space:
    try:
        return from_fields(Space, json.loads(read_regular(path).decode("utf-8")), f"space {path}")
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(
            f"cannot read the space {path} ({type(error).__name__}): give a .json file with the"
            f" fields {', '.join(f.name for f in dataclasses.fields(Space))}"
        ) from None
    except EdgefaceError as error:
        raise OptionError(str(error)) from None
