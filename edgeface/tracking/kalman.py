"""Predict boxes in the next frame with Kalman filters of constant velocity.

A box is its centre x, centre y, width and height in px. In the model of BoT-SORT (Aharon et al.,
arXiv 2206.14651, equations 1 to 6) neither the motion nor the noise mixes these four values. So the
8x8 covariance consists of four 2x2 blocks, each an independent filter. All boxes are filtered at
once::

    mean [N, 4, 2]            value in px and velocity in px per frame
    covariance [N, 4, 2, 2]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeface.types import Doubles

POSITION_SHARE = 1 / 20
"""standard deviation of a value as a share of a side: of the width for x, of the height for y"""
VELOCITY_SHARE = 1 / 160
_NEXT = np.array([[1.0, 1.0], [0.0, 1.0]])
"""maps value and velocity to those one frame later"""


@dataclass
class Motion:
    """Filters of N boxes."""

    mean: Doubles
    covariance: Doubles

    @classmethod
    def begin(cls, boxes: Doubles) -> Motion:
        """Start filters at rest for new ``boxes`` [N, 4]: x1, y1, x2, y2 in px."""
        values = _centred(boxes)
        mean = np.stack((values, np.zeros_like(values)), -1)
        shares = np.array((2 * POSITION_SHARE, 10 * VELOCITY_SHARE))
        return cls(mean, _diagonal(shares, values))

    def predict(self) -> None:
        """Advance all filters by one frame (equation 5 for the noise)."""
        noise = _diagonal(np.array((POSITION_SHARE, VELOCITY_SHARE)), self.mean[..., 0])
        self.mean = self.mean @ _NEXT.T
        self.covariance = _NEXT @ self.covariance @ _NEXT.T + noise

    def correct(self, which: np.ndarray, boxes: Doubles) -> None:
        """Update filters ``which`` [M] with their ``boxes`` [M, 4] (equation 6 for the noise)."""
        mean, covariance = self.mean[which], self.covariance[which]
        noise = (POSITION_SHARE * _sides(mean[..., 0])) ** 2
        gain = covariance[..., 0] / (covariance[..., 0, 0] + noise)[..., None]
        surprise = _centred(boxes) - mean[..., 0]
        self.mean[which] = mean + gain * surprise[..., None]
        self.covariance[which] = covariance - gain[..., None] * covariance[..., :1, :]

    def keep_size(self, which: np.ndarray) -> None:
        """Stop the growth of boxes that are not observed (filters ``which``); they still move.

        ByteTrack does the same (Zhang et al., arXiv 2110.06864).
        """
        self.mean[which, 2:, 1] = 0

    def boxes(self) -> Doubles:
        """Current boxes [N, 4]: x1, y1, x2, y2 in px."""
        centre, size = self.mean[:, :2, 0], np.maximum(self.mean[:, 2:, 0], 1)
        return np.concatenate((centre - size / 2, centre + size / 2), 1)

    def only(self, which: np.ndarray) -> Motion:
        """A Motion with only the filters ``which``."""
        return Motion(self.mean[which], self.covariance[which])

    def and_also(self, other: Motion) -> Motion:
        """A Motion with these filters, followed by those of ``other``."""
        return Motion(
            np.concatenate((self.mean, other.mean)),
            np.concatenate((self.covariance, other.covariance)),
        )


def _centred(boxes: Doubles) -> Doubles:
    """x1, y1, x2, y2 -> centre x, centre y, width, height, [N, 4] each."""
    return np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)


def _sides(values: Doubles) -> Doubles:
    """[N, 4]: width, height, width, height, at least 1 px; the noise is proportional to them."""
    return np.maximum(values[:, [2, 3, 2, 3]], 1)


def _diagonal(shares: Doubles, values: Doubles) -> Doubles:
    """Covariance [N, 4, 2, 2] from standard deviations that are ``shares`` [2] of the sides."""
    deviations = shares * _sides(values)[..., None]
    return np.asarray(deviations[..., None] ** 2 * np.eye(2))
