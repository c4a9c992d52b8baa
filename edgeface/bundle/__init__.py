"""Bundle: a folder with the model file(s) of one export and ``manifest.json``, which states all
that a user must know.

    edgeface-n-tflite-fp32-640x480/
      manifest.json
      README.txt         the manifest's contract, in words
      edgeface-n.tflite

A manifest holds no dates and no paths, so the same inputs give the same bytes. Before a file is
used, the manifest is checked: the types of its fields, that every file name is a plain name inside
the folder, and the SHA-256 of every file.
"""

from edgeface.bundle.contract import PIXEL_IN_INT8, Contract, Port, Ports, contract_of
from edgeface.bundle.folder import (
    MAX_MANIFEST_BYTES,
    Bundle,
    refuse_other_weights,
    write_bundle,
)
from edgeface.bundle.manifest import (
    APIS,
    FORMAT_VERSION,
    MANIFEST,
    MAX_SIDE_PX,
    PLAIN_NAME,
    RANDOM_WEIGHTS,
    README,
    InputSpec,
    Manifest,
    WeightsInfo,
)

__all__ = [
    "APIS",
    "FORMAT_VERSION",
    "MANIFEST",
    "MAX_MANIFEST_BYTES",
    "MAX_SIDE_PX",
    "PIXEL_IN_INT8",
    "PLAIN_NAME",
    "RANDOM_WEIGHTS",
    "README",
    "Bundle",
    "Contract",
    "InputSpec",
    "Manifest",
    "Port",
    "Ports",
    "WeightsInfo",
    "contract_of",
    "refuse_other_weights",
    "write_bundle",
]
