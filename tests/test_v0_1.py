"""Files of edgeface 0.1 still open: weights, a Bundle, a latency table, a search. Its module names
still work and warn with the new names.

The files in data/v0_1 were written by the code of 0.1: a convnet of four stages with initial
weights, exported to ONNX; two records of a latency table; a search in a space of small networks,
made on a busy machine, so its figures mean nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest

import edgeface
from edgeface.architecture import ARCHITECTURES, Architecture
from edgeface.bundle import MANIFEST, Bundle
from edgeface.deprecations import MODULES
from edgeface.images import Image
from edgeface.predict.table import LatencyTable
from edgeface.search.results import Round
from edgeface.types import unseen

DATA = Path(__file__).parent / "data" / "v0_1"
BUNDLE = DATA / "tiny-onnx-fp32-160x128"


@pytest.mark.parametrize(
    "name", [n for n in json.loads((DATA / "architectures.json").read_text()) if n != "edgeface-n"]
)
def test_the_text_of_every_network_is_what_it_was(name: str) -> None:
    """File names, seeds and hashes derive from this text. edgeface-n is left out: it has landmarks
    now."""
    network = ARCHITECTURES[name]
    texts = {
        "dumps": network.dumps(),
        "short": json.dumps(network.to_json()),
        "full": json.dumps(network.to_fields()),
    }
    written = json.loads((DATA / "architectures.json").read_text())[name]
    assert {
        form: hashlib.sha256(text.encode()).hexdigest() for form, text in texts.items()
    } == written
    assert all(Architecture.from_json(json.loads(text)) == network for text in texts.values())


def test_a_bundle_opens_and_detects(astronaut: Image) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

    bundle = Bundle.open(BUNDLE)
    assert bundle.manifest.dumps() == (BUNDLE / MANIFEST).read_text()
    with edgeface.Detector.open(BUNDLE, score_threshold=0) as detector:
        assert len(detector.detect(astronaut)) > 0


def test_weights_open_as_the_network_they_are_of() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.zoo import load_network

    network = load_network(DATA / "tiny.safetensors")
    assert network.architecture == Bundle.open(BUNDLE).manifest.architecture
    assert network.architecture.head.depthwise


def test_a_latency_table_opens_and_is_written_as_it_was() -> None:
    table = LatencyTable.load(DATA / "latency-640x480.json")
    assert len(table.records) == 2
    assert table.to_text() == (DATA / "latency-640x480.json").read_text()


def test_a_search_opens_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pymoo", reason="pymoo is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from edgeface.search.options import FRONT, load_options
    from edgeface.search.study import Study

    shutil.copytree(DATA / "search", tmp_path / "search")
    monkeypatch.chdir(DATA.parent)  # its space is a file, given by a relative path
    options = load_options(tmp_path / "search")
    assert options.score == "corrected"  # 0.1 called it "mended"
    rounds: list[Round] = []
    front = Study(options, tmp_path / "search", unseen, print).run(rounds.append)
    assert [one.number for one in rounds] == [0, 1] and all(one.picked for one in rounds)
    then, now = DATA / "search", tmp_path / "search"
    table = "latency-160x128.json"
    assert (now / table).read_bytes() == (then / table).read_bytes()
    # The same front. Its ms were of the reference's quietest group then, and are of the median now.
    groups = json.loads((now / table).read_text())["reference_ms"]
    louder = statistics.median(groups) / min(groups)
    for new, old in zip(*(json.loads((f / FRONT).read_text()) for f in (now, then)), strict=True):
        for name, value in old.items():
            if name.endswith("_ms"):
                assert new[name] == pytest.approx((np.array(value) * louder).tolist()), name
            else:
                assert new[name] == value, name
    assert front[0].measured_ms > 0


@pytest.mark.parametrize("old", [name for name in MODULES if name.startswith("edgeface.")])
def test_a_module_of_then_is_the_one_of_now_and_says_so(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"^{old} is now {MODULES[old]}$"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MODULES[old]), "its classes exist once"
    assert module.__spec__ is not None and module.__spec__.name == MODULES[old]
    del sys.modules[old]
