"""The zoo: weights that ship with the package, each with a model card; and weights files of
users."""

from __future__ import annotations

from edgeface.zoo.index import FOLDER, ZooEntry, get_entry, names, read_index
from edgeface.zoo.named import MAX_BLOCKS, named_architecture, named_architectures
from edgeface.zoo.resolve import Choice, is_network, load_network, resolve
from edgeface.zoo.weights import (
    ARCHITECTURE_KEY,
    COUNTER,
    Shapes,
    Weights,
    load_weights,
    load_weights_file,
    network_with,
    own_name,
    save_weights,
    tensor_shapes,
)

__all__ = [
    "ARCHITECTURE_KEY",
    "COUNTER",
    "FOLDER",
    "MAX_BLOCKS",
    "Choice",
    "Shapes",
    "Weights",
    "ZooEntry",
    "get_entry",
    "is_network",
    "load_network",
    "load_weights",
    "load_weights_file",
    "named_architecture",
    "named_architectures",
    "names",
    "network_with",
    "own_name",
    "read_index",
    "resolve",
    "save_weights",
    "tensor_shapes",
]
