"""What an adapter to an API supplies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Bundle, Manifest
from edgeface.decode import HeadLayout
from edgeface.types import Floats

Outputs = dict[str, NDArray[Any]]
Batch = NDArray[np.uint8]


@dataclass(frozen=True)
class Adapted:
    """A file for an API, before it is proven."""

    content: bytes
    outputs: tuple[str, ...]
    """names of its outputs"""
    colour: str = "RGB"
    """order of the channels that it takes"""


class Adapter(Protocol):
    """One API. All of it needs nothing but the Bundle and its runtime."""

    target: str
    """of the Bundles that it takes"""
    dynamic: bool
    """True: of those that take images of any size"""

    def refusal(self, layout: HeadLayout, precision: str) -> str:
        """Why the API cannot use such a network, and what to do; empty: it can."""

    def convert(self, bundle: Bundle) -> Adapted:
        """The file. Same Bundle, same bytes."""

    def expected(self, heads: Mapping[str, Floats], manifest: Manifest) -> Outputs:
        """What the file must give where the Bundle gives ``heads`` [1, rows, columns, C]."""

    def run(self, content: bytes, batch: Batch) -> Outputs:
        """What it gives for uint8 RGB [1, H, W, 3]."""

    def differences(self, found: Outputs, expected: Outputs) -> dict[str, float]:
        """Output -> the largest absolute difference."""


def largest_differences(found: Outputs, expected: Outputs) -> dict[str, float]:
    """Of arrays in the same order; infinite where a shape differs."""
    return {
        name: (
            float(np.max(np.abs(found[name] - value)))
            if found[name].shape == value.shape
            else float("inf")
        )
        for name, value in expected.items()
    }
