"""Zero-cost scores of an Architecture, all the better the higher: what stands for accuracy where nothing is trained.

========== =========================================================================================================
ddsar      DDSAR of the backbone as published (:mod:`edgeface.search.ddsar`; Liu et al., ICLR 2023)
mended     the same with true widths and without the stem
detector   mended, with neck and head counted
levels     detector without c2: of the stages that find faces only
outputs    detector by what convolutions write instead of what they read (:func:`outputs`)
stage-macs multiply-accumulates, weighed stage by stage like the faces (:func:`stage_macs_score`)
plain      convolutions that no shortcut bypasses, the fewer the better (:func:`unbypassed`)
trainable  stage-macs and plain together (:func:`trainable`): what ranked our own short trainings best
params     weights and biases of the deployed network
macs       multiply-accumulates at 640x480
depth      convolutions one after the other, from the image to the deepest output (:func:`depth`)
entropy    of the backbone, as MAE-DET computes it (:func:`entropy`; Sun et al., ICML 2022)
zen        Zen-score of the backbone (:func:`zen`; Lin et al., ICCV 2021); the only one that runs a network
random     a number drawn from the network's content: what a score that knows nothing is worth (:func:`noise`)
========== =========================================================================================================

Parameters and multiply-accumulates are the baselines that few published scores have beaten.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import zip_longest

from edgeface.errors import OptionError
from edgeface.models.architecture import Architecture
from edgeface.search import ddsar
from edgeface.search.layers import Layer, Part, macs_of, output_widths, params_of, parts_of
from edgeface.search.space import COUNTED_AT

Proxy = Callable[[Architecture, float, Sequence[float]], float]
"""(architecture, alpha, stage weights) -> score"""

ENTROPY_WEIGHTS = {8: 1.0, 16: 1.0, 32: 6.0}
"""stride of a stage -> its weight, as published for detectors: (0, 0, 1, 1, 6) for stem and c2 to c5"""
ZEN_GAMMA = 0.01
ZEN_BATCH = 16
"""images at a time, as published"""
ZEN_SIDE = 64
"""px"""
ZEN_REPEATS = 4
"""drawings of weights and images"""
ENDS = 2
"""parts behind the backbone: neck and head"""
STRIDES = (4, 8, 16, 32)
"""of the outputs of c2 to c5"""
BURDEN = 0.1
"""logarithm of multiply-accumulates that a convolution without a shortcut must bring"""


def proxy(name: str, architecture: Architecture, alpha: float = ddsar.ALPHA,
          weights: Sequence[float] = ddsar.WEIGHTS) -> float:
    """The score called ``name``; alpha matters to those in :data:`WITH_ALPHA` only, stage weights
    to these and stage-macs.

    Raises OptionError for an unknown name, which lists the known ones, and for weights that are not five shares;
    ModelError for a network that the score is not defined for.
    """
    ddsar.check_weights(weights)
    return get_proxy(name)(architecture, alpha, weights)


def get_proxy(name: str) -> Proxy:
    """The function behind a name. Raises OptionError that lists the known ones."""
    if name not in PROXIES:
        raise OptionError(f"unknown score {name!r} (known: {', '.join(PROXIES)})")
    return PROXIES[name]


def levels(architecture: Architecture, alpha: float = ddsar.ALPHA, weights: Sequence[float] = ddsar.WEIGHTS) -> float:
    """The detector score of c3, c4 and c5. Raises OptionError where the weights give them nothing."""
    weights = (0, 0, *weights[2:])
    ddsar.check_weights(weights)
    return ddsar.detector_score(architecture, alpha, weights)


def outputs(architecture: Architecture, alpha: float = ddsar.ALPHA, weights: Sequence[float] = ddsar.WEIGHTS) -> float:
    """The detector score where c_l and h_l are those of what convolution l writes, as in the theorem behind DDSAR.

    A stem of stride 4 is c2 and reads 3 channels, for which the published form gives ln(3 / 3) = 0.
    """
    stages = _stages(architecture, ddsar.SIDE_PX, ddsar.SIDE_PX, _path)
    total = 0.0
    for stride, weight in zip(STRIDES, weights[1:], strict=True):
        convs = [ddsar.Conv(layer.out_channels, layer.width, layer.kernel) for layer in stages[stride] if layer.kernel]
        if stride > STRIDES[0]:
            convs = convs[:-len(output_widths(architecture.head))]  # no ReLU is behind these
        total += weight * (ddsar.expressivity(convs) + alpha * sum(conv.kernel for conv in convs))
    return total / sum(weights[1:])


def stage_macs(architecture: Architecture) -> tuple[int, ...]:
    """Multiply-accumulates at 640x480 of c2, with the stem, and of c3, c4 and c5, with neck and head on their level."""
    stages = _stages(architecture, *COUNTED_AT, lambda part: part.layers)
    stages[STRIDES[0]] += stages.pop(STRIDES[0] // 2, [])
    return tuple(sum(layer.macs for layer in stages[stride]) for stride in STRIDES)


def stage_macs_score(architecture: Architecture, weights: Sequence[float] = ddsar.WEIGHTS) -> float:
    """Sum over c2 to c5: w_i ln(MACs of stage i), weights renormalised. Of networks of equal MACs the one has most
    that shares them out like the weights."""
    terms = (weight * math.log(macs) for weight, macs in zip(weights[1:], stage_macs(architecture), strict=True))
    return sum(terms) / sum(weights[1:])


def depth(architecture: Architecture) -> int:
    """Convolutions that follow each other from the image to an output of stride 32; shortcuts do not count."""
    blocks, head = parts_of(architecture, *COUNTED_AT)[:-ENDS], architecture.head
    lateral, tower, output = 1, head.stack * (2 if head.depthwise else 1), 1
    return sum(1 for part in blocks for _ in _path(part)) + lateral + tower + output


def unbypassed(architecture: Architecture) -> int:
    """Convolutions from the image to an output of stride 32 around which no shortcut leads: gradients pass through all
    of them, which slows training down (He et al., CVPR 2016)."""
    blocks, head = parts_of(architecture, *COUNTED_AT)[:-ENDS], architecture.head
    count = sum((part.layers[0].kernel > 1) if any(layer.kind == "add" for layer in part.layers)
                else sum(1 for _ in _path(part)) for part in blocks)
    lateral, tower, output = 1, head.stack * (2 if head.depthwise else 1), 1
    return count + lateral + tower + output


def trainable(architecture: Architecture, weights: Sequence[float] = ddsar.WEIGHTS) -> float:
    """stage-macs minus :data:`BURDEN` times the convolutions that no shortcut bypasses: ten more of them must bring e
    times the multiply-accumulates. Not derived: found among short trainings, see benchmarks/evidence."""
    return stage_macs_score(architecture, weights) - BURDEN * unbypassed(architecture)


def entropy(architecture: Architecture) -> float:
    """MAE-DET's score: the entropy of Gaussian features behind random weights, weighted over the stages::

        S_s   = ln C_s + sum over the convolutions up to the end of stage s:  1/2 ln(c k^2)
        score = sum over s: rho_s S_s                      rho = (0, 0, 1, 1, 6) for stem, c2, c3, c4, c5

    C_s is the width of the stage, c the channels and k the kernel of what a convolution reads for one output (c = 1
    where it is depthwise). Shortcuts do not count.
    """
    total, depth, stride = 0.0, 0.0, 1
    stages: dict[int, float] = {}
    for part in parts_of(architecture, *COUNTED_AT)[:-ENDS]:
        depth += sum(0.5 * math.log(_fan_in(layer)) for layer in _path(part))
        stride *= part.stride
        stages[stride] = math.log(part.out_channels) + depth  # the last part at a stride ends the stage
    for stride, weight in ENTROPY_WEIGHTS.items():
        total += weight * stages[stride]
    return total


@lru_cache(maxsize=1 << 12)  # a second each
def zen(architecture: Architecture, seed: int = 0) -> float:
    """Zen-score: how much the last feature c5 of the backbone changes with its input, at weights drawn at random::

        score = ln mean over images( sum over c5 |f(x) - f(x + 0.01 e)| ) + sum over layers ln sqrt(mean variance)

    Images x, noise e and weights are standard normal. f has no shortcuts: its convolutions follow each other, each
    with the batch's own normalisation and ReLU; the second sum gives back what normalisation took away. Means over
    :data:`ZEN_REPEATS` drawings, on :data:`ZEN_BATCH` images of :data:`ZEN_SIDE` px. Needs torch.
    """
    import torch

    path = [layer for part in parts_of(architecture, ZEN_SIDE, ZEN_SIDE)[:-ENDS] for layer in _path(part)]
    generator = torch.Generator().manual_seed(seed)
    scores = []
    with torch.inference_mode(), _one_thread():
        for _ in range(ZEN_REPEATS):
            clean, noise = torch.randn(2, ZEN_BATCH, 3, ZEN_SIDE, ZEN_SIDE, generator=generator)
            maps, scale = [clean, clean + ZEN_GAMMA * noise], 0.0
            for layer in path:
                weight = torch.randn(layer.out_channels, _inputs(layer), layer.kernel, layer.kernel,
                                     generator=generator)
                maps = [torch.conv2d(x, weight, stride=layer.stride, padding=(layer.kernel - layer.stride + 1) // 2,
                                     groups=layer.in_channels // _inputs(layer)) for x in maps]
                scale += 0.5 * math.log(float(maps[0].var((0, 2, 3), unbiased=False).mean()))
                maps = [torch.relu(torch.nn.functional.batch_norm(x, None, None, training=True)) for x in maps]
            scores.append(math.log(float((maps[0] - maps[1]).abs().sum((1, 2, 3)).mean())) + scale)
    return sum(scores) / len(scores)


def noise(architecture: Architecture, seed: int = 0) -> float:
    """A number from 0 to 1 that depends on the network, not on its name, and on ``seed``."""
    content = dataclasses.replace(architecture, name=str(seed)).dumps()
    return int(hashlib.sha256(content.encode()).hexdigest()[:12], 16) / 16**12


@contextmanager
def _one_thread() -> Iterator[None]:
    """Maps this small are computed no faster by several threads, and much slower where other programs run too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stages(architecture: Architecture, width: int, height: int, pick: Callable[[Part], Iterable[Layer]]
            ) -> dict[int, list[Layer]]:
    """What ``pick`` gives of each block, by the stride of its stage's output; neck and head, whole, by their levels."""
    *blocks, neck, head = parts_of(architecture, width, height)
    stages: dict[int, list[Layer]] = {}
    stride = 1
    for part in blocks:
        stride *= part.stride
        stages.setdefault(stride, []).extend(pick(part))
    for layer in (*neck.layers, *head.layers):
        stages[width // layer.width].append(layer)
    return stages


def _path(part: Part) -> Iterator[Layer]:
    """The convolutions of ``part`` that follow each other: without shortcuts.

    A shortcut is a 1x1 convolution that the next layer does not read. Where a super-block starts with residuals, the
    first has one in any case, also between equal widths.
    """
    residual = any(layer.kind == "add" for layer in part.layers)
    for index, (layer, after) in enumerate(zip_longest(part.layers, part.layers[1:])):
        if layer.kernel == 0:
            continue
        unread = after is not None and after.kernel > 0 and after.in_channels != layer.out_channels
        if layer.kind == "conv" and layer.kernel == 1 and (unread or (residual and index == 0)):
            continue
        yield layer


def _inputs(layer: Layer) -> int:
    """Channels that one output is made of."""
    return 1 if layer.kind == "depthwise" else layer.in_channels


def _fan_in(layer: Layer) -> int:
    return _inputs(layer) * layer.kernel**2


PROXIES: dict[str, Proxy] = {
    "ddsar": lambda architecture, alpha, weights: ddsar.score(architecture.backbone, alpha, weights).ddsar,
    "mended": lambda architecture, alpha, weights: ddsar.score(architecture.backbone, alpha, weights).mended,
    "detector": ddsar.detector_score,
    "levels": levels,
    "outputs": outputs,
    "stage-macs": lambda architecture, alpha, weights: stage_macs_score(architecture, weights),
    "plain": lambda architecture, alpha, weights: -unbypassed(architecture),
    "trainable": lambda architecture, alpha, weights: trainable(architecture, weights),
    "params": lambda architecture, alpha, weights: params_of(architecture),
    "macs": lambda architecture, alpha, weights: macs_of(architecture, *COUNTED_AT),
    "depth": lambda architecture, alpha, weights: depth(architecture),
    "entropy": lambda architecture, alpha, weights: entropy(architecture),
    "zen": lambda architecture, alpha, weights: zen(architecture),
    "random": lambda architecture, alpha, weights: noise(architecture),
}
WITH_ALPHA = ("ddsar", "mended", "detector", "levels", "outputs")
"""scores that weigh kernel sizes with alpha"""
