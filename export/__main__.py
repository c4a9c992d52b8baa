"""``python -m export``, the old name of ``edgeface export``."""

from __future__ import annotations

import sys

from edgeface.cli import main
from edgeface.deprecations import tell

if __name__ == "__main__":
    tell("python -m export", "edgeface export")
    sys.exit(main(["export", *sys.argv[1:]]))
