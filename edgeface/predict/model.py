"""Latency model: milliseconds of an Architecture in one setting, learned from the networks of a
latency table.

A network takes the sum of what its layers take, and no runtime says what one layer takes, so layer
costs are learned from sums, by Gaussian process regression (Rasmussen and Williams 2006, section
2.7) of relative errors. A layer costs a share of its multiply-accumulates, of the values that it
reads and writes, and so on (:mod:`edgeface.predict.features`); and a smooth function of its
channels and size corrects these, as narrow layers and small maps use a processor badly. What is
learned is shared: there are terms for all layers, for all of one operator, and for one operator,
kernel and stride (a group), because runtimes have a kernel for each::

    ms = sum over layers:  plain_l . (a + b_operator + c_group)
                           + guess_l (u_operator(place_l) + v_group(place_l))

u and v are functions with an RBF kernel over place = log2 of input channels, output channels and
cells (Nystroem's approximation), guess_l a rough share of the layer. Where a runtime is known to
compute a convolution of few channels by other means (:data:`~edgeface.predict.features.DIRECT`),
that is an operator of its own. How much each of the five terms may vary, and the noise, are what
makes the measurements likeliest. The regression and the approximation are scikit-learn's.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import Part, parts_of
from edgeface.errors import DataError, MissingExtraError
from edgeface.predict.features import Basis
from edgeface.predict.table import LEAST_NETWORKS, LatencyTable
from edgeface.types import Doubles

try:
    from scipy.linalg import cho_solve, solve_triangular
    from scipy.sparse import csr_array
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, WhiteKernel
    from threadpoolctl import threadpool_limits
except ImportError:
    raise MissingExtraError("scikit-learn", "search", "predicting latency") from None

VARIANCES = (1e-9, 1e3)
UNUSED = 1e-8
"""variance of a term that the measurements do not ask for"""
MISFIT = (1e-6, 1e-1)
"""variance of relative errors beyond that of the measurements: 0.1 % to 30 %"""
CONFIDENT = 1.96
"""standard deviations to each side that hold 95 %"""
MAX_PARTS = 100_000
"""kept in memory, some kilobytes each"""
MAX_SPREAD = 0.15
"""half the 95 % interval as a share of the prediction; beyond it, a network is called unlike those
seen"""


@dataclass(frozen=True)
class Prediction:
    """What one Architecture takes."""

    ms: float
    low_ms: float
    high_ms: float
    """bounds of the 95 % interval"""
    outside: str = ""
    """why the model does not know such a network; empty: it does"""


class LatencyModel:
    """Fitted when made; the same table gives the same model. Raises DataError for a table with too
    few records."""

    def __init__(self, table: LatencyTable) -> None:
        records = tuple(r for r in table.records if r.teaches)
        if len(records) < LEAST_NETWORKS:
            wrong = Counter(reason for r in table.records for reason in r.invalid_reasons)
            why = f"; most often because of {wrong.most_common(1)[0][0]}" if wrong else ""
            raise DataError(
                f"a latency model needs {LEAST_NETWORKS} measured networks at least, the table of"
                f" {table.setting} has {len(records)} usable ones of {len(table.records)}{why}:"
                " measure more, on a machine with nothing else to do"
            )
        self.table = table
        self._size = (table.setting.width, table.setting.height)
        parts = [parts_of(r.architecture, *self._size) for r in records]
        layers = [layer for network in parts for part in network for layer in part.layers]
        self._basis = Basis(layers, table.setting.target)
        self._rows: dict[Part, tuple[Doubles, str]] = {}
        relative = self._features(parts)[0] / np.array([[table.ms(r)] for r in records])
        self._scale = self._basis.scale(relative)
        kernel = WhiteKernel(1e-3, MISFIT)
        for term in self._basis.terms:
            kernel += ConstantKernel(0.1, VARIANCES) * Columns(term.start, term.stop)
        uncertain = np.array(
            [(r.width / (2 * CONFIDENT)) ** 2 for r in records]
        )  # variance of each measurement
        self._process = GaussianProcessRegressor(kernel, alpha=uncertain, random_state=0)
        with (
            warnings.catch_warnings(),
            threadpool_limits(1),
        ):  # small matrices: threads would wait for each other
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # a term that is not needed ends at its lower bound
            self._process.fit(relative / self._scale, np.ones(len(records)))
        self._widen = self._left_out()
        self._to_weights()

    def _to_weights(self) -> None:
        """The same process as a regression with random weights (Rasmussen and Williams 2006,
        section 2.1), of which a prediction costs what features there are, and not networks: their
        mean and covariance, and the noise.
        """
        process, variances = self._process, self._variance_of_columns()
        self._noise = float(process.kernel_.diag(np.zeros((1, self._basis.width)))[0])
        self._used = np.flatnonzero(variances > UNUSED)
        known = (process.X_train_ * variances)[:, self._used]
        solved = solve_triangular(process.L_, known, lower=True)
        self._mean: Doubles = process.alpha_ @ known
        # Single precision, in which the product is twice as fast, is off by 1e-6 of a variance of
        # 1e-4 and more.
        self._covariance = (np.diag(variances[self._used]) - solved.T @ solved).astype(np.float32)

    def _variance_of_columns(self) -> Doubles:
        """Of each feature's weight, before anything was measured."""
        found: Doubles = np.empty(self._basis.width)
        for term in self._basis.terms:
            unit = np.zeros((1, self._basis.width))
            unit[0, term.start] = 1.0
            found[term] = self._process.kernel_(unit, unit)[0, 0]
        return found

    def _left_out(self) -> float:
        """What intervals must be widened by, so that they would have held 95 % of the networks of
        the table, each predicted from the others (Rasmussen and Williams 2006, section 5.4.2)."""
        inverse = cho_solve((self._process.L_, True), np.eye(len(self._process.L_)))
        errors = np.abs(self._process.alpha_) / np.sqrt(np.diag(inverse))  # in standard deviations
        return max(1.0, float(np.quantile(errors, 0.95)) / CONFIDENT)

    def predict(self, architectures: Sequence[Architecture]) -> list[Prediction]:
        """One Prediction for each. Raises ModelError for a network of another kind than searches
        produce."""
        networks = [parts_of(a, *self._size) for a in architectures]
        if not networks:
            return []
        with threadpool_limits(1):
            return self._predict(networks)

    def _predict(self, networks: Sequence[Sequence[Part]]) -> list[Prediction]:
        features, strange = self._features(networks)
        features = features[:, self._used] / self._scale[self._used]
        ms = features @ self._mean
        # Errors are relative, so the spread is that of the features over the prediction.
        single = features.astype(np.float32)
        variance = self._noise + np.einsum("ij,ij->i", single @ self._covariance, single) / ms**2
        deviation = np.sqrt(np.maximum(variance, 0.0))
        return [
            self._prediction(*each)
            for each in zip(ms.tolist(), deviation.tolist(), strange, strict=True)
        ]

    def _prediction(self, ms: float, deviation: float, strange: str) -> Prediction:
        spread = CONFIDENT * self._widen * deviation
        if not strange and not (ms > 0 and spread <= MAX_SPREAD):
            strange = f"the prediction of {ms:.2f} ms is no better than +-{spread:.0%}"
        return Prediction(ms, max(0.0, ms * (1 - spread)), ms * (1 + spread), strange)

    def _features(self, networks: Sequence[Sequence[Part]]) -> tuple[Doubles, list[str]]:
        """(features [network, feature], which layer of each was not seen). Searches exchange parts:
        they are kept."""
        if len(self._rows) > MAX_PARTS:
            self._rows.clear()
        new = list(
            dict.fromkeys(
                part for network in networks for part in network if part not in self._rows
            )
        )
        if new:
            rows, strange = self._basis.features(new)
            self._rows.update(
                (part, (row, why)) for part, row, why in zip(new, rows, strange, strict=True)
            )
        place: dict[Part, int] = {}
        parts = [place.setdefault(part, len(place)) for network in networks for part in network]
        ends = np.cumsum([0, *map(len, networks)])
        which = csr_array((np.ones(len(parts)), parts, ends), (len(networks), len(place)))
        features: Doubles = which @ np.array([self._rows[part][0] for part in place])
        features[:, 0] = 1.0  # the network itself
        return features, [
            next((why for part in network if (why := self._rows[part][1])), "")
            for network in networks
        ]


class Columns(Kernel):  # type: ignore[misc]
    """Linear kernel over the columns ``start`` to ``stop``: no hyperparameters of its own."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __call__(self, X: Doubles, Y: Doubles | None = None, eval_gradient: bool = False) -> Any:
        own = X[:, self.start : self.stop]
        products = own @ (own if Y is None else Y[:, self.start : self.stop]).T
        return (products, np.empty((*products.shape, 0))) if eval_gradient else products

    def diag(self, X: Doubles) -> Doubles:
        """Of ``self(X)``."""
        own = X[:, self.start : self.stop]
        squares: Doubles = np.einsum("ij,ij->i", own, own)
        return squares

    def is_stationary(self) -> bool:
        """It is not."""
        return False
