"""``edgeface compare``: a file that was altered in one known layer is found out, and an unaltered
one is not."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from commands import Command, failed
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeface.bundle import Bundle, write_bundle
from edgeface.images import letterbox
from edgeface.probes import TensorInfo
from edgeface.probes.align import PAIR_BONUS, Side, monotone
from edgeface.probes.compare import Comparison, Pair, Subject, compare, compare_sides
from edgeface.runners.torch import TorchRunner

if TYPE_CHECKING:
    from export import Source

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("torch", reason="torch is not installed")
Make = Callable[..., Bundle]
Alter = Callable[[str, str], Bundle]
TARGETS = ("onnx", "tflite", "openvino", "ncnn")

LAYERS = {  # convolution in the ONNX file -> layer of the TFLite file
    "/backbone/stem/conv/Conv": "backbone.stem",
    "/backbone/stages.0/stages.0.1/first/conv/Conv": "backbone.0.1.first",
    "/backbone/stages.2/stages.2.2/second/conv/Conv": "backbone.2.2.second",
    "/neck/lateral.1/conv/Conv": "neck.1",
    "/head/tower.2/layers/layers.0/conv/Conv": "head.2.layers.0",
    "/head/cls.0/conv/Conv": "cls_8",
    "/head/box.2/conv/Conv": "box_32",
}
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
def alter(exported: Make, tmp_path_factory: pytest.TempPathFactory) -> Alter:
    """``alter(layer, kind)`` -> the ONNX Bundle with the weight of one convolution changed."""
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


@pytest.fixture(scope="module")
def int8(
    exported: Make,
    photo: Any,
    lively_size: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Make:
    """``int8(broken="")`` -> TFLite int8, the range of layer ``broken`` a fiftieth of what it
    needs."""
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    from quantize.measure import int8_manifest, named_files
    from quantize.tflite import TFLiteQuantizer

    floats = exported("tflite")

    def make(broken: str = "") -> Bundle:
        quantizer = TFLiteQuantizer(floats, [letterbox(photo, *lively_size)[0]], "max")
        if broken:
            for ends in quantizer._statistics[quantizer._layers[broken].outputs[0]].values():
                ends /= 50
        quantized = quantizer.quantize()
        manifest = int8_manifest(floats.manifest, quantized)
        return write_bundle(
            tmp_path_factory.mktemp("int8") / "b", manifest, named_files(manifest, quantized)
        )

    return make


def compared(a: Bundle, b: Bundle, photo: Any, tolerance: float | None = None) -> Comparison:
    return compare(Subject.of_bundle(a), Subject.of_bundle(b), photo, tolerance)


def parted(comparison: Comparison) -> Pair:
    assert comparison.parting is not None
    return comparison.pairs[comparison.parting]


@pytest.mark.parametrize("layer", LAYERS)
def test_an_altered_layer_of_the_same_target(
    exported: Make, alter: Alter, photo: Any, layer: str
) -> None:
    """By name: the very convolution, and what was computed before it is equal bit by bit."""
    comparison = compared(exported("onnx"), alter(layer, "noise"), photo)
    pair = parted(comparison)
    assert (pair.a.layer, pair.b.layer, pair.a.operator) == (layer, layer, "Conv")
    assert comparison.parting is not None and comparison.before(comparison.parting) == 0
    assert not comparison.alone_a and not comparison.alone_b
    assert 0.003 < pair.rel_rms < 0.3
    assert (
        pair.snr_db >= -20 * np.log10(pair.rel_rms) - 1e-6
    )  # the power includes the square of the mean


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        *((layer, "noise") for layer in LAYERS),
        *((layer, "sign") for layer in LAYERS),
        ("/backbone/stages.0/stages.0.1/first/conv/Conv", "zero"),
        ("/neck/lateral.1/conv/Conv", "zero"),
        ("/backbone/stages.0/stages.0.1/first/conv/Conv", "nan"),
    ],
)
def test_an_altered_layer_across_targets(
    exported: Make, alter: Alter, photo: Any, layer: str, kind: str
) -> None:
    """The layer of the TFLite file is the altered one; of ONNX it is that convolution or the ReLU
    behind it."""
    comparison = compared(alter(layer, kind), exported("tflite"), photo)
    pair = parted(comparison)
    assert pair.b.layer == LAYERS[layer]
    assert pair.a.layer in (layer, layer.replace("/conv/Conv", "/Relu"))
    assert comparison.parting is not None and comparison.before(comparison.parting) < 1e-4
    assert len(comparison.pairs) >= 30


@pytest.mark.parametrize(("a", "b"), itertools.combinations(TARGETS, 2))
def test_equal_files_do_not_part(exported: Make, photo: Any, a: str, b: str) -> None:
    """At least the 24 convolutions, the input and the sums of every pair of runtimes, within float
    rounding."""
    comparison = compared(exported(a), exported(b), photo)
    assert comparison.parting is None
    assert len(comparison.pairs) >= 31 and max(pair.rel_rms for pair in comparison.pairs) < 5e-5
    partners = [pair.b.layer for pair in comparison.pairs]
    assert len(set(partners)) == len(partners)
    lines = comparison.sentences()
    assert lines[0].startswith(f"A and B agree: {len(comparison.pairs)} tensors within 0.001")


@pytest.mark.parametrize("target", TARGETS[1:])
def test_landmarks_are_paired_like_other_outputs(exported: Make, photo: Any, target: str) -> None:
    one, other = (exported(name, landmarks=True) for name in ("onnx", target))
    comparison = compared(one, other, photo)
    assert comparison.parting is None and len(comparison.pairs) >= 34
    shapes = [pair.shape for pair in comparison.pairs if pair.shape[-1] == 10]
    assert shapes == [(1, 16, 20, 10), (1, 8, 10, 10), (1, 4, 5, 10)]


def test_partners_are_the_same_modules(exported: Make, photo: Any) -> None:
    """ONNX names its nodes after modules too: no tensor is paired with a neighbour's."""

    def module(node: str) -> str:
        """``/backbone/stages.0/stages.0.1/first/conv/Conv`` -> ``backbone.0.1.first``, as
        litert-torch has it."""
        steps: list[str] = []
        for step in node.strip("/").split("/")[:-1]:
            if steps and step.startswith(f"{steps[-1]}."):
                steps[-1] = step
            elif step != "conv":
                steps.append(step)
        return ".".join(steps).replace("stages.", "").replace("lateral.", "").replace("tower.", "")

    pairs = [
        pair
        for pair in compared(exported("onnx"), exported("tflite"), photo).pairs
        if pair.b.operator == "CONV_2D" and not pair.b.layer.startswith(("cls_", "box_"))
    ]
    assert [pair.b.layer for pair in pairs] == [module(pair.a.layer) for pair in pairs] and len(
        pairs
    ) == 18


def test_a_file_with_itself(exported: Make, photo: Any) -> None:
    comparison = compared(exported("tflite"), exported("tflite"), photo)
    assert comparison.parting is None and comparison.jump is None and len(comparison.pairs) == 36
    assert all(
        (pair.max_abs, pair.rel_rms, pair.snr_db) == (0, 0, float("inf"))
        for pair in comparison.pairs
    )


def test_a_file_of_any_size_takes_the_size_of_the_other(exported: Make, photo: Any) -> None:
    comparison = compared(exported("onnx", "fp32", True), exported("tflite"), photo)
    assert comparison.parting is None and comparison.pairs[0].shape == (1, 128, 160, 3)


def test_the_network_in_torch_as_reference(
    exported: Make, lively: Source, photo: Any, lively_size: tuple[int, int]
) -> None:
    from edgeface.probes.torch import TorchProbe

    batch = letterbox(photo, *lively_size)[0][None]
    file = Subject.of_bundle(exported("tflite"))
    with TorchProbe(TorchRunner(lively.network)) as torch_probe, file.open() as probe:
        names = {name: name for name in file.outputs}
        comparison = compare_sides(
            "torch",
            Side.look(torch_probe, batch, names),
            "tflite",
            Side.look(probe, batch, file.outputs),
            1e-3,
        )
    assert comparison.parting is None and len(comparison.pairs) == 29


def test_torch_by_zoo_name(photo: Any, tmp_path: Path) -> None:
    """The shipped model with itself; no file of that name in the way."""
    subject = Subject.find("edgeface-n")
    assert subject.label == "edgeface-n in torch" and subject.size is None
    comparison = compare(subject, subject, photo[:64, :64])
    assert comparison.parting is None and comparison.pairs[0].shape == (1, 480, 640, 3)


def test_int8_against_float(exported: Make, int8: Make, photo: Any) -> None:
    """Sound: within the tolerance for INT8, far beyond that for float files."""
    sound = int8()
    comparison = compared(exported("tflite"), sound, photo)
    assert (
        comparison.tolerance == 0.3 and comparison.parting is None and len(comparison.pairs) == 36
    )
    assert compared(exported("tflite"), sound, photo, 1e-3).parting == 1
    across = compared(exported("onnx"), sound, photo)
    assert across.parting is None and len(across.pairs) >= 31


@pytest.mark.parametrize("layer", ["backbone.0.1.first", "neck.2", "head.1.layers.0"])
@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_int8_with_one_broken_range(
    exported: Make, int8: Make, photo: Any, target: str, layer: str
) -> None:
    """It parts there, and the largest jump is there: what comes before is sound."""
    comparison = compared(exported(target), int8(layer), photo)
    assert parted(comparison).b.layer == layer
    assert comparison.jump is not None and comparison.jump >= (comparison.parting or 0)
    assert any(f"in B: {layer}" in line or f" {layer}:" in line for line in comparison.sentences())


@pytest.mark.slow
def test_fp16(exported: Make, photo: Any) -> None:
    for target in ("onnx", "tflite"):
        comparison = compared(exported(target), exported(target, "fp16"), photo)
        assert comparison.tolerance == 0.01 and comparison.parting is None
        assert max(pair.rel_rms for pair in comparison.pairs) > 1e-4


def made_of(*figures: float, tolerance: float = 0.1) -> Comparison:
    info = TensorInfo("t", "layer", "Conv")
    return Comparison(
        "a", "b", tolerance, tuple(Pair(info, info, (1,), r, r, 0.0) for r in figures), (), ()
    )


@pytest.mark.parametrize(
    ("figures", "parting", "jump"),
    [
        ((0.0, 0.05, 0.02, 0.12, 0.2), 3, 4),
        ((0.0, 0.05, 0.02, 0.08), None, 1),
        ((0.0, 0.05, 0.2, 0.21), 2, 2),
        ((0.0, 0.0), None, None),
        ((0.0, float("inf"), 0.2, float("inf")), 1, 1),
        ((0.0, 0.1, float("nan")), 2, 1),
    ],
)
def test_where_they_part_and_jump(
    figures: tuple[float, ...], parting: int | None, jump: int | None
) -> None:
    comparison = made_of(*figures)
    assert (comparison.parting, comparison.jump) == (parting, jump)


@given(st.integers(0, 5), st.integers(0, 5), st.data())
@settings(max_examples=200, deadline=None)
def test_monotone_is_the_best_of_all_alignments(
    rows: int, columns: int, data: st.DataObject
) -> None:
    cells = st.floats(0, 1, width=16) | st.none()
    scores = {
        (i, j): score
        for i in range(rows)
        for j in range(columns)
        if (score := data.draw(cells)) is not None
    }
    found = monotone(scores, range(rows), range(columns))
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(found))
    best = max(
        sum(scores.get(pair, -100) + PAIR_BONUS for pair in zip(left, right, strict=True))
        for size in range(min(rows, columns) + 1)
        for left in itertools.combinations(range(rows), size)
        for right in itertools.combinations(range(columns), size)
    )
    assert sum(scores[pair] + PAIR_BONUS for pair in found) == pytest.approx(best)


@pytest.fixture
def command(edgeface: Command) -> Command:
    """``edgeface compare arguments``."""
    return lambda *arguments: edgeface("compare", *arguments)


def refuse(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def test_command_on_equal_files(command: Command, exported: Make, hopper_path: Path) -> None:
    code, out, err = command(exported("onnx").path, exported("tflite").path, "--image", hopper_path)
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert (
        lines[0] == "A: edgeface-n-onnx-fp32-160x128"
        and lines[1] == "B: edgeface-n-tflite-fp32-160x128"
    )
    assert "rel. RMS" in lines[2] and any("backbone.0.1.first" in line for line in lines)
    assert (
        "A and B agree: " in out and "they part" not in out and "not compared, because" in lines[-1]
    )


def test_command_on_an_altered_file(
    command: Command, exported: Make, alter: Alter, hopper_path: Path, tmp_path: Path
) -> None:
    layer = "/backbone/stages.0/stages.0.1/first/conv/Conv"
    plot = tmp_path / "new" / "parting.png"
    code, out, err = command(
        exported("tflite").path,
        alter(layer, "nan").path,
        "--image",
        hopper_path,
        "--plot",
        plot,
        "--format",
        "json",
    )
    assert code == 1 and err == ""
    data = json.loads(out, parse_constant=refuse)
    assert data["equal"] is False and data["tolerance"] == 1e-3
    assert (
        data["parting"]["a"]["layer"] == "backbone.0.1.first" and data["parting"]["rel_rms"] is None
    )
    assert (
        data["parting"]["index"] == data["largest_jump"]["index"]
        and data["parting"]["rel_rms_before"] < 1e-4
    )
    assert {"a", "b", "shape", "max_abs", "rel_rms", "snr_db"} == set(data["pairs"][0])
    picture = cv2.imread(str(plot))
    assert picture is not None
    assert picture.shape[0] > 400 and picture.shape[1] > 800
    red = np.all(
        np.abs(picture.astype(int) - (40, 39, 214)) < 20, axis=2
    )  # BGR of the mark where they part
    assert red.sum() > 30
    before = plot.read_bytes()
    code, out, _ = command(
        exported("tflite").path, alter(layer, "nan").path, "--image", hopper_path, "--plot", plot
    )
    assert code == 1 and plot.read_bytes() == before and not list(plot.parent.glob(".*"))
    (line,) = (line for line in out.splitlines() if line.startswith("A and B part at "))
    assert line.startswith(
        "A and B part at backbone.0.1.first (in B: /backbone/stages.0/stages.0.1/first/"
    )
    (row,) = (line for line in out.splitlines() if line.rstrip().endswith("they part"))
    assert "backbone.0.1.first" in row


def test_command_on_a_weights_file(
    command: Command, exported: Make, pointed: Source, hopper_path: Path, tmp_path: Path
) -> None:
    from edgeface.zoo import save_weights

    save_weights(pointed.network, tmp_path / "mine.safetensors")
    bundle = exported("onnx", landmarks=True)
    code, out, err = command(tmp_path / "mine.safetensors", bundle.path, "--image", hopper_path)
    assert code == 0 and err == "" and "A and B agree: " in out
    assert out.startswith(
        f"A: {tmp_path}/mine.safetensors in torch\nB: edgeface-n-onnx-fp32-160x128\n"
    )


def test_a_tolerance_of_ones_own(
    command: Command, exported: Make, alter: Alter, hopper_path: Path
) -> None:
    altered = alter("/head/cls.0/conv/Conv", "noise").path
    assert (
        command(exported("onnx").path, altered, "--image", hopper_path, "--tolerance", "5")[0] == 0
    )
    assert (
        command(
            exported("onnx").path, exported("ncnn").path, "--image", hopper_path, "--tolerance", "0"
        )[0]
        == 1
    )


def changed(bundle: Bundle, folder: Path, **fields: Any) -> Path:
    manifest = dataclasses.replace(bundle.manifest, **fields)
    return write_bundle(
        folder, manifest, {name: bundle.read(name) for name in bundle.manifest.files}
    ).path


def test_mistakes_are_one_line(
    command: Command, exported: Make, hopper_path: Path, tmp_path: Path
) -> None:
    a, tflite = exported("onnx").path, exported("tflite")
    manifest = tflite.manifest
    wide = changed(tflite, tmp_path / "wide", input=dataclasses.replace(manifest.input, width=320))
    other = changed(tflite, tmp_path / "other", model="face-x")
    neck = dataclasses.replace(manifest.architecture.neck, channels=64)
    architecture = changed(
        tflite,
        tmp_path / "architecture",
        architecture=dataclasses.replace(manifest.architecture, neck=neck),
    )
    (tmp_path / "text.jpg").write_text("not an image")
    image = ("--image", hopper_path)
    cases: list[tuple[tuple[Any, ...], str]] = [
        (
            (a, tflite.path),
            f"--image is missing: .* run: edgeface compare {a} {tflite.path} --image photo.jpg",
        ),
        ((a, tflite.path, "--image", tmp_path / "none.jpg"), "no image at "),
        ((a, tflite.path, "--image", tmp_path / "text.jpg"), "text.jpg: "),
        ((a, wide, *image), "A takes 160x128 px and B 320x128: export both at one size"),
        ((a, other, *image), "A is edgeface-n and B is face-x: two networks share no tensors"),
        (
            (a, architecture, *image),
            "A and B are both called edgeface-n but have different architectures",
        ),
        ((a, tmp_path / "nothing", *image), "no Bundle at .*nothing"),
        (
            (a, tmp_path / "nothing.safetensors", *image),
            "cannot read weights .*nothing.safetensors",
        ),
        ((a, "damofd-0.5g", *image), "A is edgeface-n and B is damofd-0.5g"),
        ((a, tmp_path, *image), "is not a Bundle: it has no manifest.json"),
        (
            (a, tflite.path, *image, "--tolerance", "-1"),
            "--tolerance must be a number of 0 or more, got -1",
        ),
        (
            (a, tflite.path, *image, "--tolerance", "nan"),
            "--tolerance must be a number of 0 or more, got nan",
        ),
        (
            (a, tflite.path, *image, "--format", "xml"),
            r"unknown format 'xml' \(known: table, json\)",
        ),
        ((a, tflite.path, *image, "--plot", hopper_path / "x.png"), "cannot write "),
    ]
    for arguments, message in cases:
        assert re.search(message, failed(command(*arguments))), message


def test_help_says_the_exit_codes(command: Command) -> None:
    code, out, _ = command("--help")
    text = " ".join(out.split())
    assert code == 0
    assert (
        "Exit code: 0 when the two agree within the tolerance, 1 when they part, 2 on a mistake."
        in text
    )
    assert "0.001 between fp32 files, 0.01 if one is fp16, 0.3 if one is int8" in text
