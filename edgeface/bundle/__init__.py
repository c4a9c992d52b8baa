"""Bundle: a folder with the model file(s) of one export and ``manifest.json``, which says all that
a user must know.

    edgeface-n-tflite-fp32-640x480/
      manifest.json
      README.txt         the manifest's contract, in words
      edgeface-n.tflite

A manifest holds no dates and no paths, so the same inputs give the same bytes. What it claims is
checked before a file is used: the fields have their types, every file is a plain name inside the
folder, and every file has its SHA-256.
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
