"""Imports weights that other projects have published: renames their tensors and writes a file for
``--model``.

The module of each family of published networks maps our tensor names to its authors'::

    def original_key(our_key: str) -> str

``our_key`` is a key of our network's state dict; the result is the key of the authors' checkpoint
that holds the same tensor in the same shape. ``num_batches_tracked`` is never passed, as nothing
computes with it. :data:`FAMILIES` gives the module for each kind of backbone. The keys of a
checkpoint in several files (``x.base.pth``, ``x.loc.pth``) get the name of their part as prefix
(``base.``, ``loc.``).

A PyTorch checkpoint is a pickle, a program that can do anything. It is therefore read only by
torch's restricted reader, which creates only tensors, numbers, strings, lists and dicts.
"""

from __future__ import annotations

import importlib
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface import zoo
from edgeface.architecture import ARCHITECTURES, Architecture, get_architecture
from edgeface.errors import ModelError
from edgeface.files import refuse_input, require_regular
from edgeface.schema import short

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = {"extd": "edgeface.models.extd", "eresfd": "edgeface.models.eresfd"}
"""kind of a backbone -> module with its ``original_key``"""
WRAPPERS = ("state_dict", "weight", "model")
"""keys under which training programs store the state dict in a checkpoint"""


@dataclass(frozen=True)
class Imported:
    """The result of :func:`import_weights`."""

    model: str
    weights: str
    """path of the file written"""
    tensors: int
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


SMALL_BYTES = 64 << 20
MOST_PACKED = 4
"""largest compression ratio accepted: trained weights hardly compress"""


def import_weights(files: Sequence[Path], model: str, out: Path) -> Imported:
    """Write the weights in ``files``, one checkpoint of ``model`` with its authors' names, to
    ``out`` with our names.

    Accepts safetensors files and PyTorch checkpoints, new (zip) and old; the state dict may lie
    under one of WRAPPERS and have ``module.`` in front of its keys. Raises ModelError for files of
    other formats, with anything but tensors, or of another network, and OptionError if ``out`` is
    one of ``files``.
    """
    refuse_input(out, files, "--out")
    architecture = get_architecture(model)
    wanted = _original_shapes(architecture)
    given = _read_all(files)
    shapes = {key: tuple(value.shape) for key, value in given.items()}
    if shapes != wanted:
        where = f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else str(files[0])
        raise ModelError(f"{where}: {_mismatch(shapes, wanted, architecture)}")
    rename = _original_key(architecture)
    weights = {key: given[rename(key)].float().numpy() for key in zoo.tensor_shapes(architecture)}
    network = zoo.network_with(architecture, weights)
    zoo.save_weights(network, out)
    return Imported(model, str(out), len(weights), sum(p.numel() for p in network.parameters()))


def _original_key(architecture: Architecture) -> Callable[[str], str]:
    kind = architecture.backbone.kind
    if kind not in FAMILIES:
        raise ModelError(
            f"{architecture.name}: its authors' names of the weights are not known (accepted: the "
            f"networks of {' and '.join(FAMILIES)}, see edgeface models)"
        )
    rename: Callable[[str], str] = importlib.import_module(FAMILIES[kind]).original_key
    return rename


def _original_shapes(architecture: Architecture) -> zoo.Shapes:
    """Authors' key -> shape."""
    rename = _original_key(architecture)
    return {rename(key): shape for key, shape in zoo.tensor_shapes(architecture).items()}


def _read_all(files: Sequence[Path]) -> dict[str, Tensor]:
    """Tensors of one checkpoint in one or several files."""
    found: dict[str, Tensor] = {}
    for file in files:
        part = Path(file.stem).suffix[1:] if len(files) > 1 else ""
        if len(files) > 1 and not part:
            raise ModelError(
                f"{file}: of a checkpoint in several files each has its part's name before the"
                " suffix, such as x.base.pth: give those files, or one alone"
            )
        for key, value in _read(file).items():
            key = f"{part}.{key}" if part else key
            if key in found:
                raise ModelError(
                    f"{file}: {short(key)} is in another of the files, too: give each part once"
                )
            found[key] = value
    return found


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of one file; its content decides the format, not its name."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    if head[8:] == b"{":
        import torch

        found: Any = {
            key: torch.from_numpy(value) for key, value in zoo.load_weights_file(path).items()
        }
    elif head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        if head[:1] == b"P":
            _check_unpacked(path)
        found = _read_checkpoint(path)
    else:
        raise ModelError(
            f"{path} is neither a safetensors file nor a PyTorch checkpoint: give one of these"
        )
    return _tensors(found, path)


def _check_unpacked(path: Path) -> None:
    """Raise ModelError for a zip that is far larger unpacked: torch itself does not compress."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return  # torch reports it
    if unpacked > max(SMALL_BYTES, MOST_PACKED * path.stat().st_size):
        raise ModelError(
            f"{path} has {path.stat().st_size:,} bytes and would unpack to {unpacked:,}: refused,"
            " nothing of it was unpacked; get the file again, or save it anew with torch.save"
        )


def _read_checkpoint(path: Path) -> Any:
    """Content of a checkpoint, read by torch's restricted reader. Raises ModelError."""
    import torch

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch warns of a TorchScript archive before it refuses it
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile stream makes its reader raise anything
        raise ModelError(f"{path} {_refusal(str(error))}") from None


def _refusal(message: str) -> str:
    """Why torch refused a file, from its error message."""
    if "TorchScript" in message:
        return (
            "is a TorchScript archive, which holds a program: refused; save the network's"
            " state_dict() with torch.save and give that"
        )
    asked = re.search(r"GLOBAL (\S+)", message)
    if asked or "Can only" in message:
        what = f" (it asks for {short(asked[1])})" if asked else ""
        return (
            f"holds objects other than tensors{what}, which can run any program: refused, nothing"
            " in it was run; save the network's state_dict() alone and give that"
        )
    return "is not a whole PyTorch checkpoint: get the file again"


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in the content of a file: unwrapped, without COUNTER entries. Raises
    ModelError."""
    import torch

    if isinstance(found, dict):
        found = next((found[key] for key in WRAPPERS if isinstance(found.get(key), dict)), found)
    if not isinstance(found, dict):
        raise ModelError(
            f"{path} holds a {type(found).__name__}, not tensors by name: give a state dict"
        )
    prefix = "module." if found and all(str(key).startswith("module.") for key in found) else ""
    tensors: dict[str, Tensor] = {}
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ModelError(
                f"{path} holds objects other than tensors ({short(key)} is a"
                f" {type(value).__name__}): give the state dict alone"
            )
        if key.endswith(zoo.COUNTER):
            continue
        plain = value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
        if not plain or not value.is_floating_point():
            raise ModelError(
                f"{path}: {short(key)} is {value.dtype} on {value.device}, accepted: plain tensors"
                " of floating point numbers"
            )
        tensors[key.removeprefix(prefix)] = value.detach()
    return tensors


def _mismatch(given: zoo.Shapes, wanted: zoo.Shapes, architecture: Architecture) -> str:
    """Error text: the other network that fits; else the tensors that are missing, unexpected or of
    another shape."""
    fitting = [
        name
        for name, other in ARCHITECTURES.items()
        if other.backbone.kind in FAMILIES and _original_shapes(other) == given
    ]
    if fitting:
        return f"not weights of {architecture.name}: run again with --model {' or '.join(fitting)}"
    wrong = []
    for text, keys in (
        ("missing", wanted.keys() - given.keys()),
        ("unexpected", given.keys() - wanted.keys()),
    ):
        if keys:
            wrong.append(
                f"{text}: {short(min(keys))}{f' and {len(keys) - 1} more' if len(keys) > 1 else ''}"
            )
    reshaped = sorted(key for key in given.keys() & wanted.keys() if given[key] != wanted[key])
    wrong += [
        f"{short(key)} is {list(given[key])}, expected {list(wanted[key])}" for key in reshaped[:1]
    ]
    return (
        f"not weights of {architecture.name}, nor of another network known here; {'; '.join(wrong)}"
    )
