"""Old names that still work, and their new names. No other place in the project lists them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {
    "benchmarks.first_networks": "benchmarks.research.first_networks",
    "benchmarks.ranks": "benchmarks.research.ranks",
    "benchmarks.search_comparison": "benchmarks.research.comparison",
    "benchmarks.search_evidence": "benchmarks.research.evidence",
    "benchmarks.search_family": "benchmarks.research.family",
    "benchmarks.research.short_training": "edgeface.search.trials.training",
    "benchmarks.short_training": "edgeface.search.trials.training",
    "edgeface.annotations": "edgeface.images.annotations",
    "edgeface.compare": "edgeface.probes.compare",
    "edgeface.containers": "edgeface.images.headers",
    "edgeface.first_calls": "edgeface.models.first_calls",
    "edgeface.hush": "edgeface.quiet",
    "edgeface.importing": "edgeface.zoo.importing",
    "edgeface.latency.jobs": "edgeface.latency.protocol",
    "edgeface.models.architecture": "edgeface.architecture",
    "edgeface.models.genotype": "edgeface.architecture.genotype",
    "edgeface.models.registry": "edgeface.architecture.registry",
    "edgeface.models.searched": "edgeface.architecture.searched",
    "edgeface.models.structure": "edgeface.architecture.structure",
    "edgeface.ncnn_model": "edgeface.formats.ncnn",
    "edgeface.records": "edgeface.schema",
    "edgeface.saving": "edgeface.images.marked",
    "edgeface.search.autofem_options": "edgeface.search.autofem.options",
    "edgeface.search.clock": "edgeface.search.latency",
    "edgeface.search.cover": "edgeface.predict.first_networks",
    "edgeface.search.ddsar": "edgeface.search.scores.ddsar",
    "edgeface.search.evolve": "edgeface.search.published",
    "edgeface.search.genetics": "edgeface.search.evolution",
    "edgeface.search.latency_features": "edgeface.predict.features",
    "edgeface.search.latency_model": "edgeface.predict.model",
    "edgeface.search.latency_table": "edgeface.predict.table",
    "edgeface.search.layers": "edgeface.architecture.layers",
    "edgeface.search.proxies": "edgeface.search.scores",
    "edgeface.search.record": "edgeface.search.options",
    "edgeface.search.study_report": "edgeface.search.report",
    "edgeface.search.supernet": "edgeface.search.autofem.supernet",
}
"""old name of a module -> its new one"""
NAMES = {"HeadLayout": "edgeface.decode"}
"""name that ``edgeface`` itself once had -> the module that has it now"""


def tell(old: str, new: str) -> None:
    """Tell the user, in one line on stderr, that the command ``old`` is now called ``new``."""
    print(f"note: {old} is now: {new}", file=sys.stderr)


def old_name(name: str) -> Any:
    """The object that was ``edgeface.<name>``. Raises AttributeError if there never was one."""
    if name not in NAMES:
        raise AttributeError(f"module 'edgeface' has no attribute {name!r}")
    warnings.warn(f"edgeface.{name} is now {NAMES[name]}.{name}", DeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module(NAMES[name]), name)


class OldModules:
    """Finder at the end of ``sys.meta_path`` that resolves old module names.

    An import of an old name gives the new module, and ``python -m`` runs the new module."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Spec that loads the new module under its old name; None for any other name."""
        if name not in MODULES:
            return None
        new = importlib.util.find_spec(MODULES[name])
        assert new is not None and new.origin is not None, "moved within the project"
        if name.startswith("benchmarks."):  # a command, run by its file
            tell(f"python -m {name}", f"python -m {MODULES[name]}")
            return importlib.util.spec_from_file_location(name, new.origin)
        warnings.warn(f"{name} is now {MODULES[name]}", DeprecationWarning, stacklevel=2)
        return ModuleSpec(name, _Alias(new), origin=new.origin)


class _Alias(Loader):
    """Loads an old name as the new module object itself, so that its classes exist only once."""

    def __init__(self, new: ModuleSpec) -> None:
        self.new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(self.new.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.new  # the import machinery has put the old name's there
