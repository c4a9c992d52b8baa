"""Weights files: ``.safetensors`` with the names of a network's state dict; their metadata state
the network.

Shipped weights are used only if their SHA-256 matches the index. Reading needs safetensors and
NumPy; building a network from them needs torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeface.architecture import Architecture
from edgeface.errors import MissingExtraError, ModelError, OptionError
from edgeface.files import atomic_write, read_regular, require_regular
from edgeface.schema import short
from edgeface.zoo.index import FOLDER, get_entry

if TYPE_CHECKING:
    from edgeface.models.detector import FaceNet

SUFFIX = ".safetensors"
ARCHITECTURE_KEY = "architecture"
"""metadata key of the network in a weights file, as :meth:`Architecture.dumps` writes it"""
DIGITS = 8
"""number of digits of a SHA-256 in a name"""
LONGEST_NAME = 64
"""largest number of characters of a name; see :data:`edgeface.bundle.PLAIN_NAME`"""
COUNTER = "num_batches_tracked"
"""state dict entry that counts training steps: no part of a network, and dropped by converters"""
Weights = dict[str, NDArray[np.generic]]
Shapes = dict[str, tuple[int, ...]]


def load_weights(name: str) -> Weights:
    """Name in the network's state dict -> tensor of a shipped model. Raises ModelError,
    MissingExtraError."""
    entry = get_entry(name)
    return load_weights_file(FOLDER / entry.weights, entry.sha256)


def load_weights_file(path: Path | str, sha256: str | None = None) -> Weights:
    """Tensors of a safetensors file, checked against ``sha256`` if given. Raises ModelError,
    MissingExtraError."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError:
        raise MissingExtraError("safetensors", "zoo", "reading weights") from None
    try:
        content = read_regular(path)
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {error.strerror or error}") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(
            f"{path} is truncated or altered: its SHA-256 is not the one in the zoo's index:"
            " install edgeface again"
        )
    try:
        return dict(load(content))
    except KeyError as error:  # a dtype that NumPy does not have
        raise ModelError(
            f"{path} has tensors of {error}, which are not read: save them as float32"
        ) from None
    except (SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file: {' '.join(str(error).split())}"
        ) from None


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a weights file. Raises ModelError, MissingExtraError."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingExtraError("safetensors", "zoo", "reading weights") from None
    try:
        require_regular(path)
        with safe_open(str(path), framework="numpy") as file:
            return file.metadata() or {}
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a whole safetensors file: {' '.join(str(error).split())}"
        ) from None


def own_name(network: str, sha256: str) -> str:
    """Model name for a user's own weights: ``network`` and digits of their SHA-256.

    Files and folders are named after the model, and those of other weights must not be replaced.
    """
    return f"{network[: LONGEST_NAME - DIGITS - 1]}-{sha256[:DIGITS]}"


def check_weights_out(path: Path) -> None:
    """Raise OptionError for a new weights file whose suffix ``--model`` would not recognise."""
    if path.suffix != SUFFIX:
        raise OptionError(
            f"--out {path}: a file of weights is told by its name: call it"
            f" {path.with_suffix(SUFFIX) if path.name else f'NAME{SUFFIX}'}"
        )


def save_weights(model: FaceNet, path: Path) -> None:
    """Write the network's weights, contiguous float32, as safetensors whose metadata state the
    network.

    Needs torch. Raises OutputError.
    """
    from safetensors.torch import save

    tensors = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith(COUNTER)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, {ARCHITECTURE_KEY: model.architecture.dumps()}))


def tensor_shapes(architecture: Architecture) -> Shapes:
    """Name -> shape of every tensor of a network, without allocating the tensors.

    Needs torch. Raises ModelError.
    """
    import torch

    from edgeface.models import build

    try:
        with torch.device("meta"):
            state = build(architecture).state_dict()
    except (
        RuntimeError,
        TypeError,
        OverflowError,
    ) as error:  # torch raises any of these for too large sizes
        raise ModelError(f"{architecture.name} cannot be built: {short(str(error))}") from None
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(COUNTER)}


def network_with(architecture: Architecture, weights: Weights) -> FaceNet:
    """Build ``architecture`` in evaluation mode with ``weights``. Raises ModelError unless names
    and shapes match exactly and all values are finite."""
    import torch

    from edgeface.models import build

    wanted = tensor_shapes(architecture)
    given = {k: tuple(v.shape) for k, v in weights.items() if not k.endswith(COUNTER)}
    for key in sorted(wanted.keys() | given.keys()):
        if wanted.get(key) != given.get(key):
            raise ModelError(
                f"the weights do not fit {architecture.name}: {key} is {_shape(given.get(key))}, "
                f"expected {_shape(wanted.get(key))}"
            )
        if not np.isfinite(np.asarray(weights[key], np.float32)).all():
            raise ModelError(
                f"the weights of {architecture.name} hold values that are not finite: {key}"
            )
    network = build(architecture)
    network.load_state_dict(
        {k: torch.from_numpy(np.array(weights[k], np.float32)) for k in given}, strict=False
    )
    return network.eval()


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))
