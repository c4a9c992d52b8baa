"""The zoo: weights that ship with the package, each with a model card; and weights files of users."""

from __future__ import annotations

from edgeface.zoo.weights import (
    ARCHITECTURE_KEY,
    COUNTER,
    FOLDER,
    MAX_BLOCKS,
    Choice,
    Shapes,
    Weights,
    ZooEntry,
    get_entry,
    is_network,
    load_network,
    load_weights,
    load_weights_file,
    names,
    network_with,
    read_architecture,
    read_index,
    resolve,
    tensor_shapes,
)

__all__ = [
    "ARCHITECTURE_KEY", "COUNTER", "FOLDER", "MAX_BLOCKS", "Choice", "Shapes", "Weights", "ZooEntry", "get_entry",
    "is_network", "load_network", "load_weights", "load_weights_file", "names", "network_with", "read_architecture",
    "read_index", "resolve", "tensor_shapes",
]
