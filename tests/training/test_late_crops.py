"""The last part of a training, whose crops are close to photos at detection."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeface.architecture import get_architecture
from edgeface.cli import main
from edgeface.images.annotations import read_annotations
from edgeface.training.augment import make_batch
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.loop import Trainer
from edgeface.training.options import NEAR_SHARES, RECIPES, AugmentOptions, TrainOptions, near

WHOLE = TrainOptions(
    samples=16, batch=2, size=64, late_size=64, late_share=0.5, compile=False, precision="fp32"
)


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("late") / "cache"
    return open_cache(folder, photos, read_annotations(photos / "faces.csv"))


def test_near_crops_hold_faces_at_about_their_own_size(cache: Cache) -> None:
    by_zoom = replace(near(AugmentOptions()), anchor_share=0, large_share=0, roll_share=0)
    own = cache.boxes[~cache.ignore]
    widths = torch.cat(
        [
            batch.boxes[~batch.ignore]
            for batch in (make_batch(cache, by_zoom, 512, 8, step, 0) for step in range(20))
        ]
    )
    ratios = (widths[:, 2:] - widths[:, :2])[:, None] / (own[:, 2:] - own[:, :2])
    assert len(ratios) > 40
    assert ((ratios > 0.84) & (ratios < 1.21)).all(2).any(1).all()


def test_only_the_last_part_is_near_and_only_where_asked(cache: Cache, tmp_path: Path) -> None:
    trainer = Trainer(get_architecture("edgeface-n"), WHOLE, cache, tmp_path)
    drawn = [WHOLE.augment if step < 4 else near(WHOLE.augment) for step in (3, 4)]
    for step, augment in zip((3, 4), drawn, strict=True):
        expected = make_batch(cache, augment, 64, 2, step, 0)
        assert torch.equal(trainer.crops(step).images, expected.images)
    assert not torch.equal(
        trainer.crops(4).images,
        make_batch(cache, WHOLE.augment, 64, 2, 4, 0).images,
    )
    assert replace(WHOLE, late_near=False).augment_at(4) == WHOLE.augment


def test_near_never_disturbs_more_nor_leaves_the_scales_asked_for() -> None:
    none: dict[str, Any] = dict.fromkeys(NEAR_SHARES, 0.0)
    still = replace(AugmentOptions(), **none)
    kept = near(still)
    assert all(getattr(kept, name) == 0 for name in NEAR_SHARES)
    assert (kept.scale_low, kept.scale_high) == (0.85, 1.2)
    for low, high in ((0.2, 0.5), (2.0, 3.0), (0.9, 1.0)):
        found = near(replace(AugmentOptions(), scale_low=low, scale_high=high))
        assert low <= found.scale_low <= found.scale_high <= high
    changed = {
        f.name
        for f in fields(AugmentOptions)
        if getattr(near(AugmentOptions()), f.name) != getattr(AugmentOptions(), f.name)
    }
    assert changed == {"scale_low", "scale_high", *NEAR_SHARES}
    assert near(RECIPES["extd"].augment) is RECIPES["extd"].augment


def test_a_run_and_a_branch_are_near_as_asked_and_may_change_their_mind(
    photos: Path, tmp_path: Path
) -> None:
    places = {
        "data": photos,
        "annotations": photos / "faces.csv",
        "cache": photos.parent / f"{photos.name}-cache",
    }

    def train(out: str, samples: int, *more: str) -> Any:
        sizes = {"batch": 4, "size": 64, "late-size": 64}
        named = places | sizes | {"out": tmp_path / out, "samples": samples}
        flags = [text for name, value in named.items() for text in (f"--{name}", str(value))]
        assert main(["train", *flags, "--no-compile", *more]) == 0
        written = json.loads((tmp_path / out / "config.json").read_text())["options"]
        return written["late_share"], written["late_near"]

    assert train("whole", 4, "--no-late-near") == (0.15, False)
    assert train("whole", 8) == (0.15, True)
    branch = ("--from", str(tmp_path / "whole"), "--late-share", "1")
    assert train("branch", 4, *branch) == train("branch", 8, *branch) == (1.0, True)
