"""Fixtures for the tests of probes and of ``edgeface compare``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeface.bundle import Bundle, write_bundle
from edgeface.images import Image, letterbox

Make = Callable[..., Bundle]
Alter = Callable[[str, str], Bundle]
KINDS: dict[str, Callable[[Any], Any]] = {
    "noise": (
        lambda w: w + np.random.default_rng(0).normal(0, 0.03 * w.std(), w.shape).astype(np.float32)
    ),
    "sign": lambda w: -w,
    "zero": np.zeros_like,
    "nan": lambda w: np.full_like(w, np.nan),
}


@pytest.fixture(scope="module")
def photo(astronaut: Any) -> Any:
    return astronaut


@pytest.fixture(scope="module")
def image(astronaut: Image, lively_size: tuple[int, int]) -> Any:
    """A photo fitted to the input, uint8 [1, H, W, 3]."""
    return letterbox(astronaut, *lively_size)[0][None]


@pytest.fixture(scope="module")
def alter(exported: Make, tmp_path_factory: pytest.TempPathFactory) -> Alter:
    """``alter(layer, kind)`` -> the ONNX Bundle with the weights of one convolution changed."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    whole = exported("onnx")

    def make(layer: str, kind: str) -> Bundle:
        model = onnx.load_from_string(whole.read())
        (name,) = (node.input[1] for node in model.graph.node if node.name == layer)
        (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        changed = KINDS[kind](onnx.numpy_helper.to_array(weight))
        weight.CopyFrom(onnx.numpy_helper.from_array(changed, name))
        folder = tmp_path_factory.mktemp("altered") / whole.path.name
        return write_bundle(
            folder, whole.manifest, {whole.manifest.primary: model.SerializeToString()}
        )

    return make
