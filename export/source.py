"""Loads the network to export, with its weights.

Weights come from a file if given (``--model FILE``, or ``--model NAME --weights FILE``), else from
the zoo, else (or with ``--seed N``) they are random. A file with random weights is right except for
its detections: good for latency, size and operator coverage. The manifest and the terminal say so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeface import zoo
from edgeface.architecture import Architecture
from edgeface.bundle import RANDOM_WEIGHTS, WeightsInfo
from edgeface.errors import OptionError
from edgeface.models import build
from edgeface.models.blocks import ConvNorm, Residual
from edgeface.models.detector import FaceNet
from edgeface.models.extd import InvertedResidual
from edgeface.models.head import LevelScale

NOT_STATED = "not stated"
PIXEL_SPREAD = 32.0
"""roughly half the standard deviation of the pixels of photos, so that heads vary by about 1"""


@dataclass(frozen=True)
class Source:
    """A network in evaluation mode and the origin of its weights."""

    network: FaceNet
    weights: WeightsInfo
    seed: int | None = None
    """seed of random weights; None for others"""
    own: bool = False
    """True if the weights come from a user's file"""

    @property
    def name(self) -> str:
        """Name of the network; with a user's own weights followed by digits of their SHA-256."""
        name = self.network.architecture.name
        if not self.own:
            return name
        return zoo.own_name(name, self.weights.sha256)


def load_source(model: str, weights: Path | str | None = None, seed: int | None = None) -> Source:
    """Build the network that :func:`edgeface.zoo.resolve` finds and load its weights. Raises
    ModelError, OptionError."""
    choice = zoo.resolve(model, weights)
    file = choice.weights
    if file is not None and seed is not None:
        raise OptionError(
            "--weights and --seed exclude each other: give the file, or ask for random weights"
        )
    if file is not None:
        network = zoo.load_network(model, weights)
        return Source(
            network,
            WeightsInfo(hashlib.sha256(file.read_bytes()).hexdigest(), NOT_STATED, NOT_STATED),
            own=True,
        )
    if seed is None and model in zoo.names():
        return _from_zoo(model)
    return random_source(choice.architecture, seed or 0)


def random_source(model: str | Architecture, seed: int) -> Source:
    """``model`` with random weights that exercise every layer.

    Training starts from branches and outputs that are nearly zero, for which a parity check would
    prove little. Here every normalisation has its own random values, and outputs vary from cell to
    cell. Raises OptionError for a seed out of range.
    """
    if not 0 <= seed < 1 << 63:
        raise OptionError(f"--seed {seed}: a seed is a whole number from 0 to 2^63 - 1")
    network = build(model, seed).eval()
    random = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=random) * (high - low) + low

    ends = _residual_ends(network)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                bound = (3.0 / module.weight[0].numel()) ** 0.5  # variance 1 / fan-in
                module.weight.copy_(uniform(module.weight, -bound, bound))
            elif isinstance(module, LevelScale):
                module.value.copy_(uniform(module.value, 0.7, 1.3))
            elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
                quiet_branch = (
                    module in ends or not module.weight.any()
                )  # a large factor would grow with depth
                module.weight.copy_(
                    uniform(module.weight, *(0.1, 0.3) if quiet_branch else (0.8, 1.6))
                )
                module.bias.copy_(uniform(module.bias, -0.2, 0.2))
                if isinstance(module, nn.BatchNorm2d):
                    assert module.running_mean is not None and module.running_var is not None
                    module.running_mean.copy_(uniform(module.running_mean, -0.2, 0.2))
                    module.running_var.copy_(uniform(module.running_var, 0.5, 1.5))
        if network.architecture.input.std == 1:  # trained weights scale pixels down, too
            next(m for m in network.modules() if isinstance(m, nn.Conv2d)).weight /= PIXEL_SPREAD
    info = WeightsInfo(
        sha256=state_sha256(network),
        licence=f"{RANDOM_WEIGHTS}, seed {seed}, not trained",
        data_terms="none: not trained",
    )
    return Source(network, info, seed)


def _residual_ends(network: FaceNet) -> set[nn.Module]:
    """Normalisations in front of a residual addition, of the block types whose training does not
    start from zeros there."""
    branches = [m.branch for m in network.modules() if isinstance(m, Residual)]
    branches += [
        m.layers for m in network.modules() if isinstance(m, InvertedResidual) and m.residual
    ]
    convs = [[layer for layer in branch if isinstance(layer, ConvNorm)] for branch in branches]
    return {layers[-1].norm for layers in convs if layers and layers[-1].norm is not None}


def state_sha256(network: FaceNet) -> str:
    """SHA-256 over names, shapes and values of all weights, equal for equal weights in any file."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _from_zoo(name: str) -> Source:
    entry = zoo.get_entry(name)
    return Source(
        zoo.load_network(name), WeightsInfo(entry.sha256, entry.licence, entry.data_terms)
    )
