"""edgeface: tiny face detectors, from photo to faces on any runtime.

    from edgeface import Detector

    faces = Detector.open("edgeface-n").detect("photo.jpg")

Names are imported on first use, so ``import edgeface`` costs nothing and needs no runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeface.version import __version__

if TYPE_CHECKING:
    from edgeface.bundle import Bundle
    from edgeface.decode import HeadLayout
    from edgeface.detections import Detections
    from edgeface.detector import Detector

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
