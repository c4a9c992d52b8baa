"""Zero-cost scores of an Architecture: estimates of accuracy without training; higher is better.

==========  ======================================================================================
ddsar       DDSAR of the backbone as published (:mod:`edgeface.search.scores.ddsar`; Liu et al.,
            ICLR 2023)
corrected   the same with true widths and without the stem
detector    corrected, with neck and head counted
levels      detector without c2: only of the stages that find faces
outputs     detector computed from the outputs of convolutions instead of their inputs
            (:mod:`edgeface.search.scores.outputs`)
stage-macs  multiply-accumulates, stages weighted by their shares of faces
            (:func:`stage_macs_score`)
plain       convolutions that no shortcut bypasses, the fewer the better (:func:`unbypassed`)
trainable   stage-macs and plain together (:func:`trainable`): the best ranking as long as networks
            began from the published initialisation
params      weights and biases of the deployed network
macs        multiply-accumulates at 640x480
depth       successive convolutions from the image to the deepest output (:func:`depth`)
entropy     of the backbone, as MAE-DET computes it (:func:`entropy`; Sun et al., ICML 2022)
zen         Zen-score of the backbone (:func:`zen`; Lin et al., ICCV 2021); the only one that runs
            a network
random      a number drawn from the network's content (:func:`noise`): shows what a score that
            knows nothing is worth
==========  ======================================================================================

Parameters and multiply-accumulates are the baselines that few published scores have beaten.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

from edgeface.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.errors import OptionError
from edgeface.search.scores import ddsar
from edgeface.search.scores.entropy import entropy
from edgeface.search.scores.macs import depth, stage_macs_score, trainable, unbypassed
from edgeface.search.scores.outputs import outputs
from edgeface.search.scores.zen import zen

Proxy = Callable[[Architecture, float, Sequence[float]], float]
"""(architecture, alpha, stage weights) -> score"""
FORMER = {"mended": "corrected"}
"""name of a score in edgeface 0.1 and in its files -> its name now"""


def proxy(
    name: str,
    architecture: Architecture,
    alpha: float = ddsar.ALPHA,
    weights: Sequence[float] = ddsar.WEIGHTS,
) -> float:
    """The score called ``name``; only those in :data:`WITH_ALPHA` use alpha, and only these,
    stage-macs and trainable use stage weights.

    Raises OptionError for an unknown name, which lists the known ones, and for weights that are not
    five shares; ModelError for a network that the score is not defined for.
    """
    ddsar.check_weights(weights)
    return get_proxy(name)(architecture, alpha, weights)


def get_proxy(name: str) -> Proxy:
    """The function behind a name. Raises OptionError, which lists the known names."""
    name = FORMER.get(name, name)
    if name not in PROXIES:
        raise OptionError(f"unknown score {name!r} (known: {', '.join(PROXIES)})")
    return PROXIES[name]


def noise(architecture: Architecture, seed: int = 0) -> float:
    """A number from 0 to 1 that depends on the network, not on its name, and on ``seed``."""
    content = dataclasses.replace(architecture, name=str(seed)).dumps()
    return int(hashlib.sha256(content.encode()).hexdigest()[:12], 16) / 16**12


PROXIES: dict[str, Proxy] = {
    "ddsar": (
        lambda architecture, alpha, weights: (
            ddsar.score(architecture.backbone, alpha, weights).ddsar
        )
    ),
    "corrected": (
        lambda architecture, alpha, weights: (
            ddsar.score(architecture.backbone, alpha, weights).corrected
        )
    ),
    "detector": ddsar.detector_score,
    "levels": ddsar.levels,
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
WITH_ALPHA = ("ddsar", "corrected", "detector", "levels", "outputs")
"""scores that weigh kernel sizes with alpha"""
