"""Entropy of a backbone, as MAE-DET computes it (Sun et al., ICML 2022)."""

from __future__ import annotations

import math

from edgeface.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, parts_of
from edgeface.search.scores.macs import ENDS

ENTROPY_WEIGHTS = {8: 1.0, 16: 1.0, 32: 6.0}
"""stride of a stage -> its weight, as published for detectors: (0, 0, 1, 1, 6) for stem and c2 to
c5"""


def entropy(architecture: Architecture) -> float:
    """MAE-DET's score: entropy of Gaussian features after random weights, weighted by stage::

        S_s   = ln C_s + sum over the convolutions up to the end of stage s:  1/2 ln(c k^2)
        score = sum over s: rho_s S_s        rho = (0, 0, 1, 1, 6) for stem, c2, c3, c4, c5

    C_s is the width of the stage, k the kernel of a convolution and c the number of channels that
    one of its outputs reads (1 if it is depthwise). Shortcuts do not count.
    """
    total, depth, stride = 0.0, 0.0, 1
    stages: dict[int, float] = {}
    for part in parts_of(architecture, *COUNTED_AT)[:-ENDS]:
        depth += sum(0.5 * math.log(layer.inputs * layer.kernel**2) for layer in part.path)
        stride *= part.stride
        stages[stride] = (
            math.log(part.out_channels) + depth
        )  # the last part at a stride ends the stage
    for stride, weight in ENTROPY_WEIGHTS.items():
        total += weight * stages[stride]
    return total
