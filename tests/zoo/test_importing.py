"""Published weights are imported under our names; code hidden in a file is not run."""

from __future__ import annotations

import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from edgeface import zoo
from edgeface.architecture import ARCHITECTURES, get_architecture
from edgeface.cli.app import app
from edgeface.errors import EdgefaceError, ModelError, OptionError
from edgeface.models import build
from edgeface.zoo.importing import FAMILIES, _original_key, import_weights

NAME = "extd-ssd-32-prelu"
State = dict[str, Any]


@pytest.fixture(scope="module")
def original() -> State:
    """A checkpoint of NAME with its authors' key names, counters included, and its own values."""
    rename = _original_key(get_architecture(NAME))
    state = {}
    for key, value in build(NAME, seed=4).state_dict().items():
        counter = key.endswith("num_batches_tracked")
        state[rename(key)] = (
            value
            if counter
            else torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
        )
    return state


def saved(folder: Path, content: Any, name: str = "x.pth", legacy: bool = False) -> Path:
    torch.save(content, folder / name, _use_new_zipfile_serialization=not legacy)
    return folder / name


def refused(files: list[Path], *words: str, model: str = NAME) -> None:
    """Assert that the import fails with one line that contains ``words``, and writes no file."""
    out = files[0].parent / "out.safetensors"
    with pytest.raises(EdgefaceError) as caught:
        import_weights(files, model, out)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert not out.exists() and not list(files[0].parent.glob(".*"))


@pytest.mark.parametrize(
    "name", [name for name, a in ARCHITECTURES.items() if a.backbone.kind in FAMILIES]
)
def test_every_tensor_has_a_name_of_its_own(name: str) -> None:
    architecture = get_architecture(name)
    ours = zoo.tensor_shapes(architecture)
    theirs = [_original_key(architecture)(key) for key in ours]
    assert len(set(theirs)) == len(theirs)
    assert not {"backbone", "neck", "head"} & {key.partition(".")[0] for key in theirs}, (
        "our names, not the authors'"
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("extd-fpn-32-prelu", "EXTD_32"),
        ("extd-fpn-48-prelu", "EXTD_48"),
        ("extd-fpn-64-prelu", "EXTD_64"),
        ("eresfd-16", "eresfd_16"),
    ],
)
def test_released_weights(name: str, file: str, shared: Path, tmp_path: Path) -> None:
    """All tensors that the authors released are imported, each once, and the zoo loads the file."""
    source = load_file(shared / f"weights/{file}.safetensors")
    done = import_weights(
        [shared / f"weights/{file}.safetensors"], name, tmp_path / "w.safetensors"
    )
    network = zoo.load_network(tmp_path / "w.safetensors")
    assert network.architecture == get_architecture(name)
    given = {key: value for key, value in source.items() if not key.endswith("num_batches_tracked")}
    assert done.tensors == len(given) and done.parameters == sum(
        p.numel() for p in network.parameters()
    )
    rename = _original_key(get_architecture(name))
    for key, value in network.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, given.pop(rename(key))), (
            key
        )
    assert not given


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        OrderedDict,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"weight": state, "epoch": 3},
        lambda state: {
            "model": {f"module.{key}": value for key, value in state.items()},
            "args": {"lr": 0.1},
        },
        lambda state: {
            key: torch.nn.Parameter(v) if v.is_floating_point() else v for key, v in state.items()
        },
        lambda state: {key: v.double() if v.is_floating_point() else v for key, v in state.items()},
    ],
    ids=["plain", "ordered", "state_dict", "weight", "model-module", "parameters", "double"],
)
def test_checkpoints_of_training_programs(
    wrap: Callable[[State], Any], legacy: bool, original: State, tmp_path: Path
) -> None:
    path = saved(tmp_path, wrap(original), legacy=legacy)
    assert zipfile.is_zipfile(path) != legacy
    import_weights([path], NAME, tmp_path / "deep" / "w.safetensors")
    found = load_file(tmp_path / "deep" / "w.safetensors")
    rename = _original_key(get_architecture(NAME))
    assert {rename(key) for key in found} == {
        key for key in original if not key.endswith("num_batches_tracked")
    }
    assert all(
        value.dtype == torch.float32 and torch.equal(value, original[rename(key)])
        for key, value in found.items()
    )


def test_the_same_file_from_every_format(original: State, tmp_path: Path) -> None:
    save_file(original, tmp_path / "x.safetensors")
    sources = [
        saved(tmp_path, original),
        saved(tmp_path, original, "old.pth", legacy=True),
        tmp_path / "x.safetensors",
    ]
    written = set()
    for i, source in enumerate(sources):
        import_weights([source], NAME, tmp_path / f"out{i}")
        written.add((tmp_path / f"out{i}").read_bytes())
    assert len(written) == 1


def test_a_checkpoint_in_several_files(shared: Path, tmp_path: Path) -> None:
    """EResFD is published in this form; the files of its activations contain nothing."""
    whole = load_file(shared / "weights/eresfd_16.safetensors")
    parts: dict[str, State] = {part: {} for part in ("base", "act_loc", "act_conf", "loc", "conf")}
    for key, value in whole.items():
        part, _, rest = key.partition(".")
        parts[part][rest] = value
    files = [
        saved(tmp_path, OrderedDict(state), f"eresfd_16.pth.{part}.pth")
        for part, state in parts.items()
    ]
    import_weights(files, "eresfd-16", tmp_path / "parts")
    import_weights([shared / "weights/eresfd_16.safetensors"], "eresfd-16", tmp_path / "whole")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    refused(
        files[:-1],
        "4 more" if len(files) > 5 else "3 more",
        "missing: 'conf.0.bias'",
        model="eresfd-16",
    )
    refused([*files, files[0]], "give each part once", model="eresfd-16")
    refused(
        [saved(tmp_path, {}, "a.pth"), files[0]],
        "a.pth: of a checkpoint in several files",
        model="eresfd-16",
    )


class Bomb:
    """An object that calls ``function`` when an unsafe reader loads it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def bombs(trace: Path) -> dict[str, Any]:
    """Objects that write the file ``trace`` when an unsafe reader loads them."""
    return {
        "shell": Bomb(os.system, f"touch {trace}"),
        "open": Bomb(open, str(trace), "w"),
        "eval": Bomb(eval, f"open({str(trace)!r}, 'w')"),
        "path": Bomb(Path.touch, trace),
        "torch": Bomb(torch.save, {}, str(trace)),
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["alone", "beside", "instead"])
@pytest.mark.parametrize("kind", ["shell", "open", "eval", "path", "torch"])
def test_a_malicious_checkpoint_does_nothing(
    kind: str,
    place: str,
    legacy: bool,
    original: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = tmp_path / "trace"
    bomb = bombs(trace)[kind]
    content = {
        "alone": bomb,
        "beside": {"state_dict": original, "epoch": bomb},
        "instead": {**original, "base.0.0.weight": bomb},
    }[place]
    path = saved(tmp_path, content, legacy=legacy)
    # Users set this switch of torch to load old files; it must have no effect here.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused([path], "holds objects other than tensors", "nothing in it was run")
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the trap is one"


def test_a_program_is_refused(tmp_path: Path) -> None:
    script = torch.jit.script(torch.nn.Linear(2, 2))
    script.save(str(tmp_path / "x.pt"))  # type: ignore[no-untyped-call]
    refused([tmp_path / "x.pt"], "TorchScript archive", "refused")


def test_a_whole_network_is_refused(tmp_path: Path) -> None:
    """torch.save(model) instead of its state dict: reading it would import the model's class."""
    refused(
        [saved(tmp_path, torch.nn.Linear(2, 2))],
        "it asks for 'torch.nn.modules.linear.Linear'",
        "state_dict()",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], ("holds a list", "state dict")),
        ({"epoch": 3}, ("'epoch' is a int",)),
        ({3: torch.zeros(1)}, ("3 is a Tensor",)),
        ({"state_dict": {"a": "text"}}, ("'a' is a str",)),
        ({"a": torch.zeros(2, dtype=torch.int64)}, ("torch.int64", "floating point")),
        ({"a": torch.zeros(2).to_sparse()}, ("plain tensors",)),
        ({}, ("missing", "'base.0.0.weight' and 156 more")),
        ({"x\ny" * 40: torch.zeros(1)}, ("unexpected: 'x\\ny",)),
    ],
)
def test_other_contents(content: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    refused([saved(tmp_path, content)], *words)


def test_checkpoints_that_do_not_fit(original: State, tmp_path: Path) -> None:
    key = "base.2.conv.3.weight"
    first = next(iter(original))
    refused(
        [saved(tmp_path, {k: v for k, v in original.items() if k != key})],
        NAME,
        f"missing: '{key}'",
    )
    refused([saved(tmp_path, {**original, "extra": original[key]})], "unexpected: 'extra'")
    refused(
        [saved(tmp_path, {**original, key: original[key][:3]})],
        f"'{key}' is [3, 1, 3, 3], expected [64, 1, 3, 3]",
    )
    # A shape that fits in no memory, backed by one number.
    refused(
        [saved(tmp_path, {**original, key: torch.zeros(1).expand(1 << 50)})], "1125899906842624"
    )
    refused(
        [saved(tmp_path, {**original, key: torch.full_like(original[key], torch.nan)})],
        "not finite",
    )
    refused([saved(tmp_path, {**original, first: original[first].to("meta")})], "meta")
    refused(
        [saved(tmp_path, original)],
        "run again with --model extd-ssd-32-prelu",
        model="extd-fpn-48-prelu",
    )
    refused([saved(tmp_path, original)], "edgeface-n", "extd and eresfd", model="edgeface-n")
    refused([saved(tmp_path, original)], "unknown model 'extd'", model="extd")
    slopes = {k: v for k, v in original.items() if v.shape != (1,)}
    refused([saved(tmp_path, slopes)], "--model extd-ssd-32-lrelu or extd-ssd-32-relu")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_truncated_checkpoints(share: float, legacy: bool, original: State, tmp_path: Path) -> None:
    path = saved(tmp_path, original, legacy=legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused([path], "not a whole PyTorch checkpoint")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"\x80\x02",
        b"text of any kind",
        b"\x10" + 7 * b"\0" + b"{",
        b"x.tar" + bytes(600),
    ],
)
def test_files_that_are_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    refused([path], "x.pth")
    refused([tmp_path / "gone.pth"], "cannot read", "gone.pth")
    (tmp_path / "folder").mkdir()
    refused([tmp_path / "folder"], "cannot read")


def test_the_source_is_not_overwritten(original: State, tmp_path: Path) -> None:
    path = saved(tmp_path, original)
    before = path.read_bytes()
    with pytest.raises(OptionError, match="is the input"):
        import_weights([path], NAME, tmp_path / "." / path.name)
    assert path.read_bytes() == before


def test_the_command(original: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, original)
    run = CliRunner().invoke
    result = run(app, ["weights import", str(path), "--model", NAME])
    assert (
        result.exit_code == 0
        and result.output == f"{NAME}.safetensors: 157 tensors, 56059 parameters of {NAME}\n"
    )
    result = run(
        app,
        [
            "weights import",
            str(path),
            "--model",
            NAME,
            "--out",
            "w.safetensors",
            "--format",
            "json",
        ],
    )
    assert json.loads(result.output) == {
        "model": NAME,
        "weights": "w.safetensors",
        "tensors": 157,
        "parameters": 56059,
    }
    assert (tmp_path / "w.safetensors").read_bytes() == (
        tmp_path / f"{NAME}.safetensors"
    ).read_bytes()
    assert zoo.resolve("w.safetensors") == zoo.Choice(get_architecture(NAME), Path("w.safetensors"))
    assert isinstance(
        run(app, ["weights import", str(path), "--model", "yolo"]).exception, ModelError
    )
    output = " ".join(run(app, ["weights import", "--help"]).output.split())
    assert "No code in a checkpoint is executed" in output and "--format" in output


def packed(path: Path) -> Path:
    """Write a compressed copy of the archive and return its path."""
    found = path.with_name(f"packed-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in source.infolist():
            out.writestr(entry.filename, source.read(entry))
    return found


def test_a_zip_bomb_is_refused_before_it_is_unpacked(original: State, tmp_path: Path) -> None:
    bomb = packed(saved(tmp_path, {"state_dict": {"a": torch.zeros(24 << 20)}}))
    assert bomb.stat().st_size < 1 << 20
    refused([bomb], "would unpack to 100,", "refused, nothing of it was unpacked")
    weights = packed(saved(tmp_path, original, "weights.pth"))
    assert import_weights([weights], NAME, tmp_path / "out.safetensors")
