"""Exports a torch network to a Bundle for one runtime, which must match torch to be written.

    Source (network + weights) --deployable()--> <target>.py --> model file --> parity.py --> Bundle
    in dist/

``edgeface export --help`` is the command; in Python: ``export_model(load_source("edgeface-n"),
ExportRequest("tflite"))``. One small module per target (:mod:`export.onnx`, :mod:`export.tflite`)
supplies a function ``(network, request) -> Converted``, named in the capability table of
:mod:`edgeface.backends`; the rest is common to all targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from export.pipeline import Exported, export_model
from export.request import Converted, ExportRequest

if TYPE_CHECKING:
    from export.source import Source, load_source

__all__ = ["Converted", "ExportRequest", "Exported", "Source", "export_model", "load_source"]


def __getattr__(name: str) -> Any:
    """Import Source and load_source on use: they need torch, and ``--help`` must work without."""
    if name in ("Source", "load_source"):
        from export import source

        return getattr(source, name)
    raise AttributeError(f"module 'export' has no attribute {name!r}")
