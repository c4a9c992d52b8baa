"""The TFLite and torch probes: every activation, as the runner and the network compute it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeface.bundle import Bundle, write_bundle
from edgeface.errors import MissingExtraError
from edgeface.probes import Probe, open_probe
from edgeface.probes.tflite import layer_names
from edgeface.runners import open_runner
from edgeface.runners.torch import TorchRunner

if TYPE_CHECKING:
    from export import Source

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
ROOT = Path(__file__).parents[2]
Make = Callable[..., Bundle]


@pytest.fixture(scope="module")
def int8(exported: Make, image: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One layer stays in float, so that the file contains QUANTIZE and DEQUANTIZE."""
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    from quantize.measure import int8_manifest, named_files
    from quantize.tflite import TFLiteQuantizer

    floats = exported("tflite")
    quantized = TFLiteQuantizer(floats, [image[0]], "max").quantize(["neck.1"])
    manifest = int8_manifest(floats.manifest, quantized)
    return write_bundle(
        tmp_path_factory.mktemp("int8") / "b", manifest, named_files(manifest, quantized)
    )


@pytest.fixture(params=["fp32", pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def bundle(request: pytest.FixtureRequest, exported: Make) -> Bundle:
    if request.param == "int8":
        made: Bundle = request.getfixturevalue("int8")
        return made
    return exported("tflite", request.param)


def by_layer(probe: Probe, image: Any) -> dict[str, Any]:
    values = probe.run(image)
    return {tensor.layer: values[tensor.name] for tensor in probe.tensors}


def test_every_activation_in_order(bundle: Bundle, image: Any) -> None:
    with open_probe(bundle) as probe:
        values = probe.run(image)
        tensors = probe.tensors
    assert list(values) == [tensor.name for tensor in tensors]
    assert (tensors[0].layer, tensors[0].operator) == ("input", "INPUT")
    assert np.array_equal(values[tensors[0].name], image)
    layers = [tensor.layer for tensor in tensors]
    inserted = [layer for layer in layers if "quantize" in layer]
    assert (
        len(layers) == len(set(layers)) == 36 + len(inserted)
    )  # 24 convolutions, 6 sums, 3 pads, 2 resizes, input
    assert layers.index("backbone.stem") == 1 and layers.index("cls_8") < layers.index("box_8")
    assert len(inserted) == (2 if bundle.manifest.precision == "int8" else 0)
    for value in values.values():
        assert value.dtype == np.float32 and value.ndim == 4 and value.shape[0] == 1


def test_the_heads_are_those_of_the_runner_bit_by_bit(bundle: Bundle, image: Any) -> None:
    with open_probe(bundle) as probe, open_runner(bundle) as runner:
        for photo in (image, 255 - image):
            values, heads = by_layer(probe, photo), runner.run(photo)
            assert all(np.array_equal(values[name], head) for name, head in heads.items())


def test_a_runtime_that_cannot_split_partitions(
    bundle: Bundle, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without XNNPACK, float results differ by rounding, INT8 results by a few of 255 steps."""
    with open_probe(bundle) as probe:
        expected = by_layer(probe, image)
    monkeypatch.setattr("edgeface.probes.tflite._SINGLE", "no_such_option")
    with open_probe(bundle) as probe:
        found = by_layer(probe, image)
    assert list(found) == list(expected)
    for layer, value in expected.items():
        share = 0.05 if bundle.manifest.precision == "int8" else 1e-5
        np.testing.assert_allclose(found[layer], value, atol=share * np.ptp(value), err_msg=layer)


def test_as_the_network_in_torch_computes_it(exported: Make, lively: Source, image: Any) -> None:
    """Modules have the same names in both, except lists, which torch never calls."""
    from edgeface.probes.torch import TorchProbe

    with (
        TorchProbe(TorchRunner(lively.network)) as torch_probe,
        open_probe(exported("tflite")) as probe,
    ):
        reference, found = by_layer(torch_probe, image), by_layer(probe, image)
    compared = 0
    for layer, value in reference.items():
        short = layer.replace(".stages.", ".").replace("lateral.", "").replace("tower.", "")
        if short in found and found[short].shape == value.shape:
            np.testing.assert_allclose(found[short], value, atol=1e-4, err_msg=layer)
            compared += 1
    assert (
        compared == 1 + 12 + 3 + 3 + 6
    )  # the input, the convolutions of backbone, neck and towers, the outputs


def test_torch_probe(lively: Source, image: Any) -> None:
    from edgeface.probes.torch import TorchProbe

    runner = TorchRunner(lively.network)
    heads = runner.run(image)
    probe = TorchProbe(runner)
    values = probe.run(image)
    assert list(values) == [tensor.name for tensor in probe.tensors]
    assert probe.tensors[0].layer == "input" and probe.tensors[-1].layer == "box_32"
    assert {"backbone.stem", "backbone.stages.0.1.first.conv", "neck.lateral.2"} <= set(values)
    assert all(np.array_equal(values[name], head) for name, head in heads.items())
    small = np.zeros((1, 96, 64, 3), np.uint8)
    assert probe.run(small)["cls_32"].shape == (1, 3, 2, 1)
    probe.close()


def test_torch_probe_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeface.probes.torch import TorchProbe

    monkeypatch.setattr("edgeface.probes.torch.has_module", lambda name: False)
    with pytest.raises(
        MissingExtraError, match=r"looking into edgeface-n by name .*edgeface\[zoo\]"
    ):
        TorchProbe.open("edgeface-n")


def test_layer_names() -> None:
    top = (
        "export.NamedHeads/edgeface.models.detector.FaceNet_wrapped/"
        "edgeface.models.convnet.ConvNet_backbone/"
    )
    block = top + "torch.nn.modules.container.Sequential_0/edgeface.models.blocks.ConvNorm_0"
    conv = "/torch.nn.modules.conv.Conv2d_conv;1"
    named = layer_names(
        [
            (block + conv, "PAD"),
            (f"{block};;{block}{conv}", "CONV_2D"),
            (f"{block};;{top}other;", "DEPTHWISE_CONV_2D"),
            ("serving_default_cls_8_output", "CONV_2D"),
            ("serving_default_cls_8_output_dequant", "DEQUANTIZE"),
            ("strange", "CONV_2D"),
            ("strange", "CONV_2D"),
            ("a/b.c_d", "RESHAPE"),
        ]
    )
    assert named == (
        "backbone.0.0.pad",
        "backbone.0.0",
        "backbone.0.0:2",
        "cls_8",
        "cls_8.dequantize",
        "strange",
        "strange:2",
        "a.d.reshape",
    )


def test_nothing_is_said_on_stderr(exported: Make) -> None:
    """LiteRT prints a greeting from C++ when it is first loaded in a process."""
    code = (
        "import sys\nfrom edgeface.bundle import Bundle\nfrom edgeface.probes import open_probe\n"
        "from edgeface.runners import open_runner\nbundle = Bundle.open(sys.argv[1])\n"
        "open_runner(bundle).close()\nopen_probe(bundle).close()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(exported("tflite").path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
