"""edgeface: tiny face detectors, from photo to faces on any runtime.

    from edgeface import Detector

    faces = Detector.open("edgeface-n").detect("photo.jpg")

Names are imported on first use, so ``import edgeface`` costs nothing and needs no runtime.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeface.bundle import Bundle
    from edgeface.decode import HeadLayout
    from edgeface.detections import Detections
    from edgeface.detector import Detector

__version__ = "0.1.0"

__all__ = ["Bundle", "Detections", "Detector", "HeadLayout", "__version__"]

_HOMES = {
    "Bundle": "edgeface.bundle",
    "Detections": "edgeface.detections",
    "Detector": "edgeface.detector",
    "HeadLayout": "edgeface.decode",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeface' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


_MOVED = dict(line.split() for line in """\
annotations                 images.annotations
compare                     probes.compare
containers                  images.headers
first_calls                 models.first_calls
hush                        quiet
importing                   zoo.importing
latency.jobs                latency.protocol
models.architecture         architecture
models.genotype             architecture.genotype
models.registry             architecture.registry
models.searched             architecture.searched
models.structure            architecture.structure
ncnn_model                  formats.ncnn
records                     schema
saving                      images.marked
search.autofem_options      search.autofem.options
search.clock                search.latency
search.cover                predict.first_networks
search.ddsar                search.scores.ddsar
search.genetics             search.evolution
search.latency_features     predict.features
search.latency_model        predict.model
search.latency_table        predict.table
search.layers               architecture.layers
search.proxies              search.scores
search.record               search.options
search.study_report         search.report
search.supernet             search.autofem.supernet
""".splitlines())
"""module of edgeface 0.1 -> where it is now"""


class _Moved:
    """Asked before all finders: a name that is gone ends in one line."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        home = _MOVED.get(name.removeprefix("edgeface."))
        if home and name.startswith("edgeface."):
            raise ModuleNotFoundError(f"{name} is now edgeface.{home}: import that", name=name)


sys.meta_path.insert(0, _Moved)
