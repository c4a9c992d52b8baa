"""Which networks to measure first, so that the rest is predicted best.

Nothing is known of the device yet, but of layers there is: they cost about what they compute and
move, more or less where they are of one operator, kernel and stride, or of like size. Under such a
Gaussian process (that of :mod:`edgeface.predict.model`, with variances that are usual), how far off
predictions will be depends on which networks are measured and not on what is found, so that they
can be chosen beforehand: one by one, each time the one that lowers the variance of all candidates
together most (Cohn, Ghahramani and Jordan, JAIR 1996).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import parts_of
from edgeface.predict.features import VALUE_MACS, Basis
from edgeface.types import Doubles

USUAL = (0.25, 0.05, 0.05, 0.01, 0.003)
"""variances of the model's terms, of relative errors: near what was fitted on ncnn, OpenVINO and
TensorFlow Lite"""
MISFIT = 1e-3
"""variance of what no term explains: 3 %"""


def first_networks(
    architectures: Sequence[Architecture], size: tuple[int, int], target: str, count: int
) -> list[int]:
    """Indices of the ``count`` of ``architectures`` to measure; size: of the input, (width, height)
    in px."""
    features = _features(architectures, size, target)
    left = features @ features.T  # covariance of what is not known yet
    chosen: list[int] = []
    for _ in range(min(count, len(architectures))):
        gain = np.sum(left**2, axis=0) / (np.diag(left) + MISFIT)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        left -= np.outer(left[best], left[best]) / (left[best, best] + MISFIT)
    return chosen


def _features(architectures: Sequence[Architecture], size: tuple[int, int], target: str) -> Doubles:
    """[network, feature], scaled so that products of two rows are covariances of relative
    errors."""
    networks = [parts_of(a, *size) for a in architectures]
    parts = list(dict.fromkeys(part for network in networks for part in network))
    basis = Basis([layer for part in parts for layer in part.layers], target)
    rows = dict(zip(parts, basis.features(parts)[0], strict=True))
    work = {
        part: sum(x.macs + VALUE_MACS * (x.values_read + x.values_written) for x in part.layers)
        for part in parts
    }
    features = np.array([np.sum([rows[part] for part in network], axis=0) for network in networks])
    features[:, 0] = 1.0  # the network itself
    features /= np.array([[sum(work[part] for part in network)] for network in networks])
    features /= basis.scale(features)
    for term, variance in zip(basis.terms, USUAL, strict=True):
        features[:, term] *= np.sqrt(variance)
    return features
