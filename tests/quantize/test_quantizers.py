"""Promises of every quantizer, checked on real files in the real runtimes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.backends import export_targets, get_backend
from edgeface.bundle import Bundle, write_bundle
from edgeface.errors import QuantizeError
from edgeface.images import Image, letterbox, read_image
from edgeface.runners import Heads, open_runner
from quantize.base import Quantized, Quantizer
from quantize.measure import int8_manifest, named_files

pytest.importorskip("torch", reason="torch is not installed")

TARGETS = export_targets()
Open = Callable[..., Quantizer]


@pytest.fixture(scope="module")
def photos(astronaut: Image, hopper_path: Path, lively_size: tuple[int, int]) -> list[Image]:
    """Six cut-outs of two portraits."""
    hopper = read_image(hopper_path)
    corners = ((0, 0), (60, 100), (200, 160))
    cuts = [image[y : y + 300, x : x + 340] for image in (astronaut, hopper) for y, x in corners]
    return [letterbox(np.ascontiguousarray(cut), *lively_size)[0] for cut in cuts]


@pytest.fixture(scope="module")
def batch(astronaut: Image, lively_size: tuple[int, int]) -> NDArray[np.uint8]:
    return letterbox(astronaut, *lively_size)[0][None]


@pytest.fixture(
    scope="module",
    ids=lambda param: param[0] + "-landmarks" * param[1],
    params=[(target, landmarks) for landmarks in (False, True) for target in TARGETS],
)
def bundle(request: pytest.FixtureRequest, exported: Callable[..., Bundle]) -> Bundle:
    target, landmarks = request.param
    found: Bundle = exported(target, landmarks=landmarks)
    return found


@pytest.fixture(scope="module")
def quantizer(bundle: Bundle, photos: list[Image]) -> Quantizer:
    return _open(bundle, photos)


def _open(
    bundle: Bundle, photos: Sequence[Image], scale: str | None = None, **more: Any
) -> Quantizer:
    kind: Any = get_backend(bundle.manifest.target).load_quantizer()
    made: Quantizer = kind(bundle, photos, scale or kind.scales[0], **more)
    return made


def heads(
    bundle: Bundle, quantized: Quantized | None, batch: NDArray[np.uint8], folder: Path
) -> Heads:
    """Outputs of the INT8 files ``quantized``, or of the float Bundle if it is None."""
    if quantized is not None:
        manifest = int8_manifest(bundle.manifest, quantized)
        bundle = write_bundle(folder / "int8", manifest, named_files(manifest, quantized))
    with open_runner(bundle) as runner:
        return runner.run(batch)


def noise(found: Heads, expected: Heads) -> dict[str, float]:
    """Head -> mean squared difference / variance."""
    return {
        name: float(np.mean((found[name] - value) ** 2) / value.var())
        for name, value in expected.items()
    }


def test_heads_stay_close(
    quantizer: Quantizer, bundle: Bundle, batch: NDArray[np.uint8], tmp_path: Path
) -> None:
    """8 bits per layer leave 15 to 35 dB with random weights; below 10 dB something is broken."""
    expected = heads(bundle, None, batch, tmp_path)
    found = noise(heads(bundle, quantizer.quantize(), batch, tmp_path), expected)
    assert max(found.values()) < 0.1, found


def test_all_layers_in_float_is_the_float_file(
    quantizer: Quantizer, bundle: Bundle, batch: NDArray[np.uint8], tmp_path: Path
) -> None:
    expected = heads(bundle, None, batch, tmp_path)
    found = heads(bundle, quantizer.quantize(quantizer.layers), batch, tmp_path)
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, atol=1e-5
        )  # the same float32 sums, in another order at most


def test_layers_in_float_take_their_noise_away(
    quantizer: Quantizer, bundle: Bundle, batch: NDArray[np.uint8], tmp_path: Path
) -> None:
    expected = heads(bundle, None, batch, tmp_path)
    whole = noise(heads(bundle, quantizer.quantize(), batch, tmp_path), expected)
    half = noise(
        heads(bundle, quantizer.quantize(quantizer.layers[::2]), batch, tmp_path), expected
    )
    assert sum(half.values()) < sum(whole.values())


def test_smaller_than_float(quantizer: Quantizer, bundle: Bundle) -> None:
    """Weights shrink to a quarter; names, scales and biases do not: edgeface-n shrinks to 0.29."""
    size = sum(len(content) for content in quantizer.quantize().files.values())
    assert size <= 0.35 * bundle.size_bytes


def test_layers_are_the_convolutions(quantizer: Quantizer, bundle: Bundle) -> None:
    outputs = len(bundle.manifest.head_layout.output_names)
    assert len(quantizer.layers) == len(set(quantizer.layers)) == 18 + outputs
    assert not set(quantizer.layers).intersection(quantizer.float_layers)


def test_every_output_is_quantised(
    quantizer: Quantizer,
    bundle: Bundle,
    batch: NDArray[np.uint8],
    photos: list[Image],
    tmp_path: Path,
) -> None:
    """An exact output would not be in INT8. The scale of each int8 output covers its own values."""
    quantized, names = quantizer.quantize(), bundle.manifest.head_layout.output_names
    found = noise(heads(bundle, quantized, batch, tmp_path), heads(bundle, None, batch, tmp_path))
    assert tuple(found) == names and min(found.values()) > 0
    if quantized.output_quantization is not None:
        assert bundle.manifest.target == "tflite"
        seen = [heads(bundle, None, photo[None], tmp_path) for photo in photos]
        for name in names:
            values = np.concatenate([[0], *(outputs[name].ravel() for outputs in seen)])
            scale = quantized.output_quantization[name][0]
            assert scale == pytest.approx(np.ptp(values) / 255, rel=0.01)


def test_a_layer_that_is_none(quantizer: Quantizer) -> None:
    with pytest.raises(QuantizeError, match=r"no layer 'stem' can be kept in float \(known: "):
        quantizer.quantize(["stem"])


def test_same_bytes_and_told_progress(
    quantizer: Quantizer, bundle: Bundle, photos: list[Image]
) -> None:
    told: list[tuple[str, int, int]] = []
    other = _open(
        bundle, photos, progress=lambda what, done, total, note="": told.append((what, done, total))
    )
    assert told[0][1] == 0 and told[-1][1] == told[-1][2] >= len(photos)
    assert all(0 <= done <= total for _, done, total in told)
    for reverted in ((), quantizer.layers[:3]):
        assert other.quantize(reverted[::-1]) == quantizer.quantize(reverted)


@pytest.mark.parametrize(
    ("target", "scale"),
    [
        (target, scale)
        for target in TARGETS
        for scale in get_backend(target).load_quantizer().scales[1:]  # type: ignore[attr-defined]
    ],
)
def test_every_scale(
    target: str,
    scale: str,
    exported: Callable[..., Bundle],
    photos: list[Image],
    batch: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    bundle = exported(target)
    found = heads(bundle, _open(bundle, photos, scale).quantize(), batch, tmp_path)
    worst = max(noise(found, heads(bundle, None, batch, tmp_path)).values())
    assert worst < 0.3, worst  # percentile and kl clip more than 8 bits need on so few photos
