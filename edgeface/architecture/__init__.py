"""What a network is, as plain data: no torch, so that a device can read it."""

from __future__ import annotations

from edgeface.architecture.architecture import Architecture, Backbone, Head, InputNorm, Neck
from edgeface.architecture.registry import ARCHITECTURES, get_architecture

__all__ = ["ARCHITECTURES", "Architecture", "Backbone", "Head", "InputNorm", "Neck", "get_architecture"]
