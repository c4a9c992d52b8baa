"""Finds the network that a text names: ``edgeface-n``, a weights file, a file with one
Architecture, or one network of a search's front, ``runs/pi/front.json#3``.

The files may come from strangers: everything is checked before anything is built.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
from edgeface.errors import EdgefaceError, ModelError
from edgeface.files import read_regular
from edgeface.schema import from_fields, short
from edgeface.zoo.weights import ARCHITECTURE_KEY, SUFFIX, read_metadata

JSON = ".json"
MAX_TEXT_CHARS = {ARCHITECTURE_KEY: 1 << 16, JSON: 1 << 24}
"""largest number of characters of the Architecture in a weights file (ours have 3898 at most) and
of a file of Architectures (some KB for each)"""
MAX_BLOCKS = 1000
"""largest number of blocks in one part of a network from a file; ours have 108 at most"""


def is_weights_file(model: Path | str) -> bool:
    """True if ``model`` looks like a weights file."""
    return Path(model).suffix == SUFFIX


def is_architecture_file(model: Path | str) -> bool:
    """True if ``model`` looks like a file of Architectures, or one network of such a file."""
    return Path(_split(model)[0]).suffix == JSON


def named_architecture(
    model: Path | str, advice: str = "give a weights file that edgeface wrote"
) -> Architecture:
    """The network that ``model`` names, in every command.

    advice: what to do about a weights file that does not state its network. Raises ModelError for
    an unknown name and for a file without such a network; MissingExtraError for a weights file if
    safetensors is not installed.
    """
    if is_weights_file(model):
        return _of_weights(Path(model), advice)
    if is_architecture_file(model):
        return _of_file(model)
    return get_architecture(str(model))


def named_architectures(model: Path | str) -> list[Architecture]:
    """Like :func:`named_architecture`; for a file of Architectures without ``#rank``, all of its
    networks."""
    path, chosen = _split(model)
    if is_architecture_file(model) and not chosen:
        entries = _entries(Path(path))
        return [_checked(entry, f"{path}#{rank}") for rank, entry in enumerate(entries, 1)]
    return [named_architecture(model)]


def _split(model: Path | str) -> tuple[str, str]:
    """(file, rank or ""). The name of the file may contain a #."""
    text = str(model)
    path, mark, rank = text.rpartition("#")
    return (path, rank) if mark and Path(path).suffix == JSON else (text, "")


def _of_file(model: Path | str) -> Architecture:
    path, chosen = _split(model)
    entries = _entries(Path(path))
    if not chosen and len(entries) == 1:
        return _checked(entries[0], path)
    if not entries:
        raise ModelError(
            f"{path} holds no network: give its search a larger budget or more --rounds"
        )
    if chosen not in map(str, range(1, len(entries) + 1)):
        what = f"has no #{short(chosen)[1:-1]}" if chosen else "is of several networks"
        raise ModelError(
            f"{path} {what}: it holds {len(entries)}, name one, {path}#1 to #{len(entries)}"
        )
    return _checked(entries[int(chosen) - 1], f"{path}#{chosen}")


def _entries(path: Path) -> list[Any]:
    """Unchecked JSON of each Architecture in a file, in its order."""
    try:
        text = read_regular(path).decode("utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read {path} ({type(error).__name__}): give the front.json of a search, or a"
            " file with the JSON of one Architecture"
        ) from None
    data = _parsed(text, str(path), JSON)
    found = data if isinstance(data, list) else [data]
    return [e["architecture"] if isinstance(e, dict) and "architecture" in e else e for e in found]


def _of_weights(path: Path, advice: str) -> Architecture:
    """The network that the metadata of a weights file state."""
    text = read_metadata(path).get(ARCHITECTURE_KEY)
    try:
        if text is None:
            raise ModelError(f"{path} does not say which network it is of")
        where = f"{path}: {ARCHITECTURE_KEY}"
        data = _parsed(text, where, ARCHITECTURE_KEY)
        return _check(from_fields(Architecture, data, where), where)
    except ModelError as error:
        raise ModelError(f"{error}: {advice}") from None


def _checked(data: Any, where: str) -> Architecture:
    try:
        return _check(from_fields(Architecture, data, where), where)
    except EdgefaceError as error:
        raise ModelError(
            f"{error}; accepted: the front.json of a search of this version of edgeface, or the"
            " JSON of one Architecture"
        ) from None


def _parsed(text: str, where: str, kind: str) -> Any:
    if len(text) > MAX_TEXT_CHARS[kind]:
        raise ModelError(f"{where} has {len(text)} characters, accepted: {MAX_TEXT_CHARS[kind]}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not JSON ({type(error).__name__})") from None


def _check(architecture: Architecture, where: str) -> Architecture:
    """Check what the types of the fields leave open: the name, because files are named after it,
    the number of blocks, because building them takes time, and the head."""
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
    return architecture
