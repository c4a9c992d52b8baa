"""The search of an AutoFEM genotype: its gradient, one operation running in each place, exact
resumption of stopped runs."""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from networks import with_part
from safetensors.torch import load_file

from edgeface.architecture import get_architecture
from edgeface.architecture.genotype import DEFAULT_GENOTYPE, Node, leaves, read_genotype
from edgeface.cli import main
from edgeface.errors import DataError, ModelError, OptionError, TrainingError
from edgeface.models import build
from edgeface.search.autofem.options import AutoFEMOptions
from edgeface.search.autofem.search import CHOICES, WEIGHTS, GenotypeSearch, halves, search
from edgeface.search.autofem.supernet import (
    CONTEXT_CANDIDATES,
    FUSION_CANDIDATES,
    NODES,
    AnyCell,
    AnyOperation,
    GumbelChoice,
    StraightThrough,
    build_supernet,
    choices_of,
    genotype_of,
)
from edgeface.training import open_photos
from edgeface.training.dataset import Cache
from edgeface.types import unseen

OPTIONS = AutoFEMOptions(
    channels=8, steps=4, warmup_share=0.25, batch=2, size=64, checkpoint_every=1
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of noise with a bright square each, and ``faces.csv``."""
    folder, draw = tmp_path_factory.mktemp("squares"), np.random.default_rng(1)
    rows = [["image", "x1", "y1", "x2", "y2"]]
    for i in range(6):
        pixels = draw.integers(0, 90, (120, 160, 3), np.uint8)
        x, y, side = draw.integers(0, 60), draw.integers(0, 50), draw.integers(16, 60)
        pixels[y : y + side, x : x + side] = 230
        cv2.imwrite(str(folder / f"{i}.png"), pixels)
        rows.append([f"{i}.png", *map(str, (x, y, x + side, y + side))])
    with (folder / "faces.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def cache(photos: Path) -> Cache:
    return open_photos(photos, photos / "faces.csv", photos.parent / "squares-cache")


def test_gradient_is_the_published_one() -> None:
    logits = torch.tensor([0.3, -1.0, 0.7, 0.1], dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([2.0, -3.0, 0.5, 1.0], dtype=torch.float64)
    weights = StraightThrough.apply(logits)  # type: ignore[no-untyped-call]
    assert weights.tolist() == [0, 0, 1, 0]
    weights.backward(upstream)
    p = logits.detach().exp() / logits.detach().exp().sum()
    torch.testing.assert_close(logits.grad, p * (1 - p) * upstream * 4)


def test_noise_is_gumbel_and_a_function_of_the_seed() -> None:
    choice = GumbelChoice(100_000)
    choice.perturb(1e-3, torch.Generator().manual_seed(3))
    first = choice.noise.clone()
    # Mean and standard deviation of the Gumbel distribution: .5772 and pi / sqrt(6).
    assert (
        abs(float(first.mean()) - 0.5772e-3) < 2e-5 and abs(float(first.std()) - 1.2825e-3) < 2e-5
    )
    choice.perturb(1e-3, torch.Generator().manual_seed(3))
    assert torch.equal(choice.noise, first)
    assert "noise" not in choice.state_dict()


def test_one_operation_runs_on_a_quarter_of_the_channels() -> None:
    place = AnyOperation(FUSION_CANDIDATES, 16).train()
    ran: list[str] = []
    for name, operation in zip(FUSION_CANDIDATES, place.operations, strict=True):
        operation.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        place.choice.logits[2] = 1.0
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    out = place(x)
    assert ran == [FUSION_CANDIDATES[2]] == [place.best]
    # Output channels are shuffled in four groups: channel 4 i comes from the first quarter, which
    # the operation reads; the other channels pass unchanged.
    assert torch.equal(out[:, [1, 2, 3]], x[:, [4, 8, 12]]) and not torch.equal(out[:, 0], x[:, 0])
    out.square().sum().backward()
    assert place.choice.logits.grad is not None
    assert torch.nonzero(place.choice.logits.grad).flatten().tolist() == [2]
    trained = [
        any(p.grad is not None for p in operation.parameters()) for operation in place.operations
    ]
    assert trained == [i == 2 for i in range(len(FUSION_CANDIDATES))]


def test_cell_runs_one_path_and_says_which() -> None:
    cell, ran = AnyCell(8).eval(), 0

    def count(*_: object) -> None:
        nonlocal ran
        ran += 1

    chain = {3: 1, 4: 0, 5: 0, 6: 3}  # node: its source; nodes 1 and 2 read 0, the cell's input
    with torch.no_grad():
        for number, (source, edges) in enumerate(zip(cell.sources, cell.edges, strict=True), 1):
            source.logits[chain.get(number, 0)] = 1.0  # type: ignore[operator]
            for edge in edges:  # type: ignore[attr-defined]
                edge.choice.logits[number] = 1.0
                for operation in edge.operations:
                    operation.register_forward_hook(count)
    nodes = tuple(Node((chain.get(n, 0),), CONTEXT_CANDIDATES[n]) for n in range(1, NODES + 1))
    assert cell.best == nodes and leaves(nodes) == (2, 4, 5, 6)
    x = torch.randn(1, 8, 9, 9, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = cell(x)
        assert ran == NODES
        maps = [x]
        for number in range(1, NODES + 1):
            read = chain.get(number, 0)
            maps.append(cell.edges[number - 1][read](maps[read]))  # type: ignore[index]
        expected = x + sum(cell.project[leaf - 1](maps[leaf]) for leaf in leaves(nodes))
        torch.testing.assert_close(found, torch.relu(expected))


def test_supernet_gives_a_genotype_that_builds() -> None:
    net = build_supernet(get_architecture("asfd-d0"), 8, seed=3)
    assert len(choices_of(net)) == 16 + 6 * (NODES + NODES * (NODES + 1) // 2)
    with torch.inference_mode():
        assert len(net.eval()(torch.zeros(1, 3, 64, 64))) == 12
    found = genotype_of(net)
    assert found == genotype_of(build_supernet(get_architecture("asfd-d0"), 8, seed=3))
    assert (
        found
        != genotype_of(build_supernet(get_architecture("asfd-d0"), 8, seed=4))
        != DEFAULT_GENOTYPE
    )
    changed = with_part(get_architecture("asfd-d0"), "neck", genotype=found)
    with torch.inference_mode():
        assert len(build(changed).eval()(torch.zeros(1, 3, 64, 64))) == 12


def test_halves_share_no_photo(cache: Cache) -> None:
    first, second = halves(cache, seed=1)
    offsets = [int(offset) for half in (first, second) for offset in half.level_offset[:, 0]]
    assert (
        sorted(offsets) == sorted(cache.level_offset[:, 0].tolist())
        and len(first) == len(second) == 3
    )
    for half in (first, second):
        for offset, number in zip(half.level_offset[:, 0], half.first, strict=True):
            (image,) = torch.nonzero(cache.level_offset[:, 0] == offset).flatten()
            assert torch.equal(cache.boxes[number], cache.boxes[cache.first[image]])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"channels": 10}, "--channels must be a multiple of 4, got 10"),
        ({"size": 100}, "--size must be a multiple of 32, got 100"),
        ({"warmup_share": 1.0}, "--warmup-share must be from 0 to 0.99, got 1.0"),
        ({"steps": 0}, "--steps must be from 1 to 1000000000, got 0"),
    ],
)
def test_options_that_are_not_accepted(fields: dict[str, float], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        AutoFEMOptions(**fields)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_searches_that_cannot_be(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="accepted: a network of the ASFD family"):
        search(dataclasses.replace(OPTIONS, model="edgeface-n"), cache, tmp_path)
    one, _ = halves(dataclasses.replace(cache, count=cache.count[:1]), seed=1)
    with pytest.raises(DataError, match="1 photo to search on"):
        search(OPTIONS, one, tmp_path)


def test_a_search_does_not_go_on_with_other_boxes_or_photos(cache: Cache, tmp_path: Path) -> None:
    run = GenotypeSearch(OPTIONS, cache, tmp_path)
    run._save()
    GenotypeSearch(OPTIONS, cache, tmp_path).resume()
    other = dataclasses.replace(cache, data=cache.data | {"sha256": "0" * 64})
    with pytest.raises(OptionError, match="other options or photos"):
        GenotypeSearch(OPTIONS, other, tmp_path).resume()
    run.data = {}
    run._save()  # like an earlier version, which did not record the data
    GenotypeSearch(OPTIONS, other, tmp_path).resume()


def test_a_loss_that_is_not_finite_ends_it_before_anything_is_saved(
    cache: Cache, tmp_path: Path
) -> None:
    run = GenotypeSearch(OPTIONS, cache, tmp_path)
    with torch.no_grad():
        next(run.net.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"the loss is not finite at step 1: .* lower --lr"):
        run.fit(unseen)
    assert not list(tmp_path.iterdir())


def test_a_finished_search_has_a_genotype(cache: Cache, tmp_path: Path) -> None:
    run = GenotypeSearch(OPTIONS, cache, tmp_path)
    run.step = OPTIONS.steps
    run._save()
    (tmp_path / "genotype.json").unlink()  # or stopped between the two files
    assert search(OPTIONS, cache, tmp_path) == read_genotype(tmp_path / "genotype.json")


def test_weights_and_choices_learn_in_turn(cache: Cache, tmp_path: Path) -> None:
    run = GenotypeSearch(OPTIONS, cache, tmp_path)
    run.net.train()
    before = {name: p.detach().clone() for name, p in run.net.named_parameters()}
    for what in (WEIGHTS, CHOICES):
        run._optimise(what)
        changed = {
            name for name, p in run.net.named_parameters() if not torch.equal(p, before[name])
        }
        assert changed and {
            name.endswith("choice.logits") or ".sources." in name for name in changed
        } == {what == CHOICES}
        before = {name: p.detach().clone() for name, p in run.net.named_parameters()}


@pytest.mark.slow
def test_stopped_search_goes_on_exactly(cache: Cache, tmp_path: Path) -> None:
    whole = search(OPTIONS, cache, tmp_path / "whole")
    steps: list[int] = []

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        steps.append(done)
        if done == 3:  # step 2 was the last one saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(OPTIONS, cache, tmp_path / "parts", progress=stop)
    found = search(
        OPTIONS,
        cache,
        tmp_path / "parts",
        progress=lambda what, done, total, note="": steps.append(done),
    )
    assert steps == [1, 2, 3, 3, 4] and found == whole == read_genotype(
        tmp_path / "whole" / "genotype.json"
    )
    ours, theirs = (
        load_file(str(tmp_path / run / "checkpoint.safetensors")) for run in ("whole", "parts")
    )
    assert ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[key]) for key, value in ours.items()
    )
    with pytest.raises(OptionError, match="other options or photos"):
        search(dataclasses.replace(OPTIONS, seed=1), cache, tmp_path / "parts")


def test_a_new_search_replaces_no_genotype_of_another(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "genotype.json").write_text("mine")
    arguments = ["--data", photos, "--annotations", photos / "faces.csv", "--out", tmp_path]
    assert main(["autofem", *map(str, arguments), "--steps", "3"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'genotype.json'} is not of a search that can go on, and would be" in error
    assert [path.name for path in tmp_path.iterdir()] == ["genotype.json"]
    assert (tmp_path / "genotype.json").read_text() == "mine"


@pytest.mark.slow
def test_commands_search_a_neck_and_train_it(photos: Path, tmp_path: Path) -> None:
    data = shlex.split(
        f"--data {photos} --annotations {photos / 'faces.csv'} "
        f"--cache {tmp_path / 'cache'} --threads 1"
    )

    def edgeface(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edgeface", *words], capture_output=True, text=True, timeout=600
        )

    run = tmp_path / "run"
    found = edgeface(
        "autofem",
        *data,
        *shlex.split(f"--out {run} --channels 8 --steps 3 --batch 2 --size 64 --format json"),
    )
    assert found.returncode == 0, found.stderr
    path = run / "genotype.json"
    assert json.loads(found.stdout) == json.loads(path.read_text())
    again = edgeface("autofem", *data, "--out", str(run), "--channels", "16")
    assert again.returncode == 2 and "other options or photos" in again.stderr
    trained = edgeface(
        "train",
        *data,
        *shlex.split(
            f"--out {tmp_path / 'net'} --model asfd-d0 --genotype {path} --samples 4 "
            "--batch 2 --size 64 --late-size 64 --no-compile"
        ),
    )
    assert trained.returncode == 0, trained.stderr
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert config["architecture"]["neck"]["genotype"] == json.loads(path.read_text())
    wrong = edgeface("train", *data, "--out", str(tmp_path / "no"), "--genotype", str(path))
    assert wrong.returncode == 2 and "a genotype is for neck autofem" in wrong.stderr
