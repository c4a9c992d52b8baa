"""What a device gets instead of an installation: the light modules of this very package in one zip that Python runs.

    python3 edgeface-<hash>.pyz          # the agent: a request on standard input, results on standard output

Nothing in it is written twice: the zip holds the project's own sources. Equal sources give equal bytes, so a device
that has the file needs it only once.
"""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
MODULES = (
    "__init__", "backends", "bundle", "decode", "detections", "detector", "errors", "files", "quiet", "schema",
    "version",
    *(f"architecture/{name}" for name in ("__init__", "architecture", "genotype", "registry", "searched")),
    "formats/__init__", "formats/ncnn",
    *(f"images/{name}" for name in ("__init__", "headers", "reading")),
    *(f"latency/{name}" for name in ("__init__", "agent", "cores", "environment", "examine", "measurement", "photo",
                                     "protocol", "session", "statistics", "worker", "worker_process")),
    *(f"runners/{name}" for name in ("__init__", "base", "files", "ncnn", "onnxruntime", "openvino", "tflite")),
    "zoo/__init__", "zoo/weights",
)
"""all that measuring and detecting with an exported file imports, and no more"""
DATA = ("architecture/searched.json",)
"""what these modules read"""
MAIN = b"""\
import sys

if sys.version_info < (3, 10):
    sys.exit("edgeface needs Python 3.10 or newer")

from edgeface.latency.agent import main

sys.exit(main())
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""the earliest time a zip can hold"""


@cache
def pack() -> bytes:
    """The zip: sorted names, one fixed time, nothing compressed (what zlib makes differs from version to version)."""
    files = {f"edgeface/{name}.py": (PACKAGE / f"{name}.py").read_bytes() for name in MODULES}
    files |= {f"edgeface/{name}": (PACKAGE / name).read_bytes() for name in DATA}
    files["__main__.py"] = MAIN
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
