"""Interface of the adapters to APIs."""

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
    """A file for an API, not yet compared with its Bundle."""

    content: bytes
    outputs: tuple[str, ...]
    """names of its outputs"""
    colour: str = "RGB"
    """order of the input channels"""


class Adapter(Protocol):
    """Adapter to one API. It needs only the Bundle and its runtime."""

    target: str
    """target of the Bundles that it accepts"""
    dynamic: bool
    """True: it accepts only Bundles that take images of any size"""

    def refusal(self, layout: HeadLayout, precision: str) -> str:
        """Why the API cannot use such a network, and what to do; empty if it can."""

    def convert(self, bundle: Bundle) -> Adapted:
        """The file, with the same bytes for the same Bundle."""

    def expected(self, heads: Mapping[str, Floats], manifest: Manifest) -> Outputs:
        """The expected outputs of the file if those of the Bundle are ``heads`` [1, rows, columns,
        C]."""

    def run(self, content: bytes, batch: Batch) -> Outputs:
        """Outputs of the file for uint8 RGB [1, H, W, 3]."""

    def differences(self, found: Outputs, expected: Outputs) -> dict[str, float]:
        """Output -> largest absolute difference."""


def largest_differences(found: Outputs, expected: Outputs) -> dict[str, float]:
    """Output -> largest absolute difference; infinite if the shape differs."""
    return {
        name: (
            float(np.max(np.abs(found[name] - value)))
            if found[name].shape == value.shape
            else float("inf")
        )
        for name, value in expected.items()
    }
