"""Types that several rooms share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""what networks compute with"""
Doubles = NDArray[np.float64]
"""what statistics are computed with"""


class Progress(Protocol):
    """Called often; drives a bar or a line in a log."""

    def __call__(self, what: str, done: int, total: int, note: str = "", /) -> None:
        """``done`` of ``total`` parts of ``what`` are done; note: what there is to say at the
        moment."""


def unseen(what: str, done: int, total: int, note: str = "") -> None:
    """Progress that nobody watches."""
