"""Networks as torch modules; torch is imported only when one is built.

:mod:`edgeface.architecture` describes networks as plain data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeface.architecture import (
    ARCHITECTURES,
    Architecture,
    Backbone,
    Head,
    InputNorm,
    Neck,
    get_architecture,
)

if TYPE_CHECKING:
    from edgeface.models.detector import FaceNet

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Backbone",
    "Head",
    "InputNorm",
    "Neck",
    "build",
    "get_architecture",
]


def build(architecture: Architecture | str, seed: int = 0) -> FaceNet:
    """Build the network of an Architecture or zoo name with weights drawn from ``seed``.

    Needs torch.
    """
    from edgeface.models.detector import build_detector

    return build_detector(
        get_architecture(architecture) if isinstance(architecture, str) else architecture, seed
    )
