"""``edgeface compare`` finds the one altered layer of a file, and none in an unaltered file."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeface.bundle import Bundle, write_bundle
from edgeface.images import letterbox
from edgeface.probes import TensorInfo
from edgeface.probes.align import PAIR_BONUS, Side, monotone
from edgeface.probes.compare import (
    Comparison,
    Pair,
    Subject,
    compare,
    compare_sides,
    plot_comparison,
)
from edgeface.runners.torch import TorchRunner

if TYPE_CHECKING:
    from export import Source

pytest.importorskip("onnx", reason="onnx is not installed")
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


@pytest.fixture(scope="module")
def int8(
    exported: Make,
    photo: Any,
    lively_size: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Make:
    """``int8(broken="")`` -> TFLite INT8; the range of layer ``broken`` is 50 times too small."""
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
    """The altered convolution is named; all that is computed before it is bitwise equal."""
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
    """The altered TFLite layer is named; for ONNX that convolution or the ReLU after it."""
    comparison = compared(alter(layer, kind), exported("tflite"), photo)
    pair = parted(comparison)
    assert pair.b.layer == LAYERS[layer]
    assert pair.a.layer in (layer, layer.replace("/conv/Conv", "/Relu"))
    assert comparison.parting is not None and comparison.before(comparison.parting) < 1e-4
    assert len(comparison.pairs) >= 30


@pytest.mark.parametrize(("a", "b"), itertools.combinations(TARGETS, 2))
def test_equal_files_do_not_part(exported: Make, photo: Any, a: str, b: str) -> None:
    """Every pair of runtimes agrees within float rounding.

    At least the 24 convolutions, the input and the sums are compared."""
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
    """ONNX also names its nodes after modules: no tensor may be paired with a neighbour's."""

    def module(node: str) -> str:
        """The ONNX node's name as litert-torch has it.

        For example ``/backbone/stages.0/stages.0.1/first/conv/Conv`` -> ``backbone.0.1.first``."""
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


def test_torch_by_zoo_name(photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped model agrees with itself; no file of its name exists in the folder."""
    monkeypatch.chdir(tmp_path)
    subject = Subject.find("edgeface-n")
    assert subject.label == "edgeface-n in torch" and subject.size is None
    comparison = compare(subject, subject, photo[:64, :64])
    assert comparison.parting is None and comparison.pairs[0].shape == (1, 480, 640, 3)


def test_int8_against_float(exported: Make, int8: Make, photo: Any) -> None:
    """A sound INT8 file is within the tolerance for INT8, and far beyond that for float files."""
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
    """The files part at the broken layer, before which all is sound.

    The largest jump is there or later."""
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


def test_a_plot_of_files_that_are_called_like_a_formula(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    info = TensorInfo("t", r"layer $\foo$", "Conv")
    pair = Pair(info, info, (1,), 0.2, 0.2, 0.0)
    plot_comparison(tmp_path / "p.svg", Comparison(r"$_$ $\foo$", "b", 0.1, (pair,), (), ()))
    assert r"$_$ $\foo$" in (tmp_path / "p.svg").read_text()


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
