"""Observer: the histogram is exact in any order, and each scale finds what a brute-force search
over values finds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeface.bundle import Bundle
from edgeface.errors import OptionError, QuantizeError
from edgeface.probes.base import Probe, TensorInfo, Tensors
from quantize.ranges import BINS, PERCENTILE, SCALES, SMALLEST_SPAN, Observer, observe

Values = NDArray[np.float32]
RANDOM = np.random.default_rng(7)
SHAPES: dict[str, Values] = {
    name: values.astype(np.float32)
    for name, values in {
        "after a ReLU": np.maximum(RANDOM.normal(0, 2, 20000), 0),
        "two-sided": RANDOM.normal(1, 3, 20000),
        "heavy tails": RANDOM.laplace(-1, 2, 20000),
        "one outlier": np.append(RANDOM.normal(0, 1, 20000), 100),
        "even": RANDOM.uniform(-1, 3, 20000),
        "negative": -np.abs(RANDOM.normal(0, 5, 20000)),
        "far from zero": RANDOM.uniform(1000, 1001, 5000),
    }.items()
}
SPECIAL: dict[str, Values] = {
    name: np.array(values, np.float32)
    for name, values in {
        "zero": [0, 0, 0],
        "constant": [5, 5],
        "negative constant": [-3],
        "nothing": [],
        "tiny": [1e-35, -1e-35, 0],
        "huge": [1e38, -3e38, 1],
        "wide": [1e-20, 1e20],
        "two values": [0, 0.5],
    }.items()
}
ALL = SHAPES | SPECIAL


def seen(values: Values, parts: int = 1) -> Observer:
    observer = Observer()
    for part in np.array_split(values, parts):
        observer.update(part)
    return observer


def squared_error(values: Values, low: float, high: float, symmetric: bool) -> float:
    """Sum of squared rounding errors of ``values`` in the range, computed value by value."""
    exact = values.astype(np.float64)
    step, bottom, top = (high / 127, -127, 127) if symmetric else ((high - low) / 255, 0, 255)
    zero = 0 if symmetric else np.rint(-low / step)
    return float(
        ((step * (np.clip(np.rint(exact / step) + zero, bottom, top) - zero) - exact) ** 2).sum()
    )


class TestHistogram:
    @pytest.mark.parametrize("name", ALL)
    def test_counts_are_those_of_numpy(self, name: str) -> None:
        values = ALL[name]
        observer = seen(values, 5)
        counts, edges = observer.histogram()
        exact = values[np.abs(values) > 1e-30].astype(np.float64)
        assert observer.zeros == len(values) - len(exact)
        assert observer.count == len(values)
        assert len(counts) <= BINS
        expected = [int(((exact >= a) & (exact < b)).sum()) for a, b in pairwise(edges)]
        assert counts.tolist() == expected
        assert counts.sum() == len(exact)
        if len(values):
            assert (observer.low, observer.high) == (values.min(), values.max())

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.floats(-(2.0**99), 2.0**99, width=32), max_size=40),
        st.integers(1, 8),
        st.randoms(),
    )
    def test_order_and_division_do_not_matter(
        self, numbers: list[float], parts: int, random: Any
    ) -> None:
        whole = seen(np.array(numbers, np.float32))
        random.shuffle(numbers)
        split = seen(np.array(numbers, np.float32), parts)
        for ours, theirs in zip(whole.histogram(), split.histogram(), strict=True):
            assert ours.tolist() == theirs.tolist()
        assert (whole.low, whole.high, whole.zeros) == (split.low, split.high, split.zeros)
        if whole.count:
            assert [whole.range(s) for s in SCALES] == [split.range(s) for s in SCALES]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad: float) -> None:
        with pytest.raises(ValueError, match="NaN or infinity"):
            seen(np.array([1, bad], np.float32))


class TestRange:
    @pytest.mark.parametrize("symmetric", [False, True])
    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("name", ALL)
    def test_is_valid(self, name: str, scale: str, symmetric: bool) -> None:
        observer = seen(ALL[name])
        low, high = observer.range(scale, symmetric)
        assert low <= 0 <= high and high - low >= SMALLEST_SPAN
        assert np.isfinite((low, high)).all()
        if symmetric:
            assert low == -high
        if ALL[name].any() and np.abs(ALL[name]).max() > 1e-30:
            # Never wider than the values seen, except for the half step that puts zero on the
            # grid.
            most = (
                np.abs(ALL[name]).max().astype(np.float64) if symmetric else max(observer.high, 0)
            )
            assert high <= most + (high - low) / 255 + 1e-12

    @pytest.mark.parametrize("name", SHAPES)
    def test_max(self, name: str) -> None:
        values, observer = SHAPES[name], seen(SHAPES[name])
        assert observer.range("max") == (min(values.min(), 0), max(values.max(), 0))
        assert observer.range("max", True)[1] == np.abs(values).max()

    @pytest.mark.parametrize("symmetric", [False, True])
    @pytest.mark.parametrize("name", SHAPES)
    def test_mse_is_as_good_as_trying_every_clip(self, name: str, symmetric: bool) -> None:
        values, observer = SHAPES[name], seen(SHAPES[name])
        low, high = (min(float(values.min()), 0.0), max(float(values.max()), 0.0))
        parts = np.arange(1, 65) / 64
        if symmetric:
            pairs = [(0.0, f * max(-low, high)) for f in parts]
        else:
            pairs = [
                (f * low, g * high)
                for f in (parts[3::4] if low else [0])
                for g in (parts[3::4] if high else [0])
            ]
        best = min(squared_error(values, a, b, symmetric) for a, b in pairs)
        # 5 %: the histogram resolves values to 1/1024 of the span only, and samples are small.
        assert squared_error(values, *observer.range("mse", symmetric), symmetric) <= 1.05 * best

    @pytest.mark.parametrize("name", SHAPES)
    def test_percentile(self, name: str) -> None:
        values, observer = SHAPES[name], seen(SHAPES[name])
        low, high = observer.range("percentile")
        width = float(np.diff(observer.histogram()[1][:2])[0])
        cut = 1 - PERCENTILE / 100
        one_sided = values.min() >= 0 or values.max() <= 0
        exact = np.quantile(
            values, (cut, 1 - cut) if one_sided else (cut / 2, 1 - cut / 2), method="inverted_cdf"
        )
        # The range is at most a bin wider, and the quantile of few values may lie anywhere between
        # two neighbours.
        assert ((values < low) | (values > high)).mean() <= cut
        assert high <= max(exact[1] + 2 * width, 0) or high == values.max()
        assert low >= min(exact[0] - 2 * width, 0) or low == values.min()
        limit = observer.range("percentile", True)[1]
        assert (np.abs(values) > limit).mean() <= cut
        assert limit <= np.quantile(np.abs(values), PERCENTILE / 100, method="higher") + 2 * width

    def test_percentile_drops_a_lone_outlier(self) -> None:
        assert seen(SHAPES["one outlier"]).range("percentile")[1] < 6

    def test_kl_drops_a_lone_outlier(self) -> None:
        low, high = seen(SHAPES["one outlier"]).range("kl")
        assert high < 10 and low == SHAPES["one outlier"].min()

    @pytest.mark.parametrize(("symmetric", "levels"), [(True, 128), (False, 256)])
    @pytest.mark.parametrize("name", ["after a ReLU", "two-sided", "heavy tails", "even"])
    def test_kl_is_the_least_of_all_divergences(
        self, name: str, symmetric: bool, levels: int
    ) -> None:
        """The published algorithm in plain loops, over every clip, finds no smaller divergence.

        Magnitudes have one sign, so all 256 levels of an affine range are theirs."""
        values = np.abs(SHAPES[name])
        observer = seen(values)
        counts, edges = observer.histogram()
        assert edges[0] == 0, "magnitudes reach down to the first bin"
        stops = range(levels, len(counts) + 1, 16)
        plain = [divergence_by_hand(counts, stop, levels) for stop in stops]
        limit = observer.range("kl", symmetric)[1]
        stop = min(round(limit / edges[1]), len(counts)) if limit < observer.high else len(counts)
        assert divergence_by_hand(counts, stop, levels) <= min(plain) + 1e-12

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("name", ["after a ReLU", "heavy tails", "one outlier"])
    def test_the_mirrored_values_have_the_mirrored_range(self, name: str, scale: str) -> None:
        """No value but 0 lies on the edge of a bin, which would belong to the other bin there."""
        values = SHAPES[name]
        assert seen(-values).range(scale, True) == seen(values).range(scale, True)
        low, high = seen(values).range(scale)
        assert seen(-values).range(scale) == pytest.approx((-high, -low), rel=0.01)

    @pytest.mark.parametrize(("share", "clips"), [(0.009, True), (0.03, False)])
    def test_kl_clips_no_more_than_one_value_in_a_hundred(self, share: float, clips: bool) -> None:
        """Nearly all values are below 1, and most of them near 0; the rest is at 90 to 100."""
        random = np.random.default_rng(0)
        far = random.random(20_000) < share
        values = np.where(far, 100 - 10 * random.random(20_000), random.random(20_000) ** 4)
        limit = seen(values.astype(np.float32)).range("kl", symmetric=True)[1]
        assert (limit < 90) == clips

    def test_unknown_scale(self) -> None:
        with pytest.raises(
            OptionError, match=r"unknown scale 'best' \(known: max, mse, percentile, kl\)"
        ):
            Observer().range("best")


def divergence_by_hand(counts: NDArray[np.int64], stop: int, levels: int) -> float:
    p = counts[:stop].astype(float)
    q = np.zeros(stop)
    for level in range(levels):
        bins = range(level * stop // levels, (level + 1) * stop // levels)
        used = [i for i in bins if p[i]]
        for i in used:
            q[i] = sum(p[j] for j in used) / len(used)
    outliers = counts[stop:].sum()
    if outliers > counts.sum() / 100:
        return float("inf")
    p[np.flatnonzero(p)[-1]] += outliers
    p, q = p / p.sum(), q / q.sum()
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a))


class Doubling(Probe):
    """Two tensors computed in NumPy: the pixels, and twice the pixels."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__("doubling")
        self.factor = np.float32(factor)
        self.tensors = (
            TensorInfo("input", "input", "Input"),
            TensorInfo("double", "double", "Mul"),
        )

    def _run(self, image: NDArray[np.uint8]) -> Tensors:
        with np.errstate(over="ignore", invalid="ignore"):
            return {"input": image.astype(np.float32), "double": image * self.factor}

    def _free(self) -> None:
        pass


class TestObserve:
    images = tuple(np.full((4, 4, 3), value, np.uint8) for value in (10, 200, 50))

    def test_every_tensor_of_every_photo(self) -> None:
        ticks: list[tuple[int, int]] = []
        observers = observe(
            Doubling(), self.images, lambda what, done, total, note="": ticks.append((done, total))
        )
        assert {n: (o.low, o.high, o.count) for n, o in observers.items()} == {
            "input": (10, 200, 144),
            "double": (20, 400, 144),
        }
        assert ticks == [(0, 3), (1, 3), (2, 3), (3, 3)]

    def test_only_the_names_asked_for(self) -> None:
        assert list(observe(Doubling(), self.images, names={"double"})) == ["double"]

    def test_infinite_tensor_is_named(self) -> None:
        with pytest.raises(
            QuantizeError, match="NaN or infinity in tensor 'double' on calibration photo 1 of 3"
        ):
            observe(Doubling(float("inf")), self.images)

    def test_real_model(
        self, exported: Callable[..., Bundle], astronaut: NDArray[np.uint8]
    ) -> None:
        """The observer of a real file's input sees the pixels of the photo."""
        pytest.importorskip("edgeface.probes.onnxruntime")
        from edgeface.images import letterbox
        from edgeface.probes import open_probe

        bundle = exported("onnx")
        image, _ = letterbox(astronaut, bundle.manifest.input.width, bundle.manifest.input.height)
        with open_probe(bundle) as probe:
            observers = observe(probe, [image])
        assert set(observers) == {t.name for t in probe.tensors}
        first = observers[bundle.manifest.input.name]
        assert (first.low, first.high, first.count) == (image.min(), image.max(), image.size)
