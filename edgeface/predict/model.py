"""Latency model: predicts ms of an Architecture in one setting, learned from a latency table.

The time of a network is the sum of the times of its layers, but no runtime reports the time of one
layer. So the costs of layers are learned from sums, by Gaussian process regression (Rasmussen and
Williams 2006, section 2.7) of relative errors. The cost of a layer is a weighted sum of its
multiply-accumulates, the values that it reads and writes, and so on
(:mod:`edgeface.predict.features`). A smooth function of its channels and size corrects this,
because narrow layers and small maps use a processor badly. Weights are shared: there are terms for
all layers, for all layers of one operator, and for those of one operator, kernel and stride (a
group), because runtimes have a kernel for each::

    ms = sum over layers:  plain_l . (a + b_operator + c_group)
                           + guess_l (u_operator(place_l) + v_group(place_l))

u and v are functions with an RBF kernel over place = log2 of input channels, output channels and
cells (Nystroem's approximation); guess_l is a rough cost of the layer. If a runtime is known to
compute convolutions of few channels in another way (:data:`~edgeface.predict.features.DIRECT`),
these count as an operator of their own. The variances of the five terms and of the noise maximise
the likelihood of the measurements. The regression and the approximation are scikit-learn's.
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
from edgeface.latency.statistics import CONFIDENT
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
"""variance up to which a term is left out: the measurements do not need it"""
MISFIT = (1e-6, 1e-1)
"""bounds of the variance of relative errors beyond that of the measurements: standard deviations of
0.1 % to 30 %"""
MAX_PARTS = 100_000
"""parts whose features are kept in memory, some kilobytes each"""
MAX_SPREAD = 0.15
"""half the 95 % interval, as a share of the prediction; a network with a wider one counts as unlike
those seen"""


@dataclass(frozen=True)
class Prediction:
    """Predicted latency of one Architecture."""

    ms: float
    low_ms: float
    high_ms: float
    """bounds of the 95 % interval"""
    outside: str = ""
    """why the model does not know such networks; empty if it does"""


class LatencyModel:
    """Latency model, fitted to a table when constructed; equal tables give equal models.

    Raises DataError if the table has too few usable records.
    """

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
        # Variance of each measurement.
        uncertain = np.array([(r.width / (2 * CONFIDENT)) ** 2 for r in records])
        self._process = GaussianProcessRegressor(kernel, alpha=uncertain, random_state=0)
        # One thread: with matrices this small, threads would wait for each other.
        with warnings.catch_warnings(), threadpool_limits(1):
            # scikit-learn warns if a term that is not needed ends at its lower bound.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(relative / self._scale, np.ones(len(records)))
        self._widen = self._left_out()
        self._to_weights()

    def _to_weights(self) -> None:
        """Express the process as a regression with random weights.

        Computes their mean and covariance, and the noise (Rasmussen and Williams 2006, section
        2.1). The cost of a prediction then depends on the number of features, not of networks.
        """
        process, variances = self._process, self._variance_of_columns()
        self._noise = float(process.kernel_.diag(np.zeros((1, self._basis.width)))[0])
        self._used = np.flatnonzero(variances > UNUSED)
        known = (process.X_train_ * variances)[:, self._used]
        solved = solve_triangular(process.L_, known, lower=True)
        self._mean: Doubles = process.alpha_ @ known
        # Single precision makes the product twice as fast. Its error is 1e-6, in variances of 1e-4
        # and more.
        self._covariance = (np.diag(variances[self._used]) - solved.T @ solved).astype(np.float32)

    def _variance_of_columns(self) -> Doubles:
        """Prior variance of each feature's weight."""
        found: Doubles = np.empty(self._basis.width)
        for term in self._basis.terms:
            unit = np.zeros((1, self._basis.width))
            unit[0, term.start] = 1.0
            found[term] = self._process.kernel_(unit, unit)[0, 0]
        return found

    def _left_out(self) -> float:
        """Factor, 1 or more, by which intervals are widened to hold 95 % of the table's networks.

        Each network is predicted from the others (Rasmussen and Williams 2006, section 5.4.2).
        """
        inverse = cho_solve((self._process.L_, True), np.eye(len(self._process.L_)))
        errors = np.abs(self._process.alpha_) / np.sqrt(np.diag(inverse))  # in standard deviations
        return max(1.0, float(np.quantile(errors, 0.95)) / CONFIDENT)

    def predict(self, architectures: Sequence[Architecture]) -> list[Prediction]:
        """One Prediction for each. Raises ModelError for a kind of network that no search makes."""
        networks = [parts_of(a, *self._size) for a in architectures]
        if not networks:
            return []
        with threadpool_limits(1):
            return self._predict(networks)

    def _predict(self, networks: Sequence[Sequence[Part]]) -> list[Prediction]:
        features, strange = self._features(networks)
        features = features[:, self._used] / self._scale[self._used]
        ms = features @ self._mean
        # Errors are relative, so the variance from the features is divided by the squared time.
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
        """(features [network, feature], why each is unlike those seen; empty if it is not).

        Features of parts are kept, because the networks of a search share parts.
        """
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
    """Linear kernel over the columns ``start`` to ``stop``, without hyperparameters."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __call__(self, X: Doubles, Y: Doubles | None = None, eval_gradient: bool = False) -> Any:
        own = X[:, self.start : self.stop]
        products = own @ (own if Y is None else Y[:, self.start : self.stop]).T
        return (products, np.empty((*products.shape, 0))) if eval_gradient else products

    def diag(self, X: Doubles) -> Doubles:
        """Diagonal of ``self(X)``."""
        own = X[:, self.start : self.stop]
        squares: Doubles = np.einsum("ij,ij->i", own, own)
        return squares

    def is_stationary(self) -> bool:
        """Always False."""
        return False
