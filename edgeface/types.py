"""Types that several rooms share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""what networks compute with"""
Doubles = NDArray[np.float64]
"""what statistics are computed with"""
Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""


def no_progress(what: str, done: int, total: int) -> None:
    """For callers that nobody watches."""
