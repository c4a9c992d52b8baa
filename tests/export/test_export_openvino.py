"""The content of OpenVINO files, and the refusal of invalid ones."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface.bundle import Bundle, write_bundle
from edgeface.errors import BundleError
from edgeface.runners import open_runner
from edgeface.runners.openvino import check_ir

pytest.importorskip("torch", reason="torch is not installed")
openvino = pytest.importorskip("openvino", reason="openvino is not installed")

from edgeface.models.detector import deployable  # noqa: E402
from export import ExportRequest, export_model  # noqa: E402
from export.openvino import MODEL_INFO, export_openvino  # noqa: E402
from export.source import Source, random_source  # noqa: E402

HEADS = {"cls_8", "box_8", "cls_16", "box_16", "cls_32", "box_32"}
Make = Callable[..., Bundle]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_operators_and_names(precision: str, exported: Make) -> None:
    bundle = exported("openvino", precision)
    model = openvino.Core().read_model(bundle.read(), bundle.read("edgeface-n.bin"))
    kinds = Counter(node.get_type_name() for node in model.get_ordered_ops())
    del kinds["Constant"]
    halves = {"Convert": 24} if precision == "fp16" else {}
    assert (
        kinds
        == {
            "Parameter": 1,
            "Result": 6,
            "Convolution": 24,
            "Add": 30,
            "Relu": 18,
            "Interpolate": 2,
        }
        | halves
    )
    assert {name for port in model.outputs for name in port.get_names()} == HEADS
    assert [port.get_names() for port in model.inputs] == [{"input"}]


def test_fp16_rounds_weights_and_nothing_else(exported: Make) -> None:
    root = ElementTree.fromstring(exported("openvino", "fp16").read())
    kinds = {
        layer.get("id"): layer.find("data").get("element_type")  # type: ignore[union-attr]
        for layer in root.iterfind("layers/layer")
        if layer.get("type") == "Const"
    }
    feeds = {e.get("to-layer"): e.get("from-layer") for e in root.iterfind("edges/edge")}
    converts = [
        layer.get("id") for layer in root.iterfind("layers/layer") if layer.get("type") == "Convert"
    ]
    assert sum(kind == "f16" for kind in kinds.values()) == len(converts) == 24
    assert all(kinds[feeds[number]] == "f16" for number in converts)
    marks = root.findall("layers/layer[@type='Convert']/rt_info/attribute")
    assert [mark.get("name") for mark in marks] == ["decompression"] * 24


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nothing_but_the_network(precision: str, exported: Make) -> None:
    bundle = exported("openvino", precision)
    text = bundle.read().decode()
    root = ElementTree.fromstring(text)
    assert root.get("name") == "edgeface-n"
    assert {
        child.tag: child.get("value") for child in root.find("rt_info/model_info") or ()
    } == MODEL_INFO
    assert (
        "ersion_" not in text and "conversion" not in text and openvino.__version__[:8] not in text
    )
    names = [layer.get("name") for layer in root.iterfind("layers/layer")]
    assert len(set(names)) == len(names)


def test_same_bytes_whatever_was_made_before(lively: Source) -> None:
    """OpenVINO numbers nodes over the life of a process; these numbers must not reach the file."""
    network = deployable(lively.network)
    request = ExportRequest("openvino", "fp16", 96, 64)
    first = export_openvino(network, request)
    export_openvino(deployable(random_source("damofd-0.5g-bn", 0).network), request)
    assert export_openvino(network, request) == first


def test_group_norm_at_any_size_in_fp16(tmp_path: Path) -> None:
    """Group means are convolutions with ones, whose factor 1/12 float16 cannot represent: these
    weights stay float32."""
    exported = export_model(
        random_source("scrfd-1g", 0), ExportRequest("openvino", "fp16", 96, 64, True), tmp_path
    )
    assert exported.bundle.manifest.input.dynamic and "noise_other_size" in exported.parity.cases


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"<net ", b"<!DOCTYPE net [<!ENTITY a 'b'>]><net ", "has a <! declaration"),
        (b"<net ", b"<fishing ", "damaged"),
        (b'size="13824"', b'size="99999999"', "ends at"),
        (b'size="13824"', b'size="-4"', "ends at"),
        (b'offset="0"', b'offset="18446744073709551615"', "ends at"),
        (b'offset="0"', b'offset="here"', "says nowhere where"),
        (b'type="Convolution"', b'type="Convalution"', "Convalution"),
        (b'to-layer="2"', b'to-layer="7777"', "cannot be loaded"),
        (
            b'pads_end="0, 0, 0, 0"',
            b'pads_end="18446744073709551615, 0, 0, 0"',
            "pads_end of layer .* is out",
        ),
        (b'shape="32, 3, 6, 6"', b'shape="32, 3, 6, 9"', "cannot be loaded"),
    ],
)
def test_an_xml_that_lies(
    exported: Make, tmp_path: Path, before: bytes, after: bytes, message: str
) -> None:
    bundle = exported("openvino")
    content = bundle.read()
    assert before in content
    files = {
        "edgeface-n.xml": content.replace(before, after, 1),
        "edgeface-n.bin": bundle.read("edgeface-n.bin"),
    }
    with pytest.raises(BundleError, match=message) as caught:
        open_runner(write_bundle(tmp_path / "b", bundle.manifest, files))
    assert "\n" not in str(caught.value)


def test_a_bundle_without_weights(exported: Make, tmp_path: Path) -> None:
    bundle = exported("openvino")
    with pytest.raises(
        BundleError, match=r"has one .bin file, its manifest lists 0: export the model again"
    ):
        open_runner(
            write_bundle(tmp_path / "b", bundle.manifest, {"edgeface-n.xml": bundle.read()})
        )


def test_a_bin_cut_off_by_one_byte(exported: Make) -> None:
    bundle = exported("openvino")
    size = bundle.file("edgeface-n.bin").stat().st_size
    check_ir(bundle.read(), size)
    with pytest.raises(ValueError, match="truncated or of another model"):
        check_ir(bundle.read(), size - 1)


@pytest.mark.slow
def test_mutated_xml_never_crashes(exported: Make, tmp_path: Path) -> None:
    """Each of 2,000 files with a few bytes, numbers or edges changed gives a one-line error or
    runs."""
    import subprocess
    import sys

    bundle = exported("openvino")
    script = Path(__file__).with_name("mutate_openvino.py")
    done = subprocess.run(
        [sys.executable, str(script), str(bundle.path), "2000"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    counts: dict[str, Any] = dict(line.split() for line in done.stdout.splitlines())
    assert int(counts["refused"]) > 500 and int(counts["ran"]) > 50
    assert np.sum([int(count) for count in counts.values()]) == 2000
