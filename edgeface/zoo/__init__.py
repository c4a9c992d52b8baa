"""The zoo: weights that ship with the package, each with a model card.

``index.json`` lists them; ``<name>.safetensors`` holds the numbers, ``<name>.md`` is the card. Weights are used only
if their SHA-256 is the one in the index. Reading needs safetensors and NumPy; only :func:`load_network` needs torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import MissingExtraError, ModelError
from edgeface.models.architecture import Architecture
from edgeface.records import from_fields

if TYPE_CHECKING:
    from edgeface.models.detector import FaceNet

FOLDER = Path(__file__).parent
Weights = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class ZooEntry:
    """One row of ``index.json``."""

    weights: str
    """file name of the weights"""
    sha256: str
    """of that file"""
    card: str
    """file name of the model card"""
    licence: str
    """of the weights"""
    data_terms: str
    """terms of the images they were trained on"""
    architecture: Architecture
    accuracy: dict[str, Any] | None = None
    """AP, with all that was held fixed while measuring it"""


def read_index(folder: Path = FOLDER) -> dict[str, ZooEntry]:
    """Name -> entry of every model with weights. Raises ModelError for an index that is damaged."""
    path = folder / "index.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: install edgeface again ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} is not a JSON object: install edgeface again")
    return {name: from_fields(ZooEntry, entry, f"{path}: {name}") for name, entry in data.items()}


@cache
def _shipped() -> dict[str, ZooEntry]:
    return read_index()


def names() -> tuple[str, ...]:
    """Names of the models that ship with weights."""
    return tuple(_shipped())


def get_entry(name: str) -> ZooEntry:
    """The entry of ``name``. Raises ModelError that lists what ships, or says that only the architecture is known."""
    from edgeface.models.registry import ARCHITECTURES

    shipped = _shipped()
    if name in shipped:
        return shipped[name]
    listed = ", ".join(shipped) or "none yet"
    if name in ARCHITECTURES:
        raise ModelError(f"{name!r} ships without weights (with weights: {listed}): train it with edgeface train, or "
                         "name one that has them")
    raise ModelError(f"unknown model {name!r} (with weights: {listed}; architectures: {', '.join(ARCHITECTURES)})")


def load_weights(name: str) -> Weights:
    """Tensors of a shipped model, by their names in the network's state dict. Raises ModelError."""
    entry = get_entry(name)
    return load_weights_file(FOLDER / entry.weights, entry.sha256)


def load_weights_file(path: Path | str, sha256: str | None = None) -> Weights:
    """Tensors of a safetensors file, checked against ``sha256`` if given. Raises ModelError, MissingExtraError."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError:
        raise MissingExtraError("safetensors", "zoo", "reading weights") from None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {error.strerror or error}") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"{path} is truncated or altered: its SHA-256 is not the one in the zoo's index: install "
                         "edgeface again")
    try:
        return dict(load(content))
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {' '.join(str(error).split())}") from None


def load_network(name: str, weights: Path | str | None = None) -> FaceNet:
    """The network of a shipped model, or of ``name`` with the ``weights`` of a safetensors file, in evaluation mode.

    Needs torch. Raises ModelError for an unknown name, and for weights that are damaged or do not fit.
    """
    if weights is None:
        return network_with(get_entry(name).architecture, load_weights(name))
    from edgeface.models.registry import get_architecture

    architecture, tensors = get_architecture(name), load_weights_file(weights)
    try:
        return network_with(architecture, tensors)
    except ModelError as error:
        raise ModelError(f"{weights}: {error}: name its network with --model") from None


def network_with(architecture: Architecture, weights: Weights) -> FaceNet:
    """Build ``architecture`` and fill it with ``weights``, all of them; ModelError if they do not fit."""
    import torch

    from edgeface.models import build

    network = build(architecture)
    # A counter of training steps says nothing about the network, and converters drop it.
    wanted = {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: tuple(v.shape) for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    for key in sorted(wanted.keys() | given.keys()):
        if wanted.get(key) != given.get(key):
            raise ModelError(f"the weights do not fit {architecture.name}: {key} is {_shape(given.get(key))}, "
                             f"expected {_shape(wanted.get(key))}")
        if not np.isfinite(np.asarray(weights[key], np.float32)).all():
            raise ModelError(f"the weights of {architecture.name} hold values that are not finite: {key}")
    network.load_state_dict({k: torch.from_numpy(np.array(weights[k], np.float32)) for k in given}, strict=False)
    return network.eval()


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))
