"""Counting parameters and multiply-accumulates, on layers whose cost is counted by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import Tensor, nn

from edgeface.architecture import get_architecture
from edgeface.architecture.registry import ARCHITECTURES, listed
from edgeface.models import build
from edgeface.models.complexity import Complexity, count
from edgeface.models.detector import deployable
from edgeface.zoo.counted import COUNTED_AT, content_of, counts, read_counts


class Shared(nn.Module):
    """A convolution that runs three times, a transposed convolution and a linear layer.

    The first convolution is registered twice, so it has two names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.alias = self.conv
        self.up = nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3)
        self.linear = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.conv(x)
        y: Tensor = self.linear(self.up(x).permute(0, 2, 3, 1))
        return y


def test_shared_modules_count_each_time_they_run() -> None:
    width, height = 10, 6
    counted = count(Shared(), width, height)
    conv = 3 * (width * height * 3 * 3 * 9)
    up = width * height * 3 * 2 * 4  # each input element meets its group's 2 outputs times 2x2 taps
    linear = (2 * width) * (2 * height) * 6 * 5
    assert counted.parts == {"conv": conv, "up": up, "linear": linear}
    assert counted.macs == conv + up + linear
    assert counted.params == (3 * 3 * 9 + 3) + (3 * 2 * 4 + 6) + (6 * 5 + 5)


def test_strides_groups_and_dilation() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1, groups=3), nn.Conv2d(12, 4, 3, dilation=2)
    )
    assert count(net, 32, 32).macs == 16 * 16 * 12 * 9 + 12 * 12 * 4 * 12 * 9


@pytest.mark.parametrize("name", ["edgeface-n", "damofd-0.5g", "scrfd-0.5g-bn"])
def test_name_architecture_module_and_folded_copy_agree(name: str) -> None:
    model = build(name)
    by_name = count(name, 96, 64)
    assert by_name == count(get_architecture(name), 96, 64) == count(model, 96, 64)
    assert count(deployable(model), 96, 64).parts == by_name.parts
    assert by_name.macs == sum(by_name.parts[part] for part in ("backbone", "neck", "head"))
    stages = sum(macs for part, macs in by_name.parts.items() if part == "stem" or part[0] == "c")
    assert stages == by_name.parts["backbone"]


def test_counting_leaves_the_model_as_it_was() -> None:
    model = build("scrfd-0.5g").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count(model, 64, 64)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class NeedsValues(nn.Module):
    """Cannot run without values: it branches on data and keeps a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.offset = torch.ones(1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x + self.offset)
        return y if float(y.sum()) > 0 else -y


def test_a_module_that_needs_values_is_counted_too() -> None:
    assert count(NeedsValues(), 8, 4) == Complexity(
        params=8, macs=8 * 4 * 6, parts={"conv": 8 * 4 * 6}
    )


def test_complexity_is_json_ready() -> None:
    counted = count("damofd-0.5g", 32, 32)
    assert json.loads(json.dumps(counted.to_json())) == {
        "params": counted.params,
        "macs": counted.macs,
        "parts": counted.parts,
    }


def test_every_listed_network_has_been_counted() -> None:
    """If it fails after a change of networks, run ``python -m edgeface.zoo.counted``."""
    known = read_counts()
    assert {name: counted.content for name, counted in known.items()} == {
        name: content_of(get_architecture(name)) for name in listed()
    }


@pytest.mark.parametrize("name", listed()[::7])
def test_what_was_counted_is_so(name: str) -> None:
    found, known = count(name, *COUNTED_AT), read_counts()[name]
    assert (found.params, found.macs) == (known.params, known.macs)


def test_figures_of_a_network_that_has_changed_are_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = dataclasses.replace(get_architecture("edgeface-0.5x"), name="edgeface-n")
    monkeypatch.setitem(ARCHITECTURES, "edgeface-n", other)
    told: list[str] = []
    figures = counts(*COUNTED_AT, lambda what, done, total, note="": told.append(note))
    found = dict(zip(listed(), figures, strict=True))
    assert told == ["edgeface-n"] and found["edgeface-n"].params == found["edgeface-0.5x"].params
