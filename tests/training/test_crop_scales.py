"""``edgeface train --crops``: what crops are like, by the command and in the boxes."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from edgeface.cli import main
from edgeface.errors import OptionError
from edgeface.images.annotations import read_annotations
from edgeface.training.augment import make_batch
from edgeface.training.dataset import open_cache
from edgeface.training.options import CROPS, RECIPES, AugmentOptions, TrainOptions, with_crops

SIZES = {"batch": 4, "size": 64, "late-size": 64}


def test_near_crops_hold_the_photo_at_about_its_own_size(photos: Path, tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache", photos, read_annotations(photos / "faces.csv"))
    near = with_crops(TrainOptions(), "near").augment
    by_zoom = replace(near, anchor_share=0, large_share=0, roll_share=0, blur_share=0)
    learned = [
        (b[2] - b[0]).item() for b, skip in zip(cache.boxes, cache.ignore, strict=True) if not skip
    ]
    widths = []
    for step in range(20):
        batch = make_batch(cache, by_zoom, 512, 8, step, 0)
        boxes = batch.boxes[~batch.ignore]
        widths += (boxes[:, 2] - boxes[:, 0]).tolist()
    assert len(widths) > 40
    assert all(any(0.84 < width / own < 1.21 for own in learned) for width in widths)


def test_wide_is_the_default_and_nothing_else_changes() -> None:
    assert with_crops(TrainOptions(), "wide") == with_crops(TrainOptions(), None) == TrainOptions()
    near = with_crops(TrainOptions(lr=0.001), "near")
    assert near.lr == 0.001
    changed = {
        f.name
        for f in fields(AugmentOptions)
        if getattr(near.augment, f.name) != getattr(AugmentOptions(), f.name)
    }
    assert changed == set(CROPS["near"]) == set(CROPS["wide"])


def test_crops_of_another_kind_are_refused() -> None:
    with pytest.raises(OptionError, match="not one of: wide, near"):
        with_crops(TrainOptions(), "narrow")
    with pytest.raises(OptionError, match="--recipe edgeface"):
        with_crops(RECIPES["extd"], "near")


def test_a_run_and_a_branch_have_them_and_are_resumed_with_them(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {
        "data": photos,
        "annotations": photos / "faces.csv",
        "cache": photos.parent / f"{photos.name}-cache",
    }

    def train(out: str, samples: int, *more: str) -> int:
        named = places | SIZES | {"out": tmp_path / out, "samples": samples}
        flags = [text for name, value in named.items() for text in (f"--{name}", str(value))]
        return main(["train", *flags, "--no-compile", *more])

    def scales(out: str) -> Any:
        written = json.loads((tmp_path / out / "config.json").read_text())
        return {name: written["options"]["augment"][name] for name in CROPS["near"]}

    branch = ("--from", str(tmp_path / "whole"), "--crops", "near")
    assert train("whole", 4) == 0 and scales("whole") == CROPS["wide"]
    assert train("branch", 4, *branch) == 0 and scales("branch") == CROPS["near"]
    assert train("branch", 8, *branch) == 0 and scales("branch") == CROPS["near"]
    assert train("whole", 8, "--crops", "near") == 2
    assert "was started with scale_low 0.45: resume with the same" in capsys.readouterr().err
