"""INT8 for TFLite: content of the file, distance from float, effect of keeping layers in float."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flat_tables import buffers_behind

from edgeface.bundle import Bundle, write_bundle
from edgeface.detector import Detector
from edgeface.errors import BundleError, QuantizeError
from edgeface.images import letterbox, read_image
from edgeface.runners import open_runner

if TYPE_CHECKING:
    from quantize.tflite import Graph, TFLiteQuantizer

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
Make = Callable[..., Bundle]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images(astronaut: Any, hopper_path: Path, lively_size: tuple[int, int]) -> list[Any]:
    """Eight photos of the network's size: both portraits, whole and cropped, plain and mirrored."""
    photos = [
        astronaut,
        astronaut[40:260, 120:340],
        read_image(hopper_path),
        read_image(hopper_path)[50:400],
    ]
    return [
        letterbox(np.ascontiguousarray(p[:, ::s]), *lively_size)[0] for p in photos for s in (1, -1)
    ]


@pytest.fixture(scope="module")
def floats(exported: Make) -> Bundle:
    return exported("tflite")


@pytest.fixture(scope="module")
def quantizer(floats: Bundle, images: list[Any]) -> TFLiteQuantizer:
    from quantize.tflite import TFLiteQuantizer

    return TFLiteQuantizer(floats, images, "max")


@pytest.fixture(scope="module")
def made(
    quantizer: TFLiteQuantizer, floats: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Make:
    """``made(reverted=())`` -> int8 Bundle, made once for each ``reverted``."""
    from quantize.measure import int8_manifest, named_files

    known: dict[tuple[str, ...], Bundle] = {}

    def make(reverted: Collection[str] = ()) -> Bundle:
        key = tuple(reverted)
        if key not in known:
            quantized = quantizer.quantize(reverted)
            manifest = int8_manifest(floats.manifest, quantized)
            known[key] = write_bundle(
                tmp_path_factory.mktemp("int8") / "b", manifest, named_files(manifest, quantized)
            )
        return known[key]

    return make


def graph(bundle: Bundle) -> Graph:
    from quantize.tflite import Graph

    return Graph.read(bundle.read())


def heads(bundle: Bundle, images: list[Any]) -> list[dict[str, Any]]:
    with open_runner(bundle) as runner:
        return [runner.run(image[None]) for image in images]


def noise_db(reference: list[dict[str, Any]], found: list[dict[str, Any]], head: str) -> float:
    """Signal-to-noise ratio of a head in dB, without its mean, which carries no information."""
    exact = np.concatenate([heads[head].ravel() for heads in reference]).astype(np.float64)
    error = np.concatenate([heads[head].ravel() for heads in found]) - exact
    return float(10 * np.log10(exact.var() / np.mean(error**2)))


def test_int8_in_and_out(made: Make) -> None:
    bundle = made()
    manifest, found = bundle.manifest, graph(bundle)
    assert manifest.input.dtype == "int8"
    source = found.operators[0].inputs[0]
    assert found.scales[source] == (1.0, -128.0)
    assert manifest.output_quantization is not None
    for ours, theirs in manifest.outputs.items():
        assert found.scales[found.outputs[theirs]] == manifest.output_quantization[ours]


def test_every_operator_is_int8_and_weights_have_a_scale_per_channel(
    made: Make, floats: Bundle
) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    before, after = graph(floats).operators, graph(made()).operators
    assert [op.kind for op in after] == [op.kind for op in before]  # none inserted
    assert all(op.quantized for op in after) and not any(op.quantized for op in before)
    subgraph = flatbuffer_utils.read_model_from_bytearray(bytearray(made().read())).subgraphs[0]
    weights = [
        t
        for t in subgraph.tensors
        if t.type == schema.TensorType.INT8
        and t.quantization.scale is not None
        and len(t.shape) == 4
        and t.buffer
        and len(t.quantization.scale) == t.shape[0] > 1
    ]
    convolutions = [op for op in after if op.kind == "CONV_2D"]
    single = sum(
        op.outputs[0].startswith("serving_default_cls") for op in convolutions
    )  # one channel, one scale
    assert len(weights) == len(convolutions) - single and single == 3
    assert all(np.all(np.asarray(w.quantization.zeroPoint) == 0) for w in weights)


def test_weights_are_where_older_runtimes_look(made: Make, quantizer: TFLiteQuantizer) -> None:
    assert buffers_behind(made().read()) == 0
    assert buffers_behind(made(quantizer.layers[:1]).read()) == 0


def test_errors_of_the_weights_that_read_pixels_cancel(made: Make, floats: Bundle) -> None:
    """Each kernel plane keeps at most half a step of error; rounding each weight by itself would
    leave several."""
    from ai_edge_litert.tools import flatbuffer_utils

    def first(bundle: Bundle) -> tuple[Any, Any]:
        model = flatbuffer_utils.read_model_from_bytearray(bytearray(bundle.read()))
        tensors = model.subgraphs[0].tensors
        filters = tensors[model.subgraphs[0].operators[0].inputs[1]]
        return filters, np.asarray(model.buffers[filters.buffer].data, np.uint8)

    float_filters, data = first(floats)
    exact = data.view(np.float32).reshape(float_filters.shape)
    filters, data = first(made())
    rounded = data.view(np.int8).reshape(filters.shape)
    scale = np.asarray(filters.quantization.scale, np.float64)[:, None, None, None]
    np.testing.assert_allclose(scale.ravel(), np.abs(exact).max((1, 2, 3)) / 127, rtol=1e-6)
    steps = exact / scale

    def left(weights: Any) -> float:
        return float(np.abs((weights - steps).sum((1, 2))).max())

    assert left(rounded) <= 0.5 + 1e-3 < 1 < left(np.rint(steps))
    assert np.abs(rounded - steps).max() <= 1 + 1e-4


def test_names_of_the_layers(quantizer: TFLiteQuantizer) -> None:
    assert quantizer.layers[:5] == (
        "backbone.stem",
        "backbone.0.0",
        "backbone.0.1.first",
        "backbone.0.1.second",
        "backbone.1.0",
    )
    assert quantizer.layers[-2:] == ("cls_32", "box_32") and len(set(quantizer.layers)) == 24
    assert quantizer.float_layers == ()


@pytest.mark.parametrize("scale", ["max", "mse", "percentile", "kl"])
def test_noise_of_the_heads(scale: str, floats: Bundle, images: list[Any], tmp_path: Path) -> None:
    """Each head has at least 20 dB: over all four scales, the worst head has 26 dB.

    One rounding to 256 levels over a range of six standard deviations leaves 43 dB; about twenty in
    a row cost 13 dB. A wrong zero point, scale or order of channels leaves less than 10 dB.
    """
    from quantize.measure import int8_manifest, named_files
    from quantize.tflite import TFLiteQuantizer

    quantized = TFLiteQuantizer(floats, images, scale).quantize()
    manifest = int8_manifest(floats.manifest, quantized)
    bundle = write_bundle(tmp_path / "b", manifest, named_files(manifest, quantized))
    reference, found = heads(floats, images), heads(bundle, images)
    figures = {head: noise_db(reference, found, head) for head in reference[0]}
    assert min(figures.values()) > 20, figures


def test_same_boxes_as_float(made: Make, floats: Bundle, astronaut: Any) -> None:
    """Nine of ten boxes are within half a px of the network's input, which is 2 px of the photo,
    and their scores within .03.

    The random network finds clusters of boxes with nearly equal scores, so rounding sometimes lets
    another box of a cluster win.
    """

    def detect(bundle: Bundle, threshold: float) -> Any:
        with Detector(open_runner(bundle), score_threshold=threshold) as detector:
            return detector.detect(astronaut)

    reference, found = detect(floats, 0.35), detect(made(), 0.3)
    assert len(reference) > 20
    distances = np.abs(reference.boxes[:, None] - found.boxes[None]).max(axis=2)
    near = distances.min(axis=1) < 2
    assert near.mean() >= 0.9
    partners = found.scores[distances.argmin(axis=1)]
    np.testing.assert_allclose(partners[near], reference.scores[near], atol=0.03)


def test_keeping_a_layer_in_float(made: Make, quantizer: TFLiteQuantizer) -> None:
    """The layer gets a DEQUANTIZE and a QUANTIZE around it; everything else is unchanged."""
    bundle = made(("backbone.1.1.first",))
    found, before = graph(bundle).operators, graph(made()).operators
    kinds = [(op.kind, op.quantized) for op in found]
    at = kinds.index(("DEQUANTIZE", False))
    assert kinds[at : at + 3] == [("DEQUANTIZE", False), ("CONV_2D", False), ("QUANTIZE", True)]
    assert [*kinds[:at], ("CONV_2D", True), *kinds[at + 3 :]] == [
        (op.kind, op.quantized) for op in before
    ]
    assert quantizer.layers[6] == "backbone.1.1.second" and before[at + 1].kind == "CONV_2D"
    assert bundle.manifest.output_quantization is not None


def test_keeping_neighbours_takes_along_what_is_between(made: Make) -> None:
    """PAD between two kept layers and the sum of two stay in float, with no detour through int8."""
    found = graph(
        made(("backbone.stem", "backbone.0.0", "backbone.0.1.first", "backbone.0.1.second"))
    ).operators
    kinds = [(op.kind, op.quantized) for op in found]
    assert kinds[:7] == [
        ("DEQUANTIZE", False),
        ("CONV_2D", False),
        ("PAD", False),
        ("CONV_2D", False),
        ("CONV_2D", False),
        ("CONV_2D", False),
        ("ADD", False),
    ]
    assert all(quantized for kind, quantized in kinds[7:] if kind == "CONV_2D")


def test_keeping_an_output_makes_the_outputs_float(made: Make, images: list[Any]) -> None:
    """The other outputs are the same numbers as in int8, dequantised in the file, not by us."""
    bundle = made(("cls_16",))
    assert bundle.manifest.output_quantization is None and bundle.manifest.input.dtype == "int8"
    for kept, rounded in zip(heads(bundle, images), heads(made(), images), strict=True):
        for head in set(kept) - {"cls_16"}:
            np.testing.assert_allclose(kept[head], rounded[head], rtol=1e-6)


def test_keeping_everything_leaves_no_operator_in_int8(
    made: Make, quantizer: TFLiteQuantizer
) -> None:
    assert not any(op.quantized for op in graph(made(quantizer.layers)).operators)


def test_what_the_tool_refuses(quantizer: TFLiteQuantizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizer, "_statistics", {})
    with pytest.raises(
        QuantizeError, match="ai-edge-quantizer cannot quantise this file: "
    ) as caught:
        quantizer.quantize()
    assert "\n" not in str(caught.value)


def test_same_bytes_again_and_in_another_process(
    made: Make,
    floats: Bundle,
    images: list[Any],
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "images.npy", np.stack(images))
    code = (
        "import sys, hashlib, numpy as np\nfrom edgeface.bundle import Bundle\nfrom quantize.tflite"
        " import TFLiteQuantizer\nmade = TFLiteQuantizer(Bundle.open(sys.argv[1]),"
        " list(np.load(sys.argv[2])),"
        " 'max').quantize(['neck.1'])\nprint(hashlib.sha256(made.files['.tflite']).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(floats.path), str(tmp_path / "images.npy")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    manifest = made(("neck.1",)).manifest
    assert run.stdout.strip() == manifest.files[manifest.primary]
    assert run.stderr == ""  # neither progress bars nor messages of the C++ side


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "float32"}, "tensor 'input' is int8, its manifest says float32"),
        ({"output_quantization": None}, r"tensor '\w+_\d+' is int8, its manifest says float32"),
        ({"scale": 2.0}, "int8 tensor 'box_16' has scale .* and zero point .*, its manifest says"),
        (
            {"zero_point": 1},
            "int8 tensor 'box_16' has scale .* and zero point .*, its manifest says",
        ),
    ],
)
def test_a_manifest_that_says_something_else(
    made: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    manifest = made().manifest
    scales = dict(manifest.output_quantization or {})
    scale, zero_point = scales["box_16"]
    scales["box_16"] = (scale * change.get("scale", 1), zero_point + change.get("zero_point", 0))
    other = dataclasses.replace(
        manifest,
        contract=None,
        input=dataclasses.replace(manifest.input, dtype=change.get("input", "int8")),
        output_quantization=change.get("output_quantization", scales),
    )
    bundle = write_bundle(tmp_path / "b", other, {manifest.primary: made().read()})
    with pytest.raises(BundleError, match=message):
        open_runner(bundle)


def test_a_float_file_that_claims_int8(floats: Bundle, made: Make, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", made().manifest, {floats.manifest.primary: floats.read()})
    with pytest.raises(
        BundleError,
        match="tensor 'input' is float32, its manifest says int8: export the model again",
    ):
        open_runner(bundle)


def test_an_input_that_is_not_pixel_minus_128(
    floats: Bundle, images: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantize import tflite
    from quantize.measure import int8_manifest, named_files

    monkeypatch.setattr(tflite, "PIXEL_RANGE", (0.0, 200.0))
    quantized = tflite.TFLiteQuantizer(floats, images[:1], "max").quantize()
    manifest = int8_manifest(floats.manifest, quantized)
    bundle = write_bundle(tmp_path / "b", manifest, named_files(manifest, quantized))
    with pytest.raises(
        BundleError,
        match=r"int8 tensor 'input' has scale 0\.784314 and zero point -128, its manifest "
        "says 1 and -128: quantise the model again",
    ):
        open_runner(bundle)


def test_the_int8_runner_keeps_its_hands_off(made: Make, images: list[Any]) -> None:
    """It takes any memory layout, leaves the batch unchanged, and repeats the same bits."""
    batch = images[0][None]
    before = batch.copy()
    with open_runner(made()) as runner:
        first = runner.run(batch)
        mirrored = runner.run(batch[:, :, ::-1])
        plain = runner.run(np.ascontiguousarray(batch[:, :, ::-1]))
        again = runner.run(batch)
    assert np.array_equal(batch, before)
    for head, value in first.items():
        assert np.array_equal(value, again[head]) and np.array_equal(mirrored[head], plain[head])
        assert value.dtype == np.float32 and value.flags["C_CONTIGUOUS"]
        assert not np.array_equal(value, plain[head])


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["damofd-0.5g-bn", "scrfd-0.5g-bn", "damofd-2.5g-bn", "scrfd-2.5g-bn"]
)
def test_published_networks(model: str, astronaut: Any, hopper_path: Path, tmp_path: Path) -> None:
    """Nearest resize, pools, depthwise convolutions and the border of mean pixels all have int8
    kernels."""
    from export import ExportRequest, export_model
    from export.source import random_source
    from quantize.measure import int8_manifest, named_files
    from quantize.tflite import TFLiteQuantizer

    floats = export_model(
        random_source(model, seed=0), ExportRequest("tflite", "fp32", 320, 256), tmp_path
    ).bundle
    photos = [letterbox(photo, 320, 256)[0] for photo in (astronaut, read_image(hopper_path))]
    quantizer = TFLiteQuantizer(floats, photos, "max")
    assert quantizer.float_layers == ()
    for reverted in ((), quantizer.layers):
        quantized = quantizer.quantize(reverted)
        manifest = int8_manifest(floats.manifest, quantized)
        bundle = write_bundle(tmp_path / "int8", manifest, named_files(manifest, quantized))
        assert all(op.quantized for op in graph(bundle).operators) == (not reverted)
        reference, found = heads(floats, photos), heads(bundle, photos)
        if reverted:
            for head, value in reference[0].items():
                np.testing.assert_allclose(found[0][head], value, atol=1e-4)
        else:  # 40 to 80 layers of 256 levels
            assert min(noise_db(reference, found, head) for head in reference[0]) > 12
