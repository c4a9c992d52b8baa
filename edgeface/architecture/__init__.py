"""Networks described as plain data, without torch, so that a device can read them."""

from __future__ import annotations

from edgeface.architecture.architecture import Architecture, InputNorm
from edgeface.architecture.registry import ARCHITECTURES, get_architecture
from edgeface.architecture.specs import (
    ASFDSpec,
    AutoFEMSpec,
    Backbone,
    ConvNetSpec,
    EResNetSpec,
    EXTDSpec,
    Head,
    MobileNetSpec,
    Neck,
    PlainHeadSpec,
    PlainNetSpec,
    PyramidSpec,
    ResNetSpec,
    S3FDHeadSpec,
    SCRFDHeadSpec,
)

__all__ = [
    "ARCHITECTURES",
    "ASFDSpec",
    "Architecture",
    "AutoFEMSpec",
    "Backbone",
    "ConvNetSpec",
    "EResNetSpec",
    "EXTDSpec",
    "Head",
    "InputNorm",
    "MobileNetSpec",
    "Neck",
    "PlainHeadSpec",
    "PlainNetSpec",
    "PyramidSpec",
    "ResNetSpec",
    "S3FDHeadSpec",
    "SCRFDHeadSpec",
    "get_architecture",
]
