"""Which network, and which weights, a user names: a name of ours, a name and a file, or a file
alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.architecture import (
    ARCHITECTURES,
    Architecture,
    AutoFEMSpec,
    PlainNetSpec,
    get_architecture,
)
from edgeface.architecture.structure import parse
from edgeface.bundle import PLAIN_NAME
from edgeface.decode import head_layout
from edgeface.errors import ModelError, OptionError
from edgeface.schema import from_fields, short
from edgeface.zoo.index import get_entry
from edgeface.zoo.weights import (
    ARCHITECTURE_KEY,
    SUFFIX,
    load_weights,
    load_weights_file,
    network_with,
    read_metadata,
)

if TYPE_CHECKING:
    from edgeface.models.detector import FaceNet

MAX_ARCHITECTURE_CHARS = 1 << 16
"""of the text; ours have 3898 at most"""
MAX_BLOCKS = 1000
"""in one part of a network that a file describes; ours have 108 at most"""


@dataclass(frozen=True)
class Choice:
    """The network that a user names."""

    architecture: Architecture
    weights: Path | None
    """safetensors file; None: those that ship, if there are any"""


def is_network(model: Path | str) -> bool:
    """Is ``model`` a known name or a weights file, and not the folder of a Bundle?"""
    return _is_weights_file(model) or (isinstance(model, str) and model in ARCHITECTURES)


def resolve(model: Path | str, weights: Path | str | None = None) -> Choice:
    """What ``--model`` and ``--weights`` mean, in every command: a name, a name and a file, or a
    file alone.

    Raises ModelError for an unknown name, and for a file that does not say, in its metadata, which
    network it is of; OptionError for two files; MissingExtraError.
    """
    if not _is_weights_file(model):
        return Choice(get_architecture(str(model)), None if weights is None else Path(weights))
    if weights is not None:
        raise OptionError(
            f"--model {model} is a file of weights: leave --weights out, or name the network with "
            "--model"
        )
    return Choice(read_architecture(Path(model)), Path(model))


def _is_weights_file(model: Path | str) -> bool:
    return Path(model).suffix == SUFFIX


def read_architecture(path: Path) -> Architecture:
    """The network that a weights file is of, by its metadata. Raises ModelError, MissingExtraError.

    A stranger may have written it: everything is checked before anything is built.
    """
    text = read_metadata(path).get(ARCHITECTURE_KEY)
    try:
        if text is None:
            raise ModelError(f"{path} does not say which network it is of")
        where = f"{path}: {ARCHITECTURE_KEY}"
        architecture = from_fields(Architecture, _parsed(text, where), where)
        _check(architecture, where)
    except ModelError as error:
        raise ModelError(f"{error}: give --model NAME --weights {path}") from None
    return architecture


def _parsed(text: str, where: str) -> Any:
    if len(text) > MAX_ARCHITECTURE_CHARS:
        raise ModelError(f"{where} has {len(text)} characters, accepted: {MAX_ARCHITECTURE_CHARS}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not JSON ({type(error).__name__})") from None


def _check(architecture: Architecture, where: str) -> None:
    """What the types of the fields do not say. Files are named after a network, and building one
    takes time."""
    name, backbone, neck = architecture.name, architecture.backbone, architecture.neck
    if not PLAIN_NAME.fullmatch(name):
        raise ModelError(f"{where}: {short(name)} is not a plain name")
    if ARCHITECTURES.get(name, architecture) != architecture:
        raise ModelError(f"{where} is called {name} and is not the network of that name")
    counts = [*getattr(backbone, "depths", ()), architecture.head.stack]
    if isinstance(backbone, PlainNetSpec):
        counts.append(sum(block.layers for block in parse(backbone.structure)))
    if isinstance(neck, AutoFEMSpec):
        nodes = sum(map(len, neck.genotype.context)) if neck.genotype else 0
        counts += [nodes * neck.repeats, neck.repeats]
    if not all(0 <= count <= MAX_BLOCKS for count in counts):
        raise ModelError(
            f"{where}: a part has {short(max(counts, key=abs))} blocks, accepted: 0 to {MAX_BLOCKS}"
        )
    try:
        head_layout(architecture)
    except ValueError as error:
        raise ModelError(f"{where}.head: {error}") from None


def load_network(model: Path | str, weights: Path | str | None = None) -> FaceNet:
    """The network that :func:`resolve` finds, with its weights, in evaluation mode.

    Needs torch. Raises what resolve raises, and ModelError for weights that are not there, damaged
    or do not fit.
    """
    choice = resolve(model, weights)
    if choice.weights is None:
        name = choice.architecture.name
        return network_with(get_entry(name).architecture, load_weights(name))
    tensors = load_weights_file(choice.weights)
    try:
        return network_with(choice.architecture, tensors)
    except ModelError as error:
        advice = "get the file again" if weights is None else "name its network with --model"
        raise ModelError(f"{choice.weights}: {error}: {advice}") from None
