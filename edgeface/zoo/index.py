"""The shipped models: ``index.json`` lists those with weights, each with its model card."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgeface.architecture import Architecture, get_architecture
from edgeface.errors import ModelError
from edgeface.schema import from_fields, read_packaged

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ZooEntry:
    """One row of ``index.json``."""

    weights: str
    """file name of the weights"""
    sha256: str
    """SHA-256 of the weights file"""
    card: str
    """file name of the model card"""
    licence: str
    """licence of the weights"""
    data_terms: str
    """terms of the images that the weights were trained on"""
    architecture: Architecture
    accuracy: dict[str, Any] | None = None
    """AP, with the conditions of its measurement"""


def read_index(folder: Path = FOLDER) -> dict[str, ZooEntry]:
    """Name -> entry of every model with weights. Raises ModelError for a damaged index."""
    path = folder / "index.json"
    entries: dict[str, object] = read_packaged(path, dict)
    return {
        name: from_fields(ZooEntry, entry, f"{path}: {name}") for name, entry in entries.items()
    }


@cache
def _shipped() -> dict[str, ZooEntry]:
    return read_index()


def names() -> tuple[str, ...]:
    """Names of the models that ship with weights."""
    return tuple(_shipped())


def get_entry(name: str) -> ZooEntry:
    """The entry of ``name``. Raises ModelError for an unknown name and for a network that ships
    without weights."""
    shipped = _shipped()
    if name in shipped:
        return shipped[name]
    get_architecture(name)
    raise ModelError(
        f"{name!r} ships without weights (with weights: {', '.join(shipped) or 'none yet'}): train"
        " it with edgeface train, or name one that has them"
    )
