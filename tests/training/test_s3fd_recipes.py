"""Options and recipes of the S3FD family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from s3fd import (
    ASFD,
    EXTD,
)
from typer.testing import CliRunner

from edgeface.architecture import get_architecture
from edgeface.decode import HeadLayout
from edgeface.errors import OptionError
from edgeface.training.optimizer import make_optimizers
from edgeface.training.options import RECIPES, TrainOptions, get_recipe


def test_learning_rate_drops_and_warms_up_as_published() -> None:
    extd, asfd = RECIPES["extd"], RECIPES["asfd"]
    assert extd.steps == 480_000
    assert [extd.lr_at(s) for s in (0, 239_999, 240_000, 359_999, 360_000)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5]
    )
    assert [asfd.lr_at(s) for s in (0, 250, 500, asfd.steps // 2 - 1)] == pytest.approx(
        [1e-6, (1e-6 + 0.015) / 2, 0.015, 0.015]
    )
    assert [asfd.lr_at(int(asfd.steps * epoch / 50) + 1) for epoch in (25, 40)] == pytest.approx(
        [1.5e-3, 1.5e-4]
    )
    eresfd = RECIPES["eresfd"]
    assert [eresfd.lr_at(1000 * k) for k in (150, 151, 181, 201)] == pytest.approx(
        [1e-3, 1e-4, 1e-5, 1e-6]
    )


def test_sgd_has_momentum_and_decays_everything() -> None:
    """v = .9 v + g + .01 p and p = p - .1 v, for weights, biases and slopes alike."""
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.PReLU())
    (optimizer,) = make_optimizers(model, "sgd", lr=0.1, weight_decay=0.01)
    want = {p: (p.detach().clone(), torch.zeros_like(p)) for p in model.parameters()}
    for step in range(3):
        for p, (value, velocity) in want.items():
            p.grad = torch.full_like(p, step + 1.0)
            velocity.mul_(0.9).add_(p.grad + 0.01 * value)
            value.sub_(0.1 * velocity)
        optimizer.step()
        for p, (value, _) in want.items():
            torch.testing.assert_close(p.detach(), value)


@pytest.mark.parametrize("drops", ["0.5,0.2", "0,0.5", "1", "half", "0.5,"])
def test_drops_are_checked(drops: str) -> None:
    with pytest.raises(OptionError, match="--drops"):
        TrainOptions(drops=drops)


def test_every_network_has_the_recipe_of_its_family() -> None:
    for name, recipe in (
        ("extd-ssd-48-relu", "extd"),
        ("eresfd-16", "eresfd"),
        ("asfd-d3", "asfd"),
        ("edgeface-n", "edgeface"),
        ("scrfd-1g-bn", "edgeface"),
    ):
        assert get_recipe(None, get_architecture(name)) is RECIPES[recipe]
    with pytest.raises(OptionError, match="edgeface, extd, eresfd, asfd"):
        get_recipe("yolo", get_architecture("edgeface-n"))


def test_options_that_say_nothing_are_the_networks_own() -> None:
    for options, layout, assigner, loss in (
        (TrainOptions(), HeadLayout(), "dynamic", "quality"),
        (TrainOptions(), EXTD, "compensated", "multibox"),
        (TrainOptions(loss="drmc"), HeadLayout(), "dynamic", "drmc"),
        (RECIPES["extd"], HeadLayout(), "dynamic", "quality"),
        (RECIPES["asfd"], ASFD, "overlap", "drmc"),
    ):
        own = options.completed(layout)
        assert (own.assigner, own.loss) == (assigner, loss)
    with pytest.raises(OptionError, match="prior boxes"):
        TrainOptions(loss="multibox").completed(HeadLayout())


def test_the_command_line_begins_with_the_recipe_and_overrides_it(
    photos: Path, tmp_path: Path
) -> None:
    from edgeface.cli.app import app

    def train(out: str, *extra: str) -> dict[str, object]:
        folders = {
            "data": photos,
            "annotations": photos / "faces.csv",
            "out": tmp_path / out,
            "cache": photos.parent / f"{photos.name}-cache",
        }
        sizes = {"samples": 4, "batch": 4, "size": 64, "late-size": 64}
        flags = [
            text
            for name, value in {**folders, **sizes}.items()
            for text in (f"--{name}", str(value))
        ]
        result = CliRunner().invoke(app, ["train", *flags, "--no-compile", *extra])
        if result.exit_code:
            raise result.exception or AssertionError(result.output)
        found: dict[str, object] = json.loads((tmp_path / out / "config.json").read_text())[
            "options"
        ]
        return found

    own = train("own", "--model", "eresfd-16", "--lr", "0.002")
    assert own["lr"] == 0.002 and own["samples"] == 4
    assert (own["optimizer"], own["drops"], own["loss"]) == (
        "sgd",
        RECIPES["eresfd"].drops,
        "multibox",
    )
    other = train("other", "--model", "eresfd-16", "--recipe", "edgeface", "--loss", "drmc")
    assert (other["optimizer"], other["lr"], other["loss"]) == ("muon", TrainOptions().lr, "drmc")
    with pytest.raises(OptionError, match="prior boxes"):
        train("refused", "--loss", "multibox")
