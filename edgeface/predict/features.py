"""What a latency model knows of networks: sums over their layers of what a layer may cost a share
of.

See :mod:`edgeface.predict.model` for what is made of them.
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
"""plain terms: for all layers, for those of one operator, and for those of one group"""
LANES = (16, 32)
"""channels that a processor takes at once: 12 cost as much as 16"""
LANDMARKS = {1: 24, 3: 12}
"""places at most that a smooth function stands on: of an operator, and of an operator with kernel
and stride"""
GAMMA = 0.15
"""of the RBF kernel, over squared differences of log2: one doubling leaves exp(-0.15) = 86 % in
common"""
DIRECT = {"ncnn": 16}
"""channels, in and out, up to which a runtime computes convolutions larger than 1x1 directly, and
not as a product of matrices. So ncnn 1.0.20261020 does; those of 3x3 and stride 1 change at 8
channels already (Winograd), but a limit of their own predicts no better."""
OPERATORS = (*KINDS, "narrow conv")
VALUE_MACS = 16.0
"""multiply-accumulates that a processor does while it moves one value: a first guess, which the fit
corrects"""
RADIX = 1 << 14
"""larger than any kernel or stride"""
MARGIN = 0.5
"""how far outside the channels and sizes seen a layer may be, in doublings"""

Key = tuple[Any, ...]
"""first 0, 1 or 3 of a layer's group"""


class Basis:
    """Features of parts, from ``layers`` that are known: sums over the layers of each. target:
    runtime."""

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
        """What to divide each feature by, so that the terms, and the features in each, begin with
        equal rights."""
        scale: Doubles = np.maximum(np.abs(features).mean(axis=0), 1e-12)
        for term in self.terms:
            scale[term] *= np.sqrt(np.mean(np.sum((features[:, term] / scale[term]) ** 2, axis=1)))
        return scale

    def features(self, parts: Sequence[Part]) -> tuple[Doubles, list[str]]:
        """(features [part, feature], which layer of each part is unlike those seen)."""
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
    """What the model knows of each layer. direct: as :data:`DIRECT` has it, or 0."""

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
        filters = (
            np.where(kind == kinds["conv"], before, 1) * kernel**2
        )  # kernel is 0 where nothing is multiplied
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
        """[layer, what it may cost a share of]: one, multiply-accumulates, values read, values
        written, multiply-accumulates with few input channels, values gathered for a product of
        matrices (im2col), and multiply-accumulates with channels rounded up to :data:`LANES`"""
        self.places: Doubles = np.log2(np.column_stack([before, out, cells]))
        self.guess: Doubles = macs + VALUE_MACS * (read + written)
        kind = np.where(
            (kind == kinds["conv"]) & (kernel > 1) & (np.maximum(before, out) <= direct),
            kinds["narrow conv"],
            kind,
        )
        self._codes = {0: 0 * kind, 1: kind, 3: (kind * RADIX + kernel) * RADIX + stride}

    def keys(self, depth: int) -> dict[Key, NDArray[np.int64]]:
        """First ``depth`` of (operator, kernel, stride) -> rows of such layers, ascending."""
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
    """Add the rows of ``values`` to the rows ``owners`` of ``totals``, which ascend."""
    first = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    totals[owners[first], start : start + values.shape[1]] += np.add.reduceat(values, first, axis=0)


def _up(channels: NDArray[np.int64], lanes: int) -> NDArray[np.int64]:
    return -(-channels // lanes) * lanes
