"""The zoo: weights that ship with the package, each with a model card; and weights files of users.

``index.json`` lists them; ``<name>.safetensors`` holds the numbers, ``<name>.md`` is the card. Weights are used only
if their SHA-256 is the one in the index. A file of a user's says in its metadata which network it is of, or the user
says it. Reading needs safetensors and NumPy; only :func:`load_network` needs torch.
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

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.registry import ARCHITECTURES, get_architecture
from edgeface.bundle import PLAIN_NAME
from edgeface.decode import head_layout
from edgeface.errors import MissingExtraError, ModelError, OptionError
from edgeface.schema import from_fields, read_packaged, short

if TYPE_CHECKING:
    from edgeface.models.detector import FaceNet

FOLDER = Path(__file__).parent
SUFFIX = ".safetensors"
ARCHITECTURE_KEY = "architecture"
"""in the metadata of a weights file: its network, as :meth:`Architecture.dumps` writes it"""
MAX_ARCHITECTURE_CHARS = 1 << 16
"""of the text; ours have 3898 at most"""
MAX_BLOCKS = 1000
"""in one part of a network that a file describes; ours have 108 at most"""
COUNTER = "num_batches_tracked"
"""of training steps: it says nothing about a network, and converters drop it"""
Weights = dict[str, NDArray[np.generic]]
Shapes = dict[str, tuple[int, ...]]


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
    entries: dict[str, object] = read_packaged(path, dict)
    return {name: from_fields(ZooEntry, entry, f"{path}: {name}") for name, entry in entries.items()}


@cache
def _shipped() -> dict[str, ZooEntry]:
    return read_index()


def names() -> tuple[str, ...]:
    """Names of the models that ship with weights."""
    return tuple(_shipped())


def get_entry(name: str) -> ZooEntry:
    """The entry of ``name``. Raises ModelError for an unknown name, and for one whose architecture alone is known."""
    shipped = _shipped()
    if name in shipped:
        return shipped[name]
    get_architecture(name)
    raise ModelError(f"{name!r} ships without weights (with weights: {', '.join(shipped) or 'none yet'}): train it "
                     "with edgeface train, or name one that has them")


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
    """What ``--model`` and ``--weights`` mean, in every command: a name, a name and a file, or a file alone.

    Raises ModelError for an unknown name, and for a file that does not say, in its metadata, which network it is of;
    OptionError for two files; MissingExtraError.
    """
    if not _is_weights_file(model):
        return Choice(get_architecture(str(model)), None if weights is None else Path(weights))
    if weights is not None:
        raise OptionError(f"--model {model} is a file of weights: leave --weights out, or name the network with "
                          "--model")
    return Choice(read_architecture(Path(model)), Path(model))


def _is_weights_file(model: Path | str) -> bool:
    return Path(model).suffix == SUFFIX


def read_architecture(path: Path) -> Architecture:
    """The network that a weights file is of, by its metadata. Raises ModelError, MissingExtraError.

    A stranger may have written it: everything is checked before anything is built.
    """
    text = _metadata(path).get(ARCHITECTURE_KEY)
    try:
        if text is None:
            raise ModelError(f"{path} does not say which network it is of")
        where = f"{path}: {ARCHITECTURE_KEY}"
        architecture = from_fields(Architecture, _parsed(text, where), where)
        _check(architecture, where)
    except ModelError as error:
        raise ModelError(f"{error}: give --model NAME --weights {path}") from None
    return architecture


def _metadata(path: Path) -> dict[str, str]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingExtraError("safetensors", "zoo", "reading weights") from None
    try:
        with safe_open(str(path), framework="numpy") as file:
            return file.metadata() or {}
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ModelError(f"{path} is not a whole safetensors file: {' '.join(str(error).split())}") from None


def _parsed(text: str, where: str) -> Any:
    if len(text) > MAX_ARCHITECTURE_CHARS:
        raise ModelError(f"{where} has {len(text)} characters, accepted: {MAX_ARCHITECTURE_CHARS}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not JSON ({type(error).__name__})") from None


def _check(architecture: Architecture, where: str) -> None:
    """What the types of the fields do not say. Files are named after a network, and building one takes time."""
    from edgeface.architecture.structure import parse  # which devices do not get

    name, backbone, neck = architecture.name, architecture.backbone, architecture.neck
    if not PLAIN_NAME.fullmatch(name):
        raise ModelError(f"{where}: {short(name)} is not a plain name")
    if ARCHITECTURES.get(name, architecture) != architecture:
        raise ModelError(f"{where} is called {name} and is not the network of that name")
    layers = sum(block.layers for block in parse(backbone.structure)) if backbone.structure else 0
    nodes = sum(map(len, neck.genotype.context)) if neck.genotype else 0
    counts = (*backbone.depths, layers, nodes * neck.repeats, neck.repeats, architecture.head.stack)
    if not all(0 <= count <= MAX_BLOCKS for count in counts):
        raise ModelError(f"{where}: a part has {short(max(counts, key=abs))} blocks, accepted: 0 to {MAX_BLOCKS}")
    try:
        head_layout(architecture)
    except ValueError as error:
        raise ModelError(f"{where}.head: {error}") from None


def load_network(model: Path | str, weights: Path | str | None = None) -> FaceNet:
    """The network that :func:`resolve` finds, with its weights, in evaluation mode.

    Needs torch. Raises what resolve raises, and ModelError for weights that are not there, damaged or do not fit.
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


def tensor_shapes(architecture: Architecture) -> Shapes:
    """Name -> shape of every tensor of a network, which takes no memory for it. Raises ModelError.

    Needs torch.
    """
    import torch

    from edgeface.models import build

    try:
        with torch.device("meta"):
            state = build(architecture).state_dict()
    except (RuntimeError, TypeError, OverflowError) as error:  # torch has all of these for sizes that are too large
        raise ModelError(f"{architecture.name} cannot be built: {short(str(error))}") from None
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(COUNTER)}


def network_with(architecture: Architecture, weights: Weights) -> FaceNet:
    """Build ``architecture`` and fill it with ``weights``, all of them; ModelError if they do not fit."""
    import torch

    from edgeface.models import build

    wanted = tensor_shapes(architecture)
    given = {k: tuple(v.shape) for k, v in weights.items() if not k.endswith(COUNTER)}
    for key in sorted(wanted.keys() | given.keys()):
        if wanted.get(key) != given.get(key):
            raise ModelError(f"the weights do not fit {architecture.name}: {key} is {_shape(given.get(key))}, "
                             f"expected {_shape(wanted.get(key))}")
        if not np.isfinite(np.asarray(weights[key], np.float32)).all():
            raise ModelError(f"the weights of {architecture.name} hold values that are not finite: {key}")
    network = build(architecture)
    network.load_state_dict({k: torch.from_numpy(np.array(weights[k], np.float32)) for k in given}, strict=False)
    return network.eval()


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))
