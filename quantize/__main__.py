"""``python -m quantize``, the old name of ``edgeface quantize``."""

from __future__ import annotations

import sys

from edgeface.cli import main
from edgeface.deprecations import tell

if __name__ == "__main__":
    tell("python -m quantize", "edgeface quantize")
    sys.exit(main(["quantize", *sys.argv[1:]]))
