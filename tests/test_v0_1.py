"""What edgeface 0.1 wrote still opens: weights, a Bundle, a latency table, a search; and its modules name their place.

The files in data/v0_1 were written by its code: a convnet of four stages with initial weights, exported to ONNX; three
records of a latency table; a search in a space of small networks on a machine that was busy, so no figure in it counts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

import edgeface
from edgeface.architecture import ARCHITECTURES, Architecture
from edgeface.bundle import MANIFEST, Bundle
from edgeface.predict.table import LatencyTable

DATA = Path(__file__).parent / "data" / "v0_1"
BUNDLE = DATA / "tiny-onnx-fp32-160x128"


@pytest.mark.parametrize("name", json.loads((DATA / "architectures.json").read_text()))
def test_the_text_of_every_network_is_what_it_was(name: str) -> None:
    """File names, seeds and hashes are drawn from it."""
    text = ARCHITECTURES[name].dumps()
    written = json.loads((DATA / "architectures.json").read_text())[name]
    assert hashlib.sha256(text.encode()).hexdigest() == written["dumps"]
    assert Architecture.from_json(json.loads(text)) == ARCHITECTURES[name]


def test_a_bundle_opens_and_detects() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from skimage import data

    bundle = Bundle.open(BUNDLE)
    assert bundle.manifest.dumps() == (BUNDLE / MANIFEST).read_text()
    with edgeface.Detector.open(BUNDLE, score_threshold=0) as detector:
        assert len(detector.detect(data.astronaut())) > 0


def test_weights_open_as_the_network_they_are_of() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.zoo import load_network

    network = load_network(DATA / "tiny.safetensors")
    assert network.architecture == Bundle.open(BUNDLE).manifest.architecture
    assert network.architecture.head.depthwise


def test_a_latency_table_opens() -> None:
    table = LatencyTable.load(DATA / "latency-640x480.json")
    assert len(table.records) == 2


@pytest.mark.parametrize("old", edgeface._MOVED)
def test_a_module_of_then_names_the_one_of_now(old: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=rf"^edgeface\.{old} is now edgeface\.") as error:
        importlib.import_module(f"edgeface.{old}")
    home = str(error.value).split(" is now ")[1].removesuffix(": import that")
    assert importlib.util.find_spec(home)
