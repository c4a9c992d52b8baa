"""A network by any of its names, in every command; a file without one gets a one-line error."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from commands import Command, failed
from networks import with_part

from edgeface import zoo
from edgeface.architecture import ARCHITECTURES, get_architecture
from edgeface.bundle import Bundle
from edgeface.errors import ModelError

FRONT = Path(__file__).parents[1] / "data" / "v0_1" / "search" / "front.json"
NAMES = [entry["architecture"]["name"] for entry in json.loads(FRONT.read_text())]


def test_one_network_of_a_front() -> None:
    found = [zoo.named_architecture(f"{FRONT}#{rank}") for rank in (1, 2)]
    assert [network.name for network in found] == NAMES
    assert zoo.named_architectures(FRONT) == found
    assert zoo.named_architectures(f"{FRONT}#2") == found[1:]
    assert zoo.is_network(f"{FRONT}#2") and zoo.is_network(FRONT)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_file_of_one_architecture(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a#b.json"
    path.write_text(get_architecture(name).dumps())
    assert zoo.named_architecture(path) == get_architecture(name)
    assert zoo.named_architecture(f"{path}#1") == get_architecture(name)


ENTRY = json.loads(FRONT.read_text())[0]["architecture"]


@pytest.mark.parametrize(
    ("text", "rank", "said"),
    [
        (FRONT.read_text(), "#99", r"has no #99: it holds 2, name one, .*json#1 to #2"),
        (FRONT.read_text(), "#0", "has no #0"),
        (FRONT.read_text(), "#two", "has no #two"),
        (FRONT.read_text(), "", "is of several networks: it holds 2"),
        ("[]", "#1", "holds no network"),
        ("not json", "#1", "is not JSON"),
        ("[" * 100_000, "", "is not JSON"),
        ("7", "", "expected an object"),
        (json.dumps({**ENTRY, "name": "../up"}), "", "not a plain name"),
        (json.dumps({**ENTRY, "name": "edgeface-n"}), "", "not the network of that name"),
        (json.dumps([{"architecture": {**ENTRY, "heads": 3}}]), "#1", "heads.*this version"),
    ],
)
def test_what_a_file_does_not_hold(text: str, rank: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=said) as caught:
        zoo.named_architecture(f"{path}{rank}")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_no_file() -> None:
    with pytest.raises(ModelError, match=r"cannot read none/front\.json .*give the front\.json"):
        zoo.named_architecture("none/front.json#1")


def test_every_command_takes_one(edgeface: Command, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    model = f"{FRONT}#2"
    code, out, _ = edgeface("models", FRONT, "--format", "json")
    assert code == 0 and [row["name"] for row in json.loads(out)] == NAMES
    code, out, _ = edgeface("score", model, "--format", "json")
    assert code == 0 and json.loads(out)["ddsar"] > 0
    failed(edgeface("detect", "photo.jpg", "--model", model), "no weights yet", "edgeface train")


def test_own_weights_are_not_listed_as_those_that_ship(edgeface: Command) -> None:
    """A weights file is listed with its network's name, but with none of the ready files."""
    file = Path(zoo.FOLDER) / "edgeface-n.safetensors"
    code, out, _ = edgeface("models", file)
    assert code == 0 and "of the file" in out and "shipped" not in out and "ready" not in out
    (row,) = json.loads(edgeface("models", file, "--format", "json")[1])
    assert (row["name"], row["weights"], row["ready"]) == ("edgeface-n", True, [])
    assert "shipped" in edgeface("models", "edgeface-n")[1]


def test_each_network_has_a_row_though_another_has_its_name(
    edgeface: Command, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    wider = with_part(get_architecture("edgeface-n"), "backbone", widths=(40, 48, 64, 64))
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, network in zip(files, (get_architecture("edgeface-n"), wider), strict=True):
        file.write_text(dataclasses.replace(network, name="mine").dumps())
    rows = json.loads(edgeface("models", *files, "--format", "json")[1])
    assert [row["name"] for row in rows] == ["mine", "mine"]
    assert rows[0]["params"] < rows[1]["params"]
    weights = Path(zoo.FOLDER) / "edgeface-n.safetensors"
    out = edgeface("models", "edgeface-n", weights, "edgeface-n")[1]
    assert out.count("shipped") == out.count("of the file") == 1 and "ready file" in out


def test_a_network_of_a_front_becomes_a_file(edgeface: Command, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    code, _, err = edgeface(
        *("export", "--target", "onnx", "--model", f"{FRONT}#2"),
        *("--size", "160x128", "--out", tmp_path),
    )
    assert code == 0 and "random weights" in err
    (folder,) = tmp_path.iterdir()
    assert Bundle.open(folder).manifest.architecture == zoo.named_architecture(f"{FRONT}#2")
