"""Latency model: milliseconds of an Architecture in one setting, learned from the networks of a latency table.

A network takes the sum of what its layers take, and no runtime says what one layer takes, so layer costs are learned
from sums, by Gaussian process regression (Rasmussen and Williams 2006, section 2.7) of relative errors. A layer costs a
share of its multiply-accumulates, of the values that it reads and writes, and so on (:func:`_plain`); and a smooth
function of its channels and size corrects these, as narrow layers and small maps use a processor badly. What is
learned is shared: there are terms for all layers, for all of one operator, and for one operator, kernel and stride,
because runtimes have a kernel for each::

    ms = sum over layers:  plain_l . (a + b_operator + c_group)  +  guess_l . (u_operator(place_l) + v_group(place_l))

u and v are functions with an RBF kernel over place = log2 of input channels, output channels and cells (Nystroem's
approximation), guess_l a rough share of the layer. How much each of the five terms may vary, and the noise, are what
makes the measurements likeliest. The regression, its uncertainty and the approximation are scikit-learn's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, WhiteKernel
from sklearn.kernel_approximation import Nystroem

from edgeface.errors import DataError, ModelError
from edgeface.models.architecture import Architecture
from edgeface.search.latency_table import LatencyTable
from edgeface.search.layers import Layer, Part, parts_of

LANES = (16, 32)
"""channels that a processor takes at once: 12 cost as much as 16"""
LANDMARKS = {1: 60, 3: 24}
"""places at most that a smooth function stands on: of an operator, and of an operator with kernel and stride"""
GAMMA = 0.15
"""of the RBF kernel, over squared differences of log2: one doubling leaves exp(-0.15) = 86 % in common"""
VALUE_MACS = 16.0
"""multiply-accumulates that a processor does while it moves one value: a first guess, which the fit corrects"""
VARIANCES = (1e-9, 1e3)
NOISE = (1e-6, 1e-1)
"""of relative errors: 0.1 % to 30 %"""
MARGIN = 0.5
"""how far outside the channels and sizes seen a layer may be, in doublings"""
LEAST_NETWORKS = 20
CONFIDENT = 1.96
"""standard deviations to each side that hold 95 %"""
MAX_PARTS = 100_000
"""kept in memory, some kilobytes each"""
MAX_SPREAD = 0.15
"""half the 95 % interval as a share of the prediction; beyond it, a network is called unlike those seen"""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """What one Architecture takes."""

    ms: float
    low_ms: float
    high_ms: float
    """bounds of the 95 % interval"""
    outside: str = ""
    """why the model does not know such a network; empty: it does"""
    measured: bool = False
    """True: a figure of the device, not of the model"""


class LatencyModel:
    """Fitted when made; the same table gives the same model. Raises DataError for a table with too few records."""

    def __init__(self, table: LatencyTable) -> None:
        records = table.valid
        if len(records) < LEAST_NETWORKS:
            raise DataError(f"a latency model needs {LEAST_NETWORKS} measured networks at least, the table of "
                            f"{table.setting} has {len(records)} valid ones: measure more")
        self.table = table
        self._size = (table.setting.width, table.setting.height)
        parts = [parts_of(r.architecture, *self._size) for r in records]
        self._basis = _Basis([layer for network in parts for part in network for layer in part.layers])
        self._rows: dict[Part, tuple[Floats, str]] = {}
        relative = self._features(parts)[0] / np.array([[table.ms(r)] for r in records])
        self._scale = self._basis.scale(relative)
        kernel = WhiteKernel(1e-3, NOISE)
        for term in self._basis.terms:
            kernel += ConstantKernel(0.1, VARIANCES) * Columns(term.start, term.stop)
        self._process = GaussianProcessRegressor(kernel, alpha=0.0, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a term that is not needed ends at its lower bound
            self._process.fit(relative / self._scale, np.ones(len(records)))

    def predict(self, architectures: Sequence[Architecture]) -> list[Prediction]:
        """One Prediction for each. Raises ModelError for a network of another kind than searches produce."""
        networks = [parts_of(a, *self._size) for a in architectures]
        if not networks:
            return []
        features, strange = self._features(networks)
        features /= self._scale
        ms = self._process.predict(features)
        # Errors are relative, so the spread is that of the features over the prediction.
        _, deviation = self._process.predict(features / ms[:, None], return_std=True)
        return [self._prediction(*each) for each in zip(ms.tolist(), deviation.tolist(), strange, strict=True)]

    def predict_or_measure(self, architectures: Sequence[Architecture],
                           measure: Callable[[Sequence[Architecture]], Sequence[float]]) -> list[Prediction]:
        """Like :meth:`predict`; networks outside what was seen are handed to ``measure``, which returns their ms."""
        found = [self._predict_any(a) for a in architectures]
        outside = [i for i, prediction in enumerate(found) if prediction.outside]
        if outside:
            for i, ms in zip(outside, measure([architectures[i] for i in outside]), strict=True):
                found[i] = Prediction(ms, ms, ms, found[i].outside, measured=True)
        return found

    def _predict_any(self, architecture: Architecture) -> Prediction:
        try:
            return self.predict([architecture])[0]
        except ModelError as error:
            return Prediction(0.0, 0.0, 0.0, str(error))

    def _prediction(self, ms: float, deviation: float, strange: str) -> Prediction:
        spread = CONFIDENT * deviation
        if not strange and not (ms > 0 and spread <= MAX_SPREAD):
            strange = f"the prediction of {ms:.2f} ms is no better than +-{spread:.0%}"
        return Prediction(ms, max(0.0, ms * (1 - spread)), ms * (1 + spread), strange)

    def _features(self, networks: Sequence[Sequence[Part]]) -> tuple[Floats, list[str]]:
        """(features [network, feature], which layer of each was not seen). Searches exchange parts: they are kept."""
        if len(self._rows) > MAX_PARTS:
            self._rows.clear()
        new = list(dict.fromkeys(part for network in networks for part in network if part not in self._rows))
        if new:
            rows, strange = self._basis.features(new)
            self._rows.update((part, (row, why)) for part, row, why in zip(new, rows, strange, strict=True))
        found = [[self._rows[part] for part in network] for network in networks]
        features = np.array([np.sum([row for row, _ in network], axis=0) for network in found])
        features[:, 0] = 1.0  # the network itself
        return features, [next((why for _, why in network if why), "") for network in found]


class Columns(Kernel):  # type: ignore[misc]
    """Linear kernel over the columns ``start`` to ``stop``: no hyperparameters of its own."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __call__(self, X: Floats, Y: Floats | None = None, eval_gradient: bool = False) -> Any:
        own = X[:, self.start : self.stop]
        products = own @ (own if Y is None else Y[:, self.start : self.stop]).T
        return (products, np.empty((*products.shape, 0))) if eval_gradient else products

    def diag(self, X: Floats) -> Floats:
        """Of ``self(X)``."""
        own = X[:, self.start : self.stop]
        squares: Floats = np.einsum("ij,ij->i", own, own)
        return squares

    def is_stationary(self) -> bool:
        """It is not."""
        return False


class _Basis:
    """Features of parts, from the layers seen in the table: sums over the layers of each."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        table = _table(layers)
        members = {key: np.array(rows) for key, rows in _by_key(layers).items()}
        self.smooth: dict[tuple[Any, ...], Nystroem] = {}
        self.start: dict[tuple[Any, ...], int] = {}
        self.terms: list[slice] = []
        self.bounds: dict[tuple[Any, ...], tuple[Floats, Floats]] = {}
        self.width = 1
        for depth in (0, 1, 3):  # all layers, those of an operator, those of an operator, kernel and stride
            self._begin()
            for key in (k for k in sorted(members) if len(k) == depth):
                self.start[key] = self._grow(table.shape[1] - 3)
        for depth in LANDMARKS:
            self._begin()
            for key in (k for k in sorted(members) if len(k) == depth):
                places = np.unique(table[members[key], :3], axis=0)
                self.bounds[key] = (places.min(axis=0) - MARGIN, places.max(axis=0) + MARGIN)
                count = min(LANDMARKS[depth], len(places))
                self.smooth[key] = Nystroem(kernel="rbf", gamma=GAMMA, n_components=count, random_state=0).fit(places)
                self.start[("smooth", *key)] = self._grow(count)
        self.terms = [slice(a.start, b.start) for a, b in zip(self.terms, [*self.terms[1:], slice(self.width, 0)],
                                                              strict=True)]
        self.terms[0] = slice(0, self.terms[0].stop)

    def _begin(self) -> None:
        self.terms.append(slice(self.width, self.width))

    def _grow(self, count: int) -> int:
        self.width += count
        return self.width - count

    def scale(self, features: Floats) -> Floats:
        """What to divide each feature by, so that the terms, and the features in each, begin with equal rights."""
        scale: Floats = np.maximum(np.abs(features).mean(axis=0), 1e-12)
        for term in self.terms:
            scale[term] *= np.sqrt(np.mean(np.sum((features[:, term] / scale[term]) ** 2, axis=1)))
        return scale

    def features(self, parts: Sequence[Part]) -> tuple[Floats, list[str]]:
        """(features [part, feature], which layer of each part is unlike those seen)."""
        layers = [layer for part in parts for layer in part.layers]
        owner = np.repeat(np.arange(len(parts)), [len(part.layers) for part in parts])
        table, totals, strange = _table(layers), np.zeros((len(parts), self.width)), [""] * len(parts)
        for key, members in _by_key(layers).items():
            rows = np.array(members)
            if key not in self.start:
                for row in rows:
                    strange[owner[row]] = strange[owner[row]] or f"no network seen has a {layers[row].title}"
                continue
            self._add(totals, self.start[key], owner[rows], table[rows, 3:])
            if key not in self.smooth:
                continue
            places, guess = table[rows, :3], table[rows, 4] + VALUE_MACS * (table[rows, 5] + table[rows, 6])
            self._add(totals, self.start[("smooth", *key)], owner[rows],
                      guess[:, None] * self.smooth[key].transform(places))
            low, high = self.bounds[key]
            for row in rows[np.any((places < low) | (places > high), axis=1)]:
                strange[owner[row]] = strange[owner[row]] or f"no network seen has a layer like {layers[row]}"
        return totals, strange

    @staticmethod
    def _add(totals: Floats, start: int, owners: NDArray[np.int64], values: Floats) -> None:
        np.add.at(totals[:, start : start + values.shape[1]], owners, values)


def _by_key(layers: Sequence[Layer]) -> dict[tuple[Any, ...], list[int]]:
    """() , (operator,) and (operator, kernel, stride) -> indices of their layers."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for index, layer in enumerate(layers):
        for key in ((), (layer.kind,), layer.group):
            found.setdefault(key, []).append(index)
    return found


def _table(layers: Sequence[Layer]) -> Floats:
    """[layer, 3 + plain]: log2 of input channels, output channels and cells, then :func:`_plain`."""
    table = np.array([(layer.in_channels, layer.out_channels, layer.cells, *_plain(layer)) for layer in layers],
                     np.float64)
    table[:, :3] = np.log2(table[:, :3])
    return table


def _plain(layer: Layer) -> Iterator[float]:
    """What a layer may cost a share of: one, multiply-accumulates, values read, values written, multiply-accumulates
    with few input channels, and with channels rounded up to the :data:`LANES` of a processor."""
    macs, read, written = layer.macs, layer.values_read, layer.values_written
    yield from (1.0, macs, read, written, macs / layer.in_channels)
    for lanes in LANES:
        rounded = macs / layer.out_channels * _up(layer.out_channels, lanes)
        yield rounded
        yield rounded / layer.in_channels * _up(layer.in_channels, lanes) if layer.kind == "conv" else rounded


def _up(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes
