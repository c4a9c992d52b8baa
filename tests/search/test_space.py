"""Spaces: what is drawn keeps the limits, builds, and is the same for the same seed."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from edgeface.errors import OptionError
from edgeface.models.structure import parse
from edgeface.search.layers import macs_of
from edgeface.search.space import SPACES, get_space


@pytest.mark.parametrize("name", SPACES)
def test_samples_keep_the_limits(name):
    space = SPACES[name]
    for seed in range(15):
        architecture = space.sample(seed)
        blocks = parse(architecture.backbone.structure)
        assert space.contains(architecture)
        assert space.macs[0] <= macs_of(architecture, 640, 480) <= space.macs[1]
        assert [block.stride for block in blocks] == [2] * 5
        assert all(block.out_channels % 8 == 0 and block.bottleneck % 8 == 0 for block in blocks)
        assert all(a.out_channels <= b.out_channels <= 4 * a.out_channels for a, b in pairwise(blocks))
        assert blocks[1].kernel < 7
        assert all((block.kind, block.kernel, block.expansion) in space.blocks for block in blocks[1:])


def test_same_seed_same_network():
    assert SPACES["idw"].sample(3) == SPACES["idw"].sample(3)
    assert SPACES["idw"].sample(3) != SPACES["idw"].sample(4)


@pytest.mark.parametrize("name", SPACES)
def test_mutations_change_one_place_and_stay_inside(name):
    space, draw = SPACES[name], random.Random(0)
    parent = space.sample(0)
    for _ in range(40):
        child = space.mutate(parent, draw)
        assert space.contains(child)
        mine, theirs = parse(child.backbone.structure), parse(parent.backbone.structure)
        changed = [i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
        ends = (child.neck, child.head) != (parent.neck, parent.head)
        assert changed or ends
        assert child.name != parent.name
        assert not (changed and ends)
        assert len(changed) <= 2  # the block, and the input width of the next
        assert changed == sorted(changed)
        assert len(changed) < 2 or changed[1] == changed[0] + 1
        parent = child


@pytest.mark.parametrize("name", SPACES)
def test_networks_take_a_training_step(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.models import build

    network = build(SPACES[name].sample(2))
    before = network.head.cls[0].conv.weight.clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = sum(output.square().mean() for output in network(torch.rand(2, 3, 64, 64) * 255))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert not torch.equal(before, network.head.cls[0].conv.weight)


def test_unknown_space():
    with pytest.raises(OptionError, match=r"unknown space 'nas' \(known: idw, xx, resnet\)"):
        get_space("nas")
    assert get_space("xx").name == "xx"
