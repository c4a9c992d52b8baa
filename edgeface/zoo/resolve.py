"""Finds the network and weights that a user names: a network, a network and a weights file, or a
weights file alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.architecture import ARCHITECTURES, Architecture
from edgeface.errors import ModelError, OptionError
from edgeface.files import read_regular
from edgeface.zoo.index import get_entry, names
from edgeface.zoo.named import is_architecture_file, is_weights_file, named_architecture
from edgeface.zoo.weights import load_weights, load_weights_file, network_with

if TYPE_CHECKING:
    from edgeface.models.detector import FaceNet


@dataclass(frozen=True)
class Choice:
    """The network and weights that a user names."""

    architecture: Architecture
    weights: Path | None
    """safetensors file; None: the shipped weights, if there are any"""

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the weights file, the user's or the shipped one; None if there is none."""
        if self.weights is not None:
            return hashlib.sha256(read_regular(self.weights)).hexdigest()
        name = self.architecture.name
        return get_entry(name).sha256 if name in names() else None

    def check_weights(self) -> None:
        """Raise ModelError for a network that has no weights yet."""
        name = self.architecture.name
        if self.weights is None and name in ARCHITECTURES:
            get_entry(name)
        elif self.weights is None:
            raise ModelError(
                f"{name} has no weights yet: train it with edgeface train, then give --model the"
                " weights.safetensors of that run"
            )


def is_network(model: Path | str) -> bool:
    """True if ``model`` names a network or a file of one, not the folder of a Bundle."""
    return (
        is_weights_file(model)
        or is_architecture_file(model)
        or (isinstance(model, str) and model in ARCHITECTURES)
    )


def resolve(model: Path | str, weights: Path | str | None = None) -> Choice:
    """The network and weights that ``--model`` and ``--weights`` mean, in every command.

    ``model`` is a network, as :func:`named_architecture` finds it, with or without a ``weights``
    file, or a weights file alone. Raises ModelError for an unknown name and for a file that does
    not state its network; OptionError for two weights files; MissingExtraError.
    """
    alone = is_weights_file(model)
    if alone and weights is not None:
        raise OptionError(
            f"--model {model} is a file of weights: leave --weights out, or name the network with "
            "--model"
        )
    file = model if alone else weights
    architecture = named_architecture(model, f"give --model NAME --weights {model}")
    return Choice(architecture, None if file is None else Path(file))


def load_network(model: Path | str, weights: Path | str | None = None) -> FaceNet:
    """The network that :func:`resolve` finds, with its weights, in evaluation mode.

    Needs torch. Raises the errors of resolve, and ModelError for weights that are missing, damaged
    or do not fit.
    """
    choice = resolve(model, weights)
    choice.check_weights()
    if choice.weights is None:
        name = choice.architecture.name
        return network_with(get_entry(name).architecture, load_weights(name))
    tensors = load_weights_file(choice.weights)
    try:
        return network_with(choice.architecture, tensors)
    except ModelError as error:
        advice = "get the file again" if weights is None else "name its network with --model"
        raise ModelError(f"{choice.weights}: {error}: {advice}") from None
