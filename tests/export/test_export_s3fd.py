"""EXTD, EResFD and ASFD through every exporter: six levels, map sizes that do not halve exactly,
shared weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.architecture import S3FDHeadSpec
from edgeface.backends import BACKENDS, export_targets
from edgeface.bundle import Bundle
from edgeface.detector import Detector
from edgeface.errors import OptionError
from edgeface.images import Image
from edgeface.runners import open_runner
from edgeface.runners.torch import TorchRunner

pytest.importorskip("torch", reason="torch is not installed")

from export import ExportRequest, Source, export_model
from export.parity import TOLERANCE, torch_heads
from export.source import random_source

Export = Callable[[str, str], Bundle]
NAMES = ("asfd-d0", "eresfd-16", "extd-fpn-32-prelu")
SIZE = (160, 128)
"""width and height in px: 3x2 cells at stride 64, 2x1 at stride 128"""
PAIRS = [
    pytest.param(
        name,
        target,
        marks=[] if target == "onnx" and name != "extd-fpn-32-prelu" else pytest.mark.slow,
    )
    for target in export_targets()
    for name in NAMES
]


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    return {name: random_source(name, 0) for name in NAMES}


@pytest.fixture(scope="module")
def export(
    sources: dict[str, Source], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Export]:
    made: dict[tuple[str, str], Bundle] = {}

    def make(name: str, target: str) -> Bundle:
        if (name, target) not in made:
            out = tmp_path_factory.mktemp("dist")
            made[name, target] = export_model(
                sources[name], ExportRequest(target, "fp32", *SIZE), out
            ).bundle
        return made[name, target]

    yield make


@pytest.mark.parametrize(("name", "target"), PAIRS)
def test_parity_and_manifest(
    name: str, target: str, export: Export, sources: dict[str, Source]
) -> None:
    manifest = export(name, target).manifest
    layout = manifest.head_layout
    assert layout.strides == (4, 8, 16, 32, 64, 128) and layout.coding == "ssd"
    head = sources[name].network.architecture.head
    assert isinstance(head, S3FDHeadSpec) and layout.prior == head.prior
    assert manifest.parity is not None and set(manifest.parity["max_abs"]) == set(
        layout.output_names
    )
    assert 0 < max(manifest.parity["max_abs"].values()) <= TOLERANCE == manifest.parity["tolerance"]


@pytest.mark.parametrize(("name", "target"), PAIRS)
def test_detections_are_those_of_torch(
    name: str, target: str, export: Export, sources: dict[str, Source], astronaut: Image
) -> None:
    """Random weights find faces everywhere: the best 200 boxes are compared."""
    with open_runner(export(name, target)) as runner:
        found = _detect(runner, astronaut)
    torch_runner = TorchRunner(sources[name].network)
    torch_runner.input_size = SIZE
    expected = _detect(torch_runner, astronaut)
    assert len(found[0]) == len(expected[0]) > 50
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-4)
    distance = (
        np.abs(found[0][:, None] - expected[0][None]).max(2).min(1)
    )  # boxes of equal score may change places
    assert np.quantile(distance, 0.98) < 0.05


@pytest.mark.parametrize(
    "target",
    [pytest.param(t, marks=[] if t == "onnx" else pytest.mark.slow) for t in export_targets()],
)
def test_iterated_weights_are_stored_once_where_the_format_allows_it(
    target: str, export: Export
) -> None:
    """EXTD-32 has 63 k parameters, 236 kB; a copy for each use makes 1.0 MB, and its graph takes up
    to 300 kB."""
    size = export("extd-fpn-32-prelu", target).size_bytes
    assert size > 1_000_000 if target == "ncnn" else size < 600_000


def _detect(runner: object, photo: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with Detector(runner, 0.01, 0.3) as detector:  # type: ignore[arg-type]
        found = detector.detect(photo, top_k=200)
    return found.boxes, found.scores


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_file_of_any_size(name: str, sources: dict[str, Source], tmp_path: Path) -> None:
    bundle = export_model(
        sources[name], ExportRequest("onnx", "fp32", *SIZE, dynamic=True), tmp_path
    ).bundle
    batch = np.random.default_rng(1).integers(0, 256, (1, 96, 352, 3), dtype=np.uint8)
    expected = torch_heads(sources[name].network, batch)
    with open_runner(bundle) as runner:
        for head, value in runner.run(batch).items():
            np.testing.assert_allclose(value, expected[head], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_ncnn_refuses_any_size(name: str, sources: dict[str, Source], tmp_path: Path) -> None:
    """The ncnn file fixes the sizes to which maps are enlarged."""
    request = ExportRequest("ncnn", "fp32", *SIZE, dynamic=True)
    with pytest.raises(OptionError, match=f"--dynamic: {name} .* one fixed size") as caught:
        export_model(sources[name], request, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_weights_of_six_passes_are_stored_once(sources: dict[str, Source], export: Export) -> None:
    """EXTD in ONNX takes less than 1.5 times 4 bytes per parameter."""
    assert BACKENDS["onnx"].suffix == ".onnx"
    params = sum(p.numel() for p in sources["extd-fpn-32-prelu"].network.parameters())
    source = dataclasses.replace(sources["extd-fpn-32-prelu"])
    assert export(source.name, "onnx").size_bytes < 1.5 * 4 * params
