"""Whole trainings of EXTD, EResFD and ASFD."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from s3fd import (
    FAMILY,
    S3FD_CROPS,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgeface.architecture import Architecture, get_architecture
from edgeface.errors import OptionError
from edgeface.images.annotations import read_annotations
from edgeface.training.batch import Batch
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.loop import Trainer
from edgeface.training.options import TrainOptions, get_recipe


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return open_cache(
        tmp_path_factory.mktemp("cache") / "cache", photos, read_annotations(photos / "faces.csv")
    )


def small(architecture: Architecture, steps: int, size: int, batch: int) -> TrainOptions:
    """The recipe of the network's family, shortened to ``steps`` small batches."""
    return dataclasses.replace(
        get_recipe(None, architecture),
        samples=steps * batch,
        batch=batch,
        size=size,
        late_size=size,
        compile=False,
        checkpoint_every=3,
        snapshot_every=1000,
    )


class DyingTrainer(Trainer):
    """A trainer that stops in the middle of step 4, as if its process had been killed."""

    def crops(self, step: int) -> Batch:
        if step == 4:
            raise KeyboardInterrupt
        return super().crops(step)


@pytest.mark.parametrize("name", FAMILY)
def test_killed_and_resumed_equals_uninterrupted(name: str, cache: Cache, tmp_path: Path) -> None:
    """A run stopped within a step and resumed ends with the tensors of an uninterrupted run."""
    architecture = get_architecture(name)
    options = small(architecture, steps=6, size=64, batch=4)
    (tmp_path / "whole").mkdir()
    assert Trainer(architecture, options, cache, tmp_path / "whole").fit()
    killed = tmp_path / "killed"
    killed.mkdir()
    with pytest.raises(KeyboardInterrupt):
        DyingTrainer(architecture, options, cache, killed).fit()
    again = Trainer(architecture, options, cache, killed)
    again.resume()
    assert again.step == 3
    assert again.fit()
    for file in ("checkpoint.safetensors", "weights.safetensors"):
        ours, theirs = load_file(killed / file), load_file(tmp_path / "whole" / file)
        assert ours.keys() == theirs.keys()
        assert [k for k in ours if not ours[k].equal(theirs[k])] == []


def test_checkpoints_of_earlier_versions_go_on(cache: Cache, tmp_path: Path) -> None:
    """A checkpoint without later fields of options, crops and networks resumes.

    Other options or another network are still refused.
    """
    architecture, options = (
        get_architecture("edgeface-n"),
        TrainOptions(
            samples=12, batch=4, size=64, late_size=64, warmup=2, compile=False, checkpoint_every=3
        ),
    )
    run = tmp_path / "run"
    run.mkdir()
    assert Trainer(architecture, options, cache, run).fit()
    path = run / "checkpoint.safetensors"
    with safe_open(str(path), framework="pt") as file:
        meta = json.loads(file.metadata()["meta"])
    for name in ("loss", "drops", "warmup_lr", "margin", "margin_scale"):
        del meta["config"]["options"][name]
    for name in ("crop", "colour_share"):
        del meta["config"]["options"]["augment"][name]
    for name in ("prior", "kernel", "maxout"):
        meta["config"]["architecture"]["head"].pop(name, None)
    save_file(load_file(path), path, metadata={"meta": json.dumps(meta)})
    trainer = Trainer(architecture, dataclasses.replace(options, samples=16), cache, run)
    trainer.resume()
    assert trainer.step == 3
    others: dict[str, dict[str, Any]] = {
        "loss": {"loss": "drmc"},
        "crop": {"augment": S3FD_CROPS},
        "assigner": {"assigner": "atss"},
    }
    for name, changed in others.items():
        other = Trainer(architecture, dataclasses.replace(options, **changed), cache, run)
        with pytest.raises(OptionError, match=f"was started with {name} '"):
            other.resume()
    other = Trainer(get_architecture("eresfd-16"), options, cache, run)
    with pytest.raises(OptionError, match="other architecture"):
        other.resume()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_each_network_learns_with_its_own_recipe(name: str, cache: Cache, tmp_path: Path) -> None:
    """Both losses fall between the first and the last 25 of 200 steps on five photos.

    The schedule is shorter than the recipe's, whose warm-up alone may take more steps.
    """
    architecture = get_architecture(name)
    options = dataclasses.replace(
        small(architecture, steps=200, size=128, batch=8), warmup=20, drops="", decay_share=0.2
    )
    assert Trainer(architecture, options, cache, tmp_path).fit()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for term, share in (("cls_loss", 0.7), ("box_loss", 0.97)):
        assert float(rows[-1][term]) < share * float(rows[0][term])
