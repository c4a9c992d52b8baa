"""Choice of the networks to measure first, so that the rest is predicted best.

Nothing is known about the device yet, but something is known about layers: they cost about what
they compute and move, and layers of one operator, kernel and stride, or of similar size, deviate
from this alike. The Gaussian process of :mod:`edgeface.predict.model`, with usual variances,
expresses this. The variance of its predictions depends on which networks are measured, not on the
results, so networks can be chosen beforehand: one by one, each time the one that most lowers the
total variance of all candidates (Cohn, Ghahramani and Jordan, JAIR 1996).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import parts_of
from edgeface.predict.features import VALUE_MACS, Basis
from edgeface.types import Doubles

USUAL = (0.25, 0.05, 0.05, 0.01, 0.003)
"""variances of the model's terms, as relative errors: close to those fitted on ncnn, OpenVINO and
TensorFlow Lite"""
MISFIT = 1e-3
"""variance of relative errors that no term explains: a standard deviation of 3 %"""


def first_networks(
    architectures: Sequence[Architecture], size: tuple[int, int], target: str, count: int
) -> list[int]:
    """Indices of the ``count`` architectures to measure; size: input (width, height) in px."""
    features = _features(architectures, size, target)
    left = features @ features.T  # covariance given the networks chosen so far
    chosen: list[int] = []
    for _ in range(min(count, len(architectures))):
        gain = np.sum(left**2, axis=0) / (np.diag(left) + MISFIT)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        left -= np.outer(left[best], left[best]) / (left[best, best] + MISFIT)
    return chosen


def _features(architectures: Sequence[Architecture], size: tuple[int, int], target: str) -> Doubles:
    """[network, feature]; the product of two rows is the covariance of their relative errors."""
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
