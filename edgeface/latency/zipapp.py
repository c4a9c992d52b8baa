"""Packs the modules that a device needs into one zip that Python runs, without installation.

    python3 edgeface-<hash>.pyz    # the agent: request on stdin, results on stdout

The zip holds the project's own sources, so no code is duplicated. Equal sources give equal bytes,
so the file is sent to a device only once.
"""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
ROOMS = ("architecture", "bundle", "decode", "formats", "images", "latency", "runners", "zoo")
"""subfolders that measuring and detecting with an exported file need; the top level is always in"""
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
    """Bytes of the zip: sorted names, one fixed time, no compression (zlib's output varies)."""
    sources = [
        path
        for room in ("", *ROOMS)
        for kind in ("py", "json")
        for path in (PACKAGE / room).glob(f"*.{kind}")
    ]
    files = {
        f"edgeface/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes() for path in sources
    }
    files["__main__.py"] = MAIN
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
