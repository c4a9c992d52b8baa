"""The ONNX Runtime and OpenVINO probes: equal names, and the values that the runners compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeface.bundle import Bundle
from edgeface.errors import MissingExtraError
from edgeface.probes import Tensors, open_probe
from edgeface.runners import open_runner
from export import ExportRequest, export_model
from export.source import random_source

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

HEADS = ("cls_8", "box_8", "cls_16", "box_16", "cls_32", "box_32")
Make = Callable[..., Bundle]
each_target = pytest.mark.parametrize("target", ["onnx", "openvino"])


def _tensors(bundle: Bundle, image: Any) -> Tensors:
    with open_probe(bundle) as probe:
        values = probe.run(image)
        assert tuple(values) == tuple(tensor.name for tensor in probe.tensors)
    return values


@each_target
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_heads_are_those_of_the_runner(
    target: str, precision: str, exported: Make, image: Any
) -> None:
    bundle = exported(target, precision)
    values = _tensors(bundle, image)
    with open_runner(bundle) as runner:
        for name, expected in runner.run(image).items():
            # Fused and unfused kernels add up in another order.
            np.testing.assert_allclose(values[bundle.manifest.outputs[name]], expected, atol=1e-4)


@each_target
def test_every_activation_in_order(target: str, exported: Make, image: Any) -> None:
    with open_probe(exported(target)) as probe:
        tensors, values = probe.tensors, probe.run(image)
    assert (tensors[0].name, tensors[0].operator) == ("input", "Input")
    np.testing.assert_array_equal(values["input"], image)
    operators = [tensor.operator for tensor in tensors]
    assert sum("Conv" in operator for operator in operators) == 24
    assert {"Relu", "Add"} < set(operators) and len({tensor.name for tensor in tensors}) == len(
        tensors
    ) == 51
    assert not {"Constant", "Result", "Cast", "Convert"} & set(operators)
    for value in values.values():
        assert (
            value.dtype == np.float32
            and value.ndim == 4
            and value.shape[1] % 4 == value.shape[2] % 5 == 0
        )
    assert set(HEADS) < set(values)


@pytest.mark.parametrize("model", ["edgeface-n", "damofd-0.5g"])
def test_both_have_the_same_names_and_values(model: str, image: Any, tmp_path: Any) -> None:
    """Also with group normalisation, which OpenVINO splits into several operations."""
    source = random_source(model, 0)
    bundles = [
        export_model(source, ExportRequest(target, "fp32", 160, 128), tmp_path).bundle
        for target in ("onnx", "openvino")
    ]
    one, other = (_tensors(bundle, image) for bundle in bundles)
    assert set(one) == set(other)
    for name, value in one.items():
        # float32 rounding, layer by layer
        np.testing.assert_allclose(other[name], value, atol=2e-5 * np.abs(value).max())
    layers = []
    for bundle in bundles:
        with open_probe(bundle) as probe:
            layers.append(
                {tensor.name: tensor.layer for tensor in probe.tensors if "Conv" in tensor.operator}
            )
    assert layers[0] == layers[1]


@each_target
def test_int8_has_the_names_of_the_float_file(target: str, exported: Make, image: Any) -> None:
    floats, rounded = _tensors(exported(target), image), _tensors(exported(target, "int8"), image)
    assert set(rounded) <= set(floats) and set(HEADS) < set(rounded)
    np.testing.assert_array_equal(rounded["input"], image)
    layers = [name for name in rounded if name not in HEADS]
    assert all(len(np.unique(rounded[name])) <= 256 for name in layers if "Add_output" not in name)
    for name in layers[:6]:  # noise accumulates in later layers
        assert np.mean((rounded[name] - floats[name]) ** 2) < 0.02 * floats[name].var(), name


def test_int8_onnx_is_what_the_runner_computes(exported: Make, image: Any) -> None:
    """INT8 tensors are read unchanged, so nothing is rounded differently."""
    bundle = exported("onnx", "int8")
    values = _tensors(bundle, image)
    with open_runner(bundle) as runner:
        for name, expected in runner.run(image).items():
            np.testing.assert_allclose(values[name], expected, atol=1e-6)


def test_without_the_onnx_package(exported: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = exported("onnx")
    monkeypatch.setattr("edgeface.probes.onnxruntime.has_module", lambda name: False)
    with pytest.raises(
        MissingExtraError, match=r"looking inside an onnx file needs the package 'onnx'"
    ):
        open_probe(bundle)
