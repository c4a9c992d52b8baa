"""The zoo: weights that ship with the package, each with a model card and ready files for the
runtimes; and users' weights files."""

from __future__ import annotations

from edgeface.zoo.index import FOLDER, ZooEntry, get_entry, names, read_index
from edgeface.zoo.named import (
    MAX_BLOCKS,
    is_weights_file,
    named_architecture,
    named_architectures,
)
from edgeface.zoo.ready import (
    BUNDLES,
    ReadyFile,
    bundle_folder,
    cannot_run,
    find_ready,
    nearest_ready,
    read_ready,
    ready_file,
    ready_files,
)
from edgeface.zoo.resolve import Choice, is_network, load_network, resolve
from edgeface.zoo.weights import (
    ARCHITECTURE_KEY,
    COUNTER,
    Shapes,
    Weights,
    check_weights_out,
    load_weights,
    load_weights_file,
    network_with,
    own_name,
    save_weights,
    tensor_shapes,
)

__all__ = [
    "ARCHITECTURE_KEY",
    "BUNDLES",
    "COUNTER",
    "FOLDER",
    "MAX_BLOCKS",
    "Choice",
    "ReadyFile",
    "Shapes",
    "Weights",
    "ZooEntry",
    "bundle_folder",
    "cannot_run",
    "check_weights_out",
    "find_ready",
    "get_entry",
    "is_network",
    "is_weights_file",
    "load_network",
    "load_weights",
    "load_weights_file",
    "named_architecture",
    "named_architectures",
    "names",
    "nearest_ready",
    "network_with",
    "own_name",
    "read_index",
    "read_ready",
    "ready_file",
    "ready_files",
    "resolve",
    "save_weights",
    "tensor_shapes",
]
