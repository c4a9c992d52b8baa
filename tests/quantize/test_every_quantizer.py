"""The shipped model in INT8 for every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.backends import combinations
from edgeface.bundle import Bundle
from edgeface.detector import Detector
from quantize.pipeline import QuantizeRequest, quantize_model


def quantizers() -> list[Any]:
    return [pytest.param(target, id=target) for target, _ in combinations("int8")]


@pytest.mark.slow
@pytest.mark.parametrize("target", quantizers())
class TestEveryTarget:
    def test_small(
        self,
        trained: Callable[[str], Bundle],
        mini_wider: Path,
        black: Path,
        tmp_path: Path,
        target: str,
        astronaut: NDArray[np.uint8],
    ) -> None:
        """With good photos the budget holds with all layers in INT8. With black ones it holds as
        well, with as many layers in float as it takes."""
        bundle = trained(target)
        made = quantize_model(
            QuantizeRequest(target, bundle=bundle.path, images=6), tmp_path, data=mini_wider
        )
        assert made.accuracy["reverted_layers"] == []
        with Detector.open(made.bundle.path) as detector:
            assert len(detector.detect(astronaut).boxes) == 1
        hard = QuantizeRequest(target, bundle=bundle.path, images=3, max_reverted=1.0)
        made = quantize_model(hard, tmp_path / "hard", data=mini_wider, calibration=black)
        assert made.accuracy["float"]["hard"] - made.accuracy["int8"]["hard"] <= 0.005

    def test_figures(self, shared: Path, tmp_path: Path, target: str) -> None:
        """The limits promised for the shipped model at VGA hold on the development photos."""
        made = quantize_model(QuantizeRequest(target), tmp_path, data=shared / "wider")
        accuracy = made.accuracy
        assert accuracy["images"] >= 400
        assert 100 * (accuracy["float"]["hard"] - accuracy["int8"]["hard"]) <= 0.5
        assert 100 * (accuracy["float"]["easy"] - accuracy["int8"]["easy"]) <= 0.3
        assert accuracy["reverted_layers"] == []
        assert made.bundle.size_bytes <= 0.35 * made.float_bundle.size_bytes
