"""The ncnn probe gives every activation as its layer computed it, whatever else is requested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface.bundle import Bundle, write_bundle
from edgeface.errors import ImageError
from edgeface.formats.ncnn import NcnnModel, dump_bin, dump_param, parse_model
from edgeface.probes import open_probe
from edgeface.runners import open_runner

pytest.importorskip("ncnn", reason="ncnn is not installed")
pytest.importorskip("pnnx", reason="pnnx is not installed")


@pytest.fixture(scope="module")
def bundle(exported: Callable[..., Bundle]) -> Bundle:
    return exported("ncnn")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> NcnnModel:
    return parse_model(bundle.read(), bundle.read("edgeface-n.bin"))


@pytest.fixture(scope="module")
def int8(bundle: Bundle, image: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from quantize.ncnn import NcnnQuantizer

    files = NcnnQuantizer(bundle, list(image), "max").quantize().files
    return write_bundle(
        tmp_path_factory.mktemp("int8") / "b",
        replace(bundle.manifest, precision="int8"),
        {f"edgeface-n{suffix}": content for suffix, content in files.items()},
    )


def test_every_activation_in_order(bundle: Bundle, model: NcnnModel, image: Any) -> None:
    with open_probe(bundle) as probe:
        tensors = probe.run(image)
        assert [t.layer for t in probe.tensors] == [
            one.name for one in model.layers if one.type != "Split"
        ]
        assert (probe.tensors[0].name, probe.tensors[0].operator) == ("input", "Input")
        assert list(tensors) == [t.name for t in probe.tensors]
    shapes = model.shapes(160, 128)
    for name, value in tensors.items():
        channels, height, width = shapes[name]
        assert value.shape == (1, height, width, channels) and value.dtype == np.float32
        assert value.flags["C_CONTIGUOUS"]
    assert np.array_equal(tensors["input"], image)


@pytest.mark.parametrize("which", ["bundle", "int8"])
def test_outputs_are_the_runners(which: str, request: pytest.FixtureRequest, image: Any) -> None:
    bundle = request.getfixturevalue(which)
    with open_probe(bundle) as probe, open_runner(bundle) as runner:
        first, second, expected = probe.run(image), probe.run(image), runner.run(image)
    assert all(np.array_equal(first[name], value) for name, value in expected.items())
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_each_is_what_a_file_that_ends_there_gives(
    bundle: Bundle, model: NcnnModel, image: Any, tmp_path: Path
) -> None:
    """Layers that work in place (ReLU) neither overwrite their input nor are skipped.

    ncnn itself gives the same values for a file that ends at the layer."""
    import ncnn

    with open_probe(bundle) as probe:
        tensors = probe.run(image)
    for i in range(1, len(model.layers), 4):
        part = NcnnModel(model.layers[: i + 1])
        (tmp_path / "m.param").write_bytes(dump_param(part))
        (tmp_path / "m.bin").write_bytes(dump_bin(part))
        net = ncnn.Net()
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        assert (
            net.load_param(str(tmp_path / "m.param"))
            == net.load_model(str(tmp_path / "m.bin"))
            == 0
        )
        extractor = net.create_extractor()
        pixels = np.ascontiguousarray(image[0].transpose(2, 0, 1), np.float32)
        extractor.input("input", ncnn.Mat(pixels).clone())
        name = part.layers[-1].tops[0]
        value = np.array(extractor.extract(name)[1]).transpose(1, 2, 0)
        if name in tensors:
            np.testing.assert_allclose(tensors[name][0], value, atol=1e-5)  # threads split sums


def test_before_and_after_a_relu(bundle: Bundle, model: NcnnModel, image: Any) -> None:
    with open_probe(bundle) as probe:
        tensors = probe.run(image)
    relus = [one for one in model.layers if one.type == "ReLU"]
    assert relus
    for one in relus:
        before = tensors[one.bottoms[0]]
        assert before.min() < 0 and np.array_equal(np.maximum(before, 0), tensors[one.tops[0]])


def test_int8_activations_are_real_values(bundle: Bundle, int8: Bundle, image: Any) -> None:
    """Activations passed on in INT8 are near the float tensor and on the levels of their scale."""
    quantised = parse_model(int8.read(), int8.read("edgeface-n.bin"))
    chain = [one for one in quantised.layers if one.requantises]
    assert chain
    with open_probe(bundle) as one, open_probe(int8) as other:
        expected, found = one.run(image), other.run(image)
    for layer in chain:
        name, scale = layer.tops[0], layer.weights["top_scale"][0]
        levels = found[name] * scale
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        assert np.abs(levels).max() < 127.5
        assert np.corrcoef(found[name].ravel(), expected[name].ravel())[0, 1] > 0.99


def test_wrong_sizes(bundle: Bundle) -> None:
    with open_probe(bundle) as probe, pytest.raises(ImageError, match="cannot run at 96x64 px"):
        probe.run(np.zeros((1, 64, 96, 3), np.uint8))
