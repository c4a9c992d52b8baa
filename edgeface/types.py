"""Types that several rooms share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""what networks compute with"""
Doubles = NDArray[np.float64]
"""what statistics are computed with"""
