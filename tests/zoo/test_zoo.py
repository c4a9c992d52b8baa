"""Weights are used only if the index lists them or they state their network, whole and fitting."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, failed

from edgeface import zoo
from edgeface.architecture import ARCHITECTURES, get_architecture
from edgeface.errors import MissingExtraError, ModelError, OptionError

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    safetensors.save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, path)
    return path


def an_entry() -> dict[str, Any]:
    return {
        "weights": "w.safetensors",
        "sha256": "0" * 64,
        "card": "w.md",
        "licence": "Apache-2.0",
        "data_terms": "research use",
        "architecture": get_architecture("edgeface-n").to_json(),
    }


def test_load_weights_file(weights: Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert zoo.load_weights_file(weights, digest)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert set(zoo.load_weights_file(weights)) == {"a"}


def described(path: Path, text: str) -> Path:
    """A weights file with one number in it and ``text`` as its architecture."""
    safetensors.save_file({"a": np.zeros(1, np.float32)}, path, metadata={"architecture": text})
    return path


def described_as(path: Path, name: str, part: str, fields: dict[str, Any]) -> Path:
    """A weights file of the network ``name``, called mine, with changed ``fields`` of ``part``."""
    data = get_architecture(name).to_json() | {"name": "mine"}
    (data if part == "" else data[part]).update(fields)
    return described(path, json.dumps(data))


def refusal(path: Path) -> str:
    """The one-line error of loading a network from the file."""
    with pytest.raises(ModelError) as caught:
        zoo.load_network(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def test_what_a_model_is() -> None:
    edgeface = get_architecture("edgeface-n")
    assert zoo.resolve("edgeface-n") == zoo.Choice(edgeface, None)
    assert zoo.resolve("edgeface-n", "a/w.safetensors") == zoo.Choice(
        edgeface, Path("a/w.safetensors")
    )
    with pytest.raises(
        OptionError,
        match=r"--model w.safetensors is a file of weights: leave --weights out, or name",
    ):
        zoo.resolve("w.safetensors", "v.safetensors")
    with pytest.raises(ModelError, match=r"cannot read weights none\.safetensors"):
        zoo.resolve("none.safetensors")
    assert [
        zoo.is_network(model) for model in ("edgeface-n", "w.safetensors", Path("w.safetensors"))
    ] == [True] * 3
    assert [zoo.is_network(model) for model in ("dist/x", Path("edgeface-n"), "edgefase-n")] == [
        False
    ] * 3


def test_a_file_says_which_network_it_is_of(tmp_path: Path) -> None:
    for name, architecture in ARCHITECTURES.items():
        assert (
            zoo.named_architecture(
                described(tmp_path / f"{name}.safetensors", architecture.dumps())
            )
            == architecture
        )


def test_a_network_of_a_file_alone(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edgeface.architecture.genotype import DEFAULT_GENOTYPE
    from edgeface.architecture.registry import with_genotype
    from edgeface.models import build
    from edgeface.zoo import save_weights

    genotype = dataclasses.replace(DEFAULT_GENOTYPE, same=("sep_conv_3x3",) * 6)
    for architecture in (
        get_architecture("edgeface-n"),
        with_genotype(get_architecture("asfd-d0"), genotype),
    ):
        network = build(architecture, seed=3)
        save_weights(network, tmp_path / "w.safetensors")
        found = zoo.load_network(str(tmp_path / "w.safetensors"))
        assert found.architecture == architecture and not found.training
        assert all(
            np.array_equal(v.numpy(), network.state_dict()[k].numpy())
            for k, v in found.state_dict().items()
        )


def test_a_file_that_does_not_say(weights: Path) -> None:
    assert (
        refusal(weights)
        == f"{weights} does not say which network it is of: give --model NAME --weights {weights}"
    )


@pytest.mark.parametrize("verb", ["models", "train"])
def test_advice_about_such_a_file_is_possible_where_asked(
    verb: str, weights: Path, tmp_path: Path, edgeface: Command
) -> None:
    """These commands have no --weights."""
    pytest.importorskip("torch")
    flags = {"models": (weights,), "train": ("--data", tmp_path, "--out", tmp_path / "out")}[verb]
    model = () if verb == "models" else ("--model", weights)
    failed(edgeface(verb, *flags, *model), "network it is of: give a weights file that edgeface")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[" * 60_000, "is not JSON (RecursionError)"),
        ("9" * 5000, "is not JSON"),
        (" " * 70_000, "has 70000 characters, accepted: 65536"),
        ("[]", "expected an object, got []"),
        ('{"name": "x"}', "field 'backbone' is missing"),
        ('{"__class__": "os.system"}', "unknown field '__class__'"),
    ],
)
def test_a_file_that_says_nonsense(text: str, said: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert said in refusal(described(tmp_path / "w.safetensors", text))


@pytest.mark.parametrize(
    ("name", "part", "fields", "said"),
    [
        ("edgeface-n", "", {"name": "../evil"}, "'../evil' is not a plain name"),
        ("edgeface-n", "", {"name": "a\nb"}, "'a\\nb' is not a plain name"),
        (
            "edgeface-n",
            "",
            {"name": "eresfd-16"},
            "is called eresfd-16 and is not the network of that name",
        ),
        ("edgeface-n", "", {"weights": "w.pth"}, "unknown field 'weights'"),
        ("edgeface-n", "head", {"anchors": True}, "head.anchors: expected an integer, got True"),
        ("edgeface-n", "head", {"anchors": 65}, "architecture.head: anchors must be 1 to 64"),
        (
            "edgeface-n",
            "head",
            {"stack": 10**12},
            "a part has 1000000000000 blocks, accepted: 0 to 1000",
        ),
        (
            "edgeface-n",
            "backbone",
            {"depths": [10**12, -(10**12), 1]},
            "blocks, accepted: 0 to 1000",
        ),
        ("asfd-d0", "neck", {"repeats": 100}, "a part has 3600 blocks"),
        (
            "damofd-0.5g",
            "backbone",
            {"structure": "SuperResK3K3(8,8,1,8,99)" * 99},
            "a part has 9801 blocks",
        ),
        ("edgeface-n", "backbone", {"kind": "vgg\n"}, "unknown backbone 'vgg\\n' (known: "),
        (
            "edgeface-n",
            "backbone",
            {"widths": [10**6] * 4},
            "the weights do not fit mine: a is [1], expected absent",
        ),
        ("edgeface-n", "backbone", {"widths": [10**12] * 4}, "mine cannot be built"),
        ("edgeface-n", "backbone", {"widths": [10**40] * 4}, "mine cannot be built"),
        ("edgeface-n", "input", {"std": 0}, "std 0, accepted: a number each"),
    ],
)
def test_a_file_that_says_too_much(
    name: str, part: str, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Nothing is built from sizes that no file could have: no long loops, no large memory."""
    pytest.importorskip("torch")
    assert said in refusal(described_as(tmp_path / "w.safetensors", name, part, fields))


def test_wrong_hash(weights: Path) -> None:
    with pytest.raises(ModelError, match="truncated or altered"):
        zoo.load_weights_file(weights, "0" * 64)


@pytest.mark.parametrize("length", [0, 4, 20, -1])
def test_truncated_weights(weights: Path, length: int) -> None:
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(ModelError, match="not a whole safetensors file") as caught:
        zoo.load_weights_file(weights)
    assert "\n" not in str(caught.value)


def test_weights_of_a_kind_that_numpy_lacks(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(ModelError, match=r"tensors of 'BF16', .* save them as float32"):
        zoo.load_weights_file(path)


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
    assert (zoo.FOLDER / entry.card).is_file() and (
        zoo.FOLDER / entry.weights
    ).stat().st_size < 4_000_000
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
        zoo.network_with(
            dataclasses.replace(architecture, neck=get_architecture("scrfd-0.5g").neck), good
        )
