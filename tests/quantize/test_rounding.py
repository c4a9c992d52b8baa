"""Error diffusion over the weights that read pixels."""

from __future__ import annotations

import numpy as np
import pytest

from quantize.rounding import LEVELS, pixel_weights

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(32, 3, 6, 6), (8, 3, 3, 3), (4, 3, 1, 1), (5, 1, 1, 7)])
def test_errors_cancel_in_each_kernel_plane(shape: tuple[int, ...]) -> None:
    weight = RANDOM.normal(size=shape).astype(np.float32)
    rounded, scale = pixel_weights(weight)
    assert rounded.dtype == np.int8 and scale.dtype == np.float32 and scale.shape == shape[:1]
    exact = weight / scale[:, None, None, None]
    assert (
        np.abs(rounded - exact).max() <= 1 + 1e-4
    )  # half a step of its own, half a step diffused to it
    assert (
        np.abs((rounded - exact).sum(axis=(2, 3))).max() <= 0.5 + 1e-3
    )  # only the last weight's error is left


def test_products_of_two_neighbours_fit_in_16_bits() -> None:
    rounded, _ = pixel_weights(RANDOM.uniform(-1, 1, (16, 3, 6, 6)).astype(np.float32))
    assert np.abs(rounded.astype(int)).max() == LEVELS
    assert 255 * 2 * LEVELS < 1 << 15


def test_a_serpentine() -> None:
    """The error of the last weight of a row goes to the one below it, not to the start of the next
    row."""
    weight = np.array([[LEVELS, 0.0, 0.4], [0.0, 0.0, 0.2]], np.float32)[None, None]
    rounded, scale = pixel_weights(weight)
    assert scale == [1.0]
    assert rounded.tolist() == [[[[LEVELS, 0, 0], [0, 0, 1]]]]


def test_a_channel_of_zeros() -> None:
    rounded, scale = pixel_weights(np.zeros((2, 3, 3, 3), np.float32))
    assert not rounded.any() and (scale == 1).all()


def test_smooth_pictures_lose_least() -> None:
    """On a ramp of bright pixels the error is far below that of rounding each weight to the nearest
    step."""
    weight = RANDOM.normal(size=(64, 3, 6, 6)).astype(np.float32)
    rounded, scale = pixel_weights(weight)
    step = scale[:, None, None, None]
    ramp = np.broadcast_to(np.arange(100, 106)[None, :, None] + 2 * np.arange(6), (3, 6, 6))

    def rms(weights: np.ndarray) -> float:
        return float(np.sqrt(np.mean(((weights - weight) * ramp).sum(axis=(1, 2, 3)) ** 2)))

    assert rms(rounded * step) < 0.3 * rms(np.rint(weight / step) * step)
