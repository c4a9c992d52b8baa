"""Weights are used only if they are the ones in the index, whole and fitting."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface import zoo
from edgeface.errors import MissingExtraError, ModelError
from edgeface.models import ARCHITECTURES, get_architecture

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    safetensors.save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, path)
    return path


def an_entry() -> dict[str, Any]:
    return {"weights": "w.safetensors", "sha256": "0" * 64, "card": "w.md", "licence": "Apache-2.0",
            "data_terms": "research use", "architecture": get_architecture("edgeface-n").to_json()}


def test_load_weights_file(weights: Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert zoo.load_weights_file(weights, digest)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert set(zoo.load_weights_file(weights)) == {"a"}


def test_wrong_hash(weights: Path) -> None:
    with pytest.raises(ModelError, match="truncated or altered"):
        zoo.load_weights_file(weights, "0" * 64)


@pytest.mark.parametrize("length", [0, 4, 20, -1])
def test_truncated_weights(weights: Path, length: int) -> None:
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(ModelError, match="not a whole safetensors file") as caught:
        zoo.load_weights_file(weights)
    assert "\n" not in str(caught.value)


def test_missing_weights_and_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="cannot read weights"):
        zoo.load_weights_file(tmp_path / "none.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match=r"edgeface\[zoo\]"):
        zoo.load_weights_file(tmp_path / "none.safetensors")


def test_read_index(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"edgeface-n": an_entry()}))
    entry = zoo.read_index(tmp_path)["edgeface-n"]
    assert entry.architecture == get_architecture("edgeface-n") and entry.card == "w.md"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"weights": "x"}}'])
def test_damaged_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ModelError):
        zoo.read_index(tmp_path)


def test_names_that_have_no_weights() -> None:
    with pytest.raises(ModelError, match="unknown model 'yolo'"):
        zoo.load_weights("yolo")
    without = next(name for name in ARCHITECTURES if name not in zoo.names())
    with pytest.raises(ModelError, match="ships without weights"):
        zoo.load_weights(without)


@pytest.mark.parametrize("name", zoo.names())
def test_shipped_weights(name: str) -> None:
    entry = zoo.get_entry(name)
    assert entry.architecture == get_architecture(name)
    assert (zoo.FOLDER / entry.card).is_file() and (zoo.FOLDER / entry.weights).stat().st_size < 3_000_000
    pytest.importorskip("torch")
    assert not zoo.load_network(name).training


def test_network_with_weights_that_do_not_fit() -> None:
    pytest.importorskip("torch")
    from edgeface.models import build

    architecture = get_architecture("edgeface-n")
    good = {k: v.numpy() for k, v in build(architecture, seed=1).state_dict().items()}
    network = zoo.network_with(architecture, good)
    assert all(np.array_equal(v.numpy(), good[k]) for k, v in network.state_dict().items())
    key = next(iter(good))
    for change, message in (
        ({key: good[key][:1]}, f"{key} is \\[1, .*expected"),
        ({"extra": good[key]}, "extra is .*expected absent"),
        ({key: np.full_like(good[key], np.nan)}, "not finite"),
    ):
        with pytest.raises(ModelError, match=message):
            zoo.network_with(architecture, {**good, **change})
    with pytest.raises(ModelError, match="is absent, expected"):
        zoo.network_with(architecture, {k: v for k, v in good.items() if k != key})
    with pytest.raises(ModelError, match="do not fit"):
        zoo.network_with(dataclasses.replace(architecture, neck=get_architecture("scrfd-0.5g").neck), good)
