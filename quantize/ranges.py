"""The values that each tensor takes on the calibration photos, and the range INT8 should cover.

An :class:`Observer` sees a tensor photo by photo and keeps a histogram whose bins are a power of
two wide and begin at whole multiples of that width. When a value falls outside, the width doubles
and pairs of bins merge. Merging is exact, so the result does not depend on the order of values::

    |  0  |  3  |  5  |  1  |            width w
    |     3     |     6     |           |width 2w, room for twice as much

Exact zeros are counted outside the histogram: after a ReLU they are half of all values, and INT8
represents them without error.

Four ways to choose the range:

==============  ====================================================================================
``max``         everything seen: no value is clipped
``mse``         the clip, from a grid, with the least mean squared error of rounding to the 256
                levels, if values spread evenly in each bin
``percentile``  99.99 % of the values; if the range extends to both sides of zero, half of the rest
                is cut off at each end
``kl``          least information lost: Migacz, "8-bit inference with TensorRT", GTC 2017, on the
                histogram of magnitudes, 128 levels (256 where all values have one sign and the
                range is affine)
==============  ====================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import OptionError, QuantizeError
from edgeface.images import Image
from edgeface.types import Doubles, Progress, unseen

if TYPE_CHECKING:
    from edgeface.probes import Probe

SCALES = ("max", "mse", "percentile", "kl")
BINS = 2048
PERCENTILE = 99.99
SMALLEST_SPAN = 1e-6
"""least span of a range, so that a tensor that is zero on every photo still gets a scale that a
runtime can divide by"""
NEGLIGIBLE = np.float32(2.0**-100)
"""smaller magnitudes count as zero: float32 arithmetic on them is not exact"""

Counts = NDArray[np.int64]


class Observer:
    """Range and histogram of one tensor, over all arrays given to :meth:`update`."""

    def __init__(self) -> None:
        self.low = math.inf
        """minimum of all values seen, zeros included"""
        self.high = -math.inf
        """maximum of all values seen, zeros included"""
        self.count = 0
        """number of values seen"""
        self.zeros = 0
        """number of zeros among them, including magnitudes below NEGLIGIBLE; not in the
        histogram"""
        self._ends = (math.inf, -math.inf)  # of the values in the histogram
        self._exponent = -1000  # a bin is 2^exponent wide
        self._start = 0  # bin 0 covers [start, start + 1) * 2^exponent
        self._counts: Counts = np.zeros(BINS, np.int64)
        self._known: dict[tuple[str, bool], tuple[float, float]] = {}

    def update(self, values: NDArray[Any]) -> None:
        """Take in an array of any shape. Raises ValueError if it holds NaN or infinity."""
        flat = np.asarray(values, np.float32).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("holds NaN or infinity")
        self._known.clear()
        self.low, self.high, self.count = (
            min(self.low, low),
            max(self.high, high),
            self.count + flat.size,
        )
        flat = flat[np.abs(flat) >= NEGLIGIBLE]
        self.zeros = self.count - int(self._counts.sum()) - flat.size
        if flat.size:
            self._make_room(float(flat.min()), float(flat.max()))
            scaled = np.floor(flat * np.float32(2.0**-self._exponent)).astype(np.int64)
            self._counts += np.bincount(scaled - self._start, minlength=BINS)

    def histogram(self) -> tuple[Counts, Doubles]:
        """(counts [n], edges [n + 1]) of all values that are not zero, from the first to the last
        bin in use."""
        used = np.flatnonzero(self._counts)
        if not used.size:
            return np.zeros(0, np.int64), np.zeros(1)
        first, last = int(used[0]), int(used[-1])
        edges: Doubles = (
            np.arange(self._start + first, self._start + last + 2, dtype=np.float64)
            * 2.0**self._exponent
        )
        return self._counts[first : last + 1].copy(), edges

    def range(self, scale: str, symmetric: bool = False) -> tuple[float, float]:
        """(low, high) that INT8 should cover, with low <= 0 <= high and low < high.

        scale: one of ``max mse percentile kl``. symmetric: low = -high, for 127 levels on each side
        of zero; otherwise 256 levels of which one is zero. Raises OptionError for another scale.
        """
        if scale not in SCALES:
            raise OptionError(f"unknown scale {scale!r} (known: {', '.join(SCALES)})")
        if (scale, symmetric) not in self._known:
            self._known[scale, symmetric] = self._range(scale, symmetric)
        return self._known[scale, symmetric]

    def _range(self, scale: str, symmetric: bool) -> tuple[float, float]:
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if scale != "max" and self._counts.any():
            choose = {"mse": _least_squares, "percentile": _percentile, "kl": _least_divergence}[
                scale
            ]
            low, high = choose(self, symmetric, low, high)
        if symmetric:
            high = max(-low, high, SMALLEST_SPAN)
            return -high, high
        return low + 0.0, max(high, low + SMALLEST_SPAN)  # + 0.0: no negative zero

    def _make_room(self, low: float, high: float) -> None:
        """Widen bins and move the window until ``low`` and ``high`` have a bin each."""
        low, high = self._ends = min(self._ends[0], low), max(self._ends[1], high)
        # At most 2^22 bins from zero, so that bin numbers stay exact in float32.
        exponent = max(self._exponent, math.frexp(max(-low, high))[1] - 22)
        while math.floor(high * 2.0**-exponent) - math.floor(low * 2.0**-exponent) >= BINS:
            exponent += 1
        used = np.flatnonzero(self._counts)
        counts, start = np.zeros(BINS, np.int64), math.floor(low * 2.0**-exponent)
        positions = ((used + self._start) >> min(exponent - self._exponent, 62)) - start
        np.add.at(counts, positions, self._counts[used])
        self._exponent, self._start, self._counts = exponent, start, counts


def observe(
    probe: Probe,
    images: Sequence[Image],
    progress: Progress = unseen,
    names: Collection[str] | None = None,
) -> dict[str, Observer]:
    """Run ``images`` (uint8 RGB [H, W, 3]) through ``probe`` and observe its tensors.

    Returns name -> Observer for every tensor, or only for those in ``names``. Raises QuantizeError,
    naming the tensor, if the float model computes NaN or infinity.
    """
    observers = {t.name: Observer() for t in probe.tensors if names is None or t.name in names}
    for done, image in enumerate(images):
        progress("observing the photos", done, len(images))
        tensors = probe.run(image[None])
        for name, observer in observers.items():
            if not np.isfinite(tensors[name]).all():
                raise QuantizeError(
                    f"the float model computes NaN or infinity in tensor {name!r} on calibration"
                    f" photo {done + 1} of {len(images)}: check its weights"
                )
            observer.update(tensors[name])
    progress("observing the photos", len(images), len(images))
    return observers


def expected_error(
    counts: Counts, edges: Doubles, step: Doubles, bottom: Doubles, top: Doubles
) -> Doubles:
    """Sum of squared errors [k] when values, spread evenly in their bins, are rounded to k grids.

    Grid j has the levels ``bottom[j] ... top[j]`` (whole numbers) times ``step[j]``. With n the
    level nearest to x, the integral of the squared error from 0 to x is ``n step^3 / 12 + (x - n
    step)^3 / 3``, clipped values included.
    """
    step, bottom, top = step[:, None], bottom[:, None], top[:, None]
    level = np.clip(np.rint(edges / step), bottom, top)
    integral = level * step**3 / 12 + (edges - level * step) ** 3 / 3
    errors: Doubles = (np.diff(integral, axis=1) / np.diff(edges)) @ counts
    return errors


def _least_squares(seen: Observer, symmetric: bool, low: float, high: float) -> tuple[float, float]:
    """Search a grid of clips, first coarse, then fine around the best.

    Each end of the range that is not zero is an axis of the grid.
    """
    counts, edges = seen.histogram()
    if symmetric:
        high, low = max(-low, high), 0.0

    def search(lows: Doubles, highs: Doubles) -> tuple[float, float]:
        lower, upper = (
            a.ravel()
            for a in np.meshgrid(
                lows * low if low else np.zeros(1), highs * high if high else np.zeros(1)
            )
        )
        if symmetric:
            step, top = upper / 127, np.full(upper.shape, 127.0)
            bottom = -top
        else:
            step = (upper - lower) / 255
            bottom = np.rint(lower / step)
            top = bottom + 255
        best = int(np.argmin(expected_error(counts, edges, step, bottom, top)))
        # The range returned has zero on its grid, so that every tool derives the same levels.
        return float(bottom[best] * step[best]), float(top[best] * step[best])

    coarse = np.arange(16, 0, -1) / 16  # wider first: of equal errors the wider clip is taken
    rough = search(coarse, coarse)
    around = np.arange(8, -9, -1) / 128  # one coarse step either way
    fine = [
        np.unique(np.clip(near / end + around, 1 / 64, 1))[::-1] if end else coarse
        for near, end in zip(rough, (low, high), strict=True)
    ]
    return search(fine[0], fine[1])


def _percentile(seen: Observer, symmetric: bool, low: float, high: float) -> tuple[float, float]:
    """Cut off the values outside PERCENTILE; the bin in which it is reached is kept whole."""
    cut = seen.count * (1 - PERCENTILE / 100)
    if symmetric:
        counts, width = _magnitudes(seen)
        limit = _reached(counts, cut) * width
        return max(low, -limit), min(high, limit)
    counts, edges = seen.histogram()
    if low and high:
        cut /= 2
    below = edges[len(counts) - _reached(counts[::-1], cut)]
    above = edges[_reached(counts, cut)]
    return min(max(low, float(below)), 0.0), max(min(high, float(above)), 0.0)


def _reached(counts: Counts, cut: float) -> int:
    """Number of leading bins to keep so that at most ``cut`` values lie beyond them."""
    beyond = np.cumsum(counts[::-1])[::-1]  # in this bin and after it
    return int(np.count_nonzero(beyond > cut))


def _least_divergence(
    seen: Observer, symmetric: bool, low: float, high: float
) -> tuple[float, float]:
    counts, width = _magnitudes(seen)
    limit = _kl_bins(counts, 128 if symmetric or (low and high) else 256) * width
    return max(low, -limit), min(high, limit)


def _magnitudes(seen: Observer) -> tuple[Counts, float]:
    """(counts, width of a bin) of a histogram of |values|, from zero on, with at most BINS bins."""
    used = np.flatnonzero(seen._counts)
    place = used + seen._start
    place = np.where(place >= 0, place, -1 - place)
    shift = max(0, int(place.max()).bit_length() - (BINS.bit_length() - 1))
    counts = np.zeros((int(place.max()) >> shift) + 1, np.int64)
    np.add.at(counts, place >> shift, seen._counts[used])
    return counts, 2.0 ** (seen._exponent + shift)


def _kl_bins(counts: Counts, levels: int) -> int:
    """Number of leading bins to keep so that ``levels`` levels lose the least information (Migacz
    2017).

    For each candidate number: P is the kept histogram with all counts beyond it added to its last
    bin; Q has the bins of each level replaced by their mean, with empty bins left empty; the
    divergence is sum P log(P / Q) of the two as distributions. Two departures from Migacz keep
    sparse histograms sane: outliers are added to the last bin that is not empty (Q must not be zero
    where P is not), and no candidate clips more than one value in a hundred.
    """
    total, inside = counts.sum(), np.cumsum(counts)
    best, least = len(counts), math.inf
    for stop in range(levels, len(counts) + 1):
        kept = counts[:stop]
        outliers = int(total - inside[stop - 1])
        if outliers > total / 100:
            continue
        starts = np.arange(levels) * stop // levels
        occupied = kept > 0
        mean = np.add.reduceat(kept, starts) / np.maximum(
            np.add.reduceat(occupied, starts, dtype=np.int64), 1
        )
        q = np.repeat(mean, np.diff(starts, append=stop))[occupied] / inside[stop - 1]
        p = kept[occupied] / total
        p[-1] += outliers / total
        divergence = float(np.sum(p * np.log(p / q)))
        if divergence < least:
            best, least = stop, divergence
    return best
