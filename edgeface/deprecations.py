"""Old names that still work, and what they are called now. Nothing else in the project says that something is old."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from typing import Any

MODULES = {
    "benchmarks.first_networks": "benchmarks.research.first_networks",
    "benchmarks.ranks": "benchmarks.research.ranks",
    "benchmarks.search_comparison": "benchmarks.research.comparison",
    "benchmarks.search_evidence": "benchmarks.research.evidence",
    "benchmarks.search_family": "benchmarks.research.family",
    "benchmarks.short_training": "benchmarks.research.short_training",
}
"""old name of a module of the checkout -> its new one"""
NAMES = {"HeadLayout": "edgeface.decode"}
"""what ``edgeface`` itself once held -> the module that it is taken from"""


def tell(old: str, new: str) -> None:
    """One line on stderr: a command that was called ``old`` is called ``new``."""
    print(f"note: {old} is now: {new}", file=sys.stderr)


def old_name(name: str) -> Any:
    """What ``edgeface.<name>`` was. Raises AttributeError for what it never was."""
    if name not in NAMES:
        raise AttributeError(f"module 'edgeface' has no attribute {name!r}")
    warnings.warn(f"edgeface.{name} is now {NAMES[name]}.{name}", DeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module(NAMES[name]), name)


class OldModules:
    """A finder of ``sys.meta_path``: ``python -m <old name>`` runs the new module, and an import gets it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """The file of the new module under its old name."""
        if name not in MODULES:
            return None
        tell(f"python -m {name}", f"python -m {MODULES[name]}")
        new = importlib.util.find_spec(MODULES[name])
        assert new is not None and new.origin is not None, "moved within the checkout"
        return importlib.util.spec_from_file_location(name, new.origin)
