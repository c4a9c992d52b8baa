"""Bundle: a folder with the model file(s) of one export and ``manifest.json``, which says all that
a user must know.

    edgeface-n-tflite-fp32-640x480/
      manifest.json
      edgeface-n.tflite

A manifest holds no dates and no paths, so the same inputs give the same bytes. What it claims is
checked before a file is used: the fields have their types, every file is a plain name inside the
folder, and every file has its SHA-256.
"""

from edgeface.bundle.folder import (
    MAX_MANIFEST_BYTES,
    Bundle,
    refuse_other_weights,
    write_bundle,
)
from edgeface.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    MAX_SIDE_PX,
    PLAIN_NAME,
    RANDOM_WEIGHTS,
    InputSpec,
    Manifest,
    WeightsInfo,
)

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "MAX_MANIFEST_BYTES",
    "MAX_SIDE_PX",
    "PLAIN_NAME",
    "RANDOM_WEIGHTS",
    "Bundle",
    "InputSpec",
    "Manifest",
    "WeightsInfo",
    "refuse_other_weights",
    "write_bundle",
]
