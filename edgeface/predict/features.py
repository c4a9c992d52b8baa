"""Features of networks for the latency model: sums over the layers of possible terms of their cost.

See :mod:`edgeface.predict.model` for how they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.architecture.layers import KINDS, Layer, Part
from edgeface.errors import MissingExtraError
from edgeface.types import Doubles

try:
    from sklearn.kernel_approximation import Nystroem
except ImportError:
    raise MissingExtraError("scikit-learn", "search", "predicting latency") from None

PLAIN = (0, 1, 3)
"""lengths of the keys of the plain terms: for all layers (0), for those of one operator (1), and
for those of one group (3)"""
LANES = (16, 32)
"""channels that a processor computes at once: 12 channels cost as much as 16"""
LANDMARKS = {1: 24, 3: 12}
"""length of the key -> most landmarks of a smooth function: for an operator (1), and for an
operator with kernel and stride (3)"""
GAMMA = 0.15
"""of the RBF kernel, over squared differences of log2: the correlation after one doubling is
exp(-0.15) = 86 %"""
DIRECT = {"ncnn": 16}
"""target -> channels, in and out, up to which the runtime computes convolutions larger than 1x1
directly instead of as a product of matrices. The figure is that of ncnn 1.0.20261020. Its 3x3
convolutions of stride 1 change at 8 channels already (Winograd), but a separate limit for them
predicts no better."""
OPERATORS = (*KINDS, "narrow conv")
VALUE_MACS = 16.0
"""multiply-accumulates that a processor does while it moves one value: an initial guess that the
fit corrects"""
RADIX = 1 << 14
"""larger than any kernel or stride"""
MARGIN = 0.5
"""how far a layer's channels and size may lie outside those seen, in doublings"""

Key = tuple[Any, ...]
"""first 0, 1 or 3 elements of a layer's group"""


class Basis:
    """Features of parts: sums over the layers of each part.

    layers: those seen, which define the features. target: runtime.
    """

    def __init__(self, layers: Sequence[Layer], target: str) -> None:
        self.direct, self.groups = DIRECT.get(target, 0), {layer.group for layer in layers}
        table = LayerTable(layers, self.direct)
        self.smooth: dict[Key, Nystroem] = {}
        self.start: dict[Key, int] = {}
        self.smooth_start: dict[Key, int] = {}
        self.bounds: dict[Key, tuple[Doubles, Doubles]] = {}
        self.terms: list[slice] = []
        self.width = 1  # the first feature is the network itself
        for depth in PLAIN:
            begin = self.width if depth else 0
            for key in table.keys(depth):
                self.start[key] = self._grow(table.plain.shape[1])
            self.terms.append(slice(begin, self.width))
        for depth, landmarks in LANDMARKS.items():
            begin = self.width
            for key, rows in table.keys(depth).items():
                places = np.unique(table.places[rows], axis=0)
                self.bounds[key] = (places.min(axis=0) - MARGIN, places.max(axis=0) + MARGIN)
                count = min(landmarks, len(places))
                self.smooth[key] = Nystroem(
                    kernel="rbf", gamma=GAMMA, n_components=count, random_state=0
                ).fit(places)
                self.smooth_start[key] = self._grow(count)
            self.terms.append(slice(begin, self.width))

    def _grow(self, count: int) -> int:
        self.width += count
        return self.width - count

    def scale(self, features: Doubles) -> Doubles:
        """Divisor of each of ``features`` [network, feature].

        With it, all terms, and all features within a term, begin with equal weight.
        """
        scale: Doubles = np.maximum(np.abs(features).mean(axis=0), 1e-12)
        for term in self.terms:
            scale[term] *= np.sqrt(np.mean(np.sum((features[:, term] / scale[term]) ** 2, axis=1)))
        return scale

    def features(self, parts: Sequence[Part]) -> tuple[Doubles, list[str]]:
        """(features [part, feature], why each part is unlike those seen; empty if it is not)."""
        layers = [layer for part in parts for layer in part.layers]
        owner = np.repeat(np.arange(len(parts)), [len(part.layers) for part in parts])
        table, totals = LayerTable(layers, self.direct), np.zeros((len(parts), self.width))
        strange = np.zeros(len(layers), bool)
        for depth in PLAIN:
            for key, rows in table.keys(depth).items():
                if key not in self.start:
                    strange[rows] = True
                    continue
                _sum_into(totals, self.start[key], owner[rows], table.plain[rows])
                if key in self.smooth:
                    smooth = self.smooth[key].transform(table.places[rows])
                    _sum_into(
                        totals,
                        self.smooth_start[key],
                        owner[rows],
                        table.guess[rows, None] * smooth,
                    )
                    low, high = self.bounds[key]
                    strange[rows] |= np.any(
                        (table.places[rows] < low) | (table.places[rows] > high), axis=1
                    )
        why = [""] * len(parts)
        for row in np.flatnonzero(strange)[::-1]:
            known = layers[row].group in self.groups
            what = f"layer like {layers[row]}" if known else layers[row].title
            why[owner[row]] = f"no network seen has a {what}"
        return totals, why


class LayerTable:
    """What the model knows of each layer. direct: the entry of :data:`DIRECT`, or 0."""

    def __init__(self, layers: Sequence[Layer], direct: int) -> None:
        kinds = {kind: code for code, kind in enumerate(OPERATORS)}
        raw = np.array(
            [
                (kinds[kind], kernel, stride, before, out, width * height)
                for kind, kernel, stride, before, out, width, height, _ in layers
            ],
            np.int64,
        )
        kind, kernel, stride, before, out, cells = raw.T
        # The kernel is 0 for operators that multiply nothing.
        filters = np.where(kind == kinds["conv"], before, 1) * kernel**2
        read = (
            np.select([kind == kinds["add"], kind == kinds["resize"]], [2.0, 0.25], stride**2)
            * cells
            * before
        )
        macs, written = (cells * out * filters).astype(np.float64), (cells * out).astype(np.float64)
        columns = [np.ones(len(raw)), macs, read, written, macs / before, macs / out]
        for lanes in LANES:
            rounded = macs / out * _up(out, lanes)
            columns += [
                rounded,
                np.where(kind == kinds["conv"], rounded / before * _up(before, lanes), rounded),
            ]
        self.plain: Doubles = np.column_stack(columns)
        """[layer, term of its cost]: 1; multiply-accumulates; values read; values written;
        multiply-accumulates per input channel, for layers with few of them; values gathered for a
        product of matrices (im2col); for each of :data:`LANES`, multiply-accumulates with output
        channels rounded up, then with all channels rounded up"""
        self.places: Doubles = np.log2(np.column_stack([before, out, cells]))
        self.guess: Doubles = macs + VALUE_MACS * (read + written)
        kind = np.where(
            (kind == kinds["conv"]) & (kernel > 1) & (np.maximum(before, out) <= direct),
            kinds["narrow conv"],
            kind,
        )
        self._codes = {0: 0 * kind, 1: kind, 3: (kind * RADIX + kernel) * RADIX + stride}

    def keys(self, depth: int) -> dict[Key, NDArray[np.int64]]:
        """First ``depth`` of (operator, kernel, stride) -> rows of these layers, ascending."""
        order = np.argsort(self._codes[depth], kind="stable")
        codes, first = np.unique(self._codes[depth][order], return_index=True)
        return {
            self._key(code, depth): rows
            for code, rows in zip(codes.tolist(), np.split(order, first[1:]), strict=True)
        }

    @staticmethod
    def _key(code: int, depth: int) -> Key:
        if depth < 3:
            return (OPERATORS[code],)[:depth]
        return (OPERATORS[code // RADIX**2], code // RADIX % RADIX, code % RADIX)


def _sum_into(totals: Doubles, start: int, owners: NDArray[np.int64], values: Doubles) -> None:
    """Add the rows of ``values`` to rows of ``totals``, from column ``start`` on.

    owners: ascending index of the row of ``totals`` for each row of ``values``.
    """
    first = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    totals[owners[first], start : start + values.shape[1]] += np.add.reduceat(values, first, axis=0)


def _up(channels: NDArray[np.int64], lanes: int) -> NDArray[np.int64]:
    return -(-channels // lanes) * lanes
