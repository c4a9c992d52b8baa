"""DamoFD's published search (Liu et al., ICLR 2023): the highest DDSAR within a budget of FLOPs.

Steady-state evolution without crossover: a parent is drawn from a pool, one or two of its blocks
are exchanged for random ones, and the child joins the pool if it keeps the limits; the worst leaves
when the pool is full. Latency is not considered: run to convergence, the search ends in nets that
are thin, deep and full of 7x7 kernels. ``edgeface search --published`` runs it, the baseline that
every other search must beat.

FLOPs are counted as in the authors' scripts: multiply-accumulates, plus one for each value that a
batch normalisation writes; a shortcut projection counts stride squared times less than it costs.
The published nets lie at 95 to 97 % of their budgets by this count.
"""

from __future__ import annotations

import random
from bisect import insort
from dataclasses import dataclass, replace
from functools import lru_cache

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import block_part
from edgeface.architecture.registry import VARIANT_SUFFIX, get_architecture
from edgeface.architecture.specs import PlainNetSpec
from edgeface.architecture.structure import SuperBlock, format_structure, parse, round8
from edgeface.errors import OptionError
from edgeface.search.scores.ddsar import ALPHA, SIDE_PX, WEIGHTS, block_score, check_weights
from edgeface.types import Progress, unseen

ITERATIONS = 96_000
POPULATION = 256
YOUNG_POOL = 10
"""as long as the pool is no larger, every parent is the initial net and one block is exchanged"""
SPLIT_LAYERS = 6
"""inner layers from which a block would be split in two; only nets of five blocks are allowed"""
KERNELS = (3, 5, 7)
STEPS = (-2, -1, 0, 1, 2)
"""changes to the number of inner layers of a block"""


@dataclass(frozen=True)
class Mutations:
    """Changes that a block may undergo."""

    kinds: tuple[tuple[str, int, int], ...]
    """(kind, kernel, expansion)"""
    out: tuple[float, ...]
    """factors of the output width"""
    inner: tuple[float, ...]
    """factors of the bottleneck width"""
    max_out: int
    max_inner: int

    def draw(self, block: SuperBlock, draw: random.Random) -> SuperBlock:
        """``block`` with kind, width, inner width and layers drawn uniformly and independently."""
        kind, kernel, expansion = draw.choice(self.kinds)
        out = _width(block.out_channels * draw.choice(self.out), self.max_out)
        inner = _width(block.bottleneck * draw.choice(self.inner), self.max_inner)
        layers = max(1, block.layers + draw.choice(STEPS))
        return _block(kind, kernel, block.in_channels, out, block.stride, layers, inner, expansion)


@dataclass(frozen=True)
class Regime:
    """One of the published searches."""

    start: str
    """structure string of the initial net"""
    mutations: Mutations
    max_layers: int
    """most inner layers of all blocks together, stem included"""
    budget: float
    """FLOPs at 224x224"""


@dataclass(frozen=True)
class Found:
    """One net of the final pool."""

    ddsar: float
    structure: str
    flops: float


def search(
    regime: Regime,
    seed: int,
    iterations: int = ITERATIONS,
    population: int = POPULATION,
    alpha: float = ALPHA,
    weights: tuple[float, ...] = WEIGHTS,
    progress: Progress = unseen,
) -> list[Found]:
    """The final pool, best first; empty if no child kept the limits. The initial net may break
    them, as two of the published ones do. Raises OptionError for ``iterations`` or ``population``
    below 1, and for weights that :func:`check_weights` refuses."""
    check_weights(weights)
    if iterations < 1 or population < 1:
        raise OptionError(
            f"iterations and population must be at least 1, got {iterations} and {population}"
        )
    draw, start = random.Random(seed), parse(regime.start)
    pool: list[
        tuple[float, int, tuple[SuperBlock, ...]]
    ] = []  # ascending by score; the iteration number breaks ties
    for done in range(iterations):
        young = len(pool) <= YOUNG_POOL
        parent = start if young else pool[draw.randrange(len(pool))][2]
        child = _mutated(parent, regime.mutations, 1 if young else 2, draw)
        if _allowed(child, regime):
            insort(pool, (ddsar(child, alpha, weights), done, child))
            if len(pool) > population:
                del pool[0]
        if done % 1000 == 0:
            progress(f"evolving, best score {pool[-1][0] if pool else 0.0:.3f}", done, iterations)
    return [
        Found(value, format_structure(blocks), flops(blocks)) for value, _, blocks in reversed(pool)
    ]


def regime_of(name: str) -> Regime:
    """The published search called ``name``. Raises OptionError."""
    if name not in REGIMES:
        raise OptionError(f"--published {name!r} is not one of: {', '.join(REGIMES)}")
    return REGIMES[name]


def detector_of(name: str, found: Found) -> Architecture:
    """The net that the search called ``name`` found, as a detector damofd-``name``-<12 digits>. It
    has the neck and head of the network published for this size, in the variant that exports
    well."""
    published = get_architecture(f"damofd-{name}{VARIANT_SUFFIX}")
    network = replace(published, backbone=PlainNetSpec(found.structure))
    return network.named_by_content(f"damofd-{name}")


def ddsar(
    blocks: tuple[SuperBlock, ...], alpha: float = ALPHA, weights: tuple[float, ...] = WEIGHTS
) -> float:
    """Published DDSAR of five blocks, one per stage: the same value as
    :func:`~edgeface.search.scores.ddsar.score`, but faster."""
    total, side = 0.0, SIDE_PX
    for weight, block in zip(weights, blocks, strict=True):
        ses, fss = _stage(block, side)
        total += weight * (ses + alpha * fss)
        side //= block.stride
    return total


def flops(blocks: tuple[SuperBlock, ...], side: int = SIDE_PX) -> float:
    """FLOPs of a backbone on a square image, as the authors' search counts them."""
    total = 0.0
    for block in blocks:
        total += _block_flops(block, side)
        side //= block.stride
    return total


def _mutated(
    parent: tuple[SuperBlock, ...], mutations: Mutations, times: int, draw: random.Random
) -> tuple[SuperBlock, ...]:
    blocks = list(parent)
    for place in {draw.randrange(1, len(blocks)) for _ in range(times)}:
        blocks[place] = mutations.draw(blocks[place], draw)
    for place in range(1, len(blocks)):
        if blocks[place].in_channels != blocks[place - 1].out_channels:
            blocks[place] = _rechained(blocks[place], blocks[place - 1].out_channels)
    return tuple(blocks)


def _allowed(blocks: tuple[SuperBlock, ...], regime: Regime) -> bool:
    return (
        sum(block.layers for block in blocks) <= regime.max_layers
        and all(block.layers < SPLIT_LAYERS for block in blocks)
        and flops(blocks) <= regime.budget
    )


@lru_cache(maxsize=1 << 16)
def _rechained(block: SuperBlock, in_channels: int) -> SuperBlock:
    return replace(block, in_channels=in_channels)


@lru_cache(maxsize=1 << 17)
def _block(
    kind: str,
    kernel: int,
    in_channels: int,
    out: int,
    stride: int,
    layers: int,
    inner: int,
    expansion: int,
) -> SuperBlock:
    return SuperBlock(kind, kernel, in_channels, out, stride, layers, inner, expansion)


def _width(value: float, most: int) -> int:
    return min(most, round8(value))


@lru_cache(maxsize=1 << 17)
def _stage(block: SuperBlock, side: int) -> tuple[float, int]:
    """(SES, FSS) of a block that is a stage, on a map of ``side`` px."""
    return block_score(block, side)


@lru_cache(maxsize=1 << 17)
def _block_flops(block: SuperBlock, side: int) -> float:
    total = 0.0
    for layer in block_part(block, side, side).layers:
        if layer.shortcut:
            total += (
                (layer.in_channels + 1) * layer.out_channels * (layer.width / layer.stride) ** 2
            )
        elif layer.kernel:
            total += layer.macs + layer.values_written
    return total


_SHRINK = (0.4, 0.5, 0.667, 0.8, 1)
_IDW = Mutations(
    tuple(("inverted", k, e) for e in (1, 2, 4, 6) for k in KERNELS),
    (1, 1.25, 1.5, 2, 2.5),
    (*_SHRINK, 1.25, 1.5, 2, 2.5),
    128,
    9999,
)
_XX = Mutations(
    tuple((kind, k, 0) for kind in ("bottleneck", "basic") for k in KERNELS),
    (*_SHRINK, 1.25, 1.5, 1.75, 2),
    (*_SHRINK, 1.25, 1.5, 1.75, 2),
    1024,
    256,
)


def _start(stem: int, stem_layers: int, kind: str, *rows: tuple[int, int, int]) -> str:
    """Structure of a stem and blocks of (out, bottleneck, layers)."""
    text, before = f"SuperConvK3BNRELU(3,{stem},2,{stem_layers})", stem
    for out, inner, layers in rows:
        text += f"{kind}({before},{out},2,{inner},{layers})"
        before = out
    return text


REGIMES: dict[str, Regime] = {
    "0.5g": Regime(
        "SuperConvK3BNRELU(3,32,2,1)SuperResIDWE1K3(32,32,2,8,1)SuperResIDWE4K3(32,48,2,32,1)"
        "SuperResIDWE1K3(48,96,2,48,1)SuperResIDWE1K3(96,128,2,96,1)",
        _IDW,
        14,
        65e6,
    ),
    "2.5g": Regime(
        _start(24, 2, "SuperResK3K3", (32, 32, 3), (48, 64, 2), (64, 128, 2), (128, 16, 3)),
        _XX,
        20,
        345e6,
    ),
    "10g": Regime(
        _start(24, 1, "SuperResK3K3", (48, 64, 5), (64, 64, 5), (96, 128, 3), (128, 16, 1)),
        _XX,
        20,
        1414e6,
    ),
    "34g": Regime(
        _start(56, 2, "SuperResK3K3", (112, 96, 5), (224, 96, 5), (448, 128, 3), (1024, 16, 1)),
        _XX,
        20,
        4375e6,
    ),
}
"""name -> search in the authors' scripts"""
