"""Probes: one per runtime, each imported only when a Bundle asks for it."""

from __future__ import annotations

from edgeface.bundle import Bundle
from edgeface.probes.base import Probe, TensorInfo, Tensors

__all__ = ["Probe", "TensorInfo", "Tensors", "open_probe"]


def open_probe(bundle: Bundle) -> Probe:
    """Open the probe of ``bundle``. Raises what ``open_runner`` raises."""
    from edgeface.backends import get_backend

    bundle.require_heads()
    probe: Probe = get_backend(bundle.manifest.target).load_probe()(bundle)
    return probe
