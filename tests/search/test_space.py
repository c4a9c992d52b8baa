"""Spaces: drawn networks keep the limits, can be built, and are the same for the same seed."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from networks import with_part

from edgeface.architecture.layers import macs_of, params_of
from edgeface.architecture.registry import get_architecture
from edgeface.architecture.structure import SuperBlock, parse
from edgeface.errors import OptionError
from edgeface.search.evolution import Pool
from edgeface.search.space import SPACES, get_space


@pytest.mark.parametrize("name", SPACES)
def test_samples_keep_the_limits(name: str) -> None:
    space = SPACES[name]
    for seed in range(15):
        architecture = space.sample(seed)
        blocks = parse(architecture.structure)
        assert space.contains(architecture)
        assert space.macs[0] <= macs_of(architecture, 640, 480) <= space.macs[1]
        assert [block.stride for block in blocks] in ([2] * 5, [4] + [2] * 3)
        assert blocks[0].stride in space.stem_strides
        assert all(block.out_channels % 8 == 0 and block.bottleneck % 8 == 0 for block in blocks)
        assert all(
            a.out_channels <= b.out_channels <= 4 * a.out_channels for a, b in pairwise(blocks)
        )
        assert blocks[-4].kernel < 7
        assert all(
            (block.kind, block.kernel, block.expansion) in space.blocks for block in blocks[1:]
        )


def test_the_space_of_the_docs(tmp_path: Path) -> None:
    """The example space in docs/search.md is valid, and all of its kinds of blocks are drawn."""
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
    path = tmp_path / "mine.json"
    path.write_text(page.split("```json\n")[1].split("```")[0])
    space = get_space(str(path))
    kinds = {block.kind for i in range(12) for block in parse(space.sample(i).structure)}
    assert kinds == {"conv", "led", "separable"}


def test_the_edge_space_has_both_stems_and_all_kinds() -> None:
    drawn = [parse(SPACES["edge"].sample(seed).structure) for seed in range(30)]
    assert {blocks[0].stride for blocks in drawn} == {2, 4}
    assert {block.kind for blocks in drawn for block in blocks} == {
        "conv",
        "separable",
        "basic",
        "led",
        "bottleneck",
    }


def test_a_search_of_the_edge_space_knows_the_detectors_of_the_zoo() -> None:
    space = SPACES["edge"]
    members = {macs_of(a, 640, 480): a for a in space.members()}
    for name in ("edgeface-n", "edgeface-0.5x", "edgeface-1x", "edgeface-2x"):
        known = get_architecture(name)
        bare = with_part(known, "head", landmarks=0)
        assert params_of(members[macs_of(bare, 640, 480)]) == params_of(bare)
    assert not SPACES["idw"].members()
    first = Pool(space, ("640x480",)).first(0, 20, "onnx")
    assert len(first) == 20
    assert set(members.values()) <= {c.architecture for c in first}


def test_same_seed_same_network() -> None:
    assert SPACES["idw"].sample(3) == SPACES["idw"].sample(3)
    assert SPACES["idw"].sample(3) != SPACES["idw"].sample(4)


@pytest.mark.parametrize("name", SPACES)
def test_mutations_change_one_place_and_stay_inside(name: str) -> None:
    space, draw = SPACES[name], random.Random(0)
    parent = space.sample(0)
    for _ in range(40):
        child = space.mutate(parent, draw)
        assert space.contains(child)
        assert child.name != parent.name
        before = (parent.neck, parent.head)
        mine, theirs = parse(child.structure), parse(parent.structure)
        parent = child
        if len(mine) != len(theirs):  # a new stem stride (2 or 4) adds or removes c2
            continue
        changed = [i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
        ends = (child.neck, child.head) != before
        assert changed or ends
        assert not (changed and ends)
        assert len(changed) <= 2  # the block, and the input width of the next
        assert changed == sorted(changed)
        assert len(changed) < 2 or changed[1] == changed[0] + 1


@pytest.mark.parametrize("name", SPACES)
def test_networks_take_a_training_step(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.models import build

    network = build(SPACES[name].sample(2))
    head: Any = network.head
    before = head.cls[0].conv.weight.clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = sum(output.square().mean() for output in network(torch.rand(2, 3, 64, 64) * 255))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert not torch.equal(before, head.cls[0].conv.weight)


def test_a_narrow_projection_survives_a_training_step_with_channels_last() -> None:
    """Runs in a process of its own, because the bug of torch ends the process."""
    pytest.importorskip("torch", reason="torch is not installed")
    code = """
import torch
from edgeface.architecture import PlainNetSpec
from edgeface.models.detector import build_backbone
network = build_backbone(PlainNetSpec("SuperConvK6BNRELU(3,8,4,1)SuperResK1K3K1(8,8,2,16,1)"
    "SuperResK3K3(8,16,2,8,1)SuperResK3K3(16,16,2,8,1)")).train()
images = torch.rand(4, 3, 256, 256).to(memory_format=torch.channels_last)
sum(feature.mean() for feature in network(images)).backward()
print(all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-500:]


def test_a_stem_of_another_stride_brings_or_removes_c2() -> None:
    space, draw = SPACES["edge"], random.Random(2)
    parent, lengths = space.sample(1), set()
    for _ in range(150):
        parent = space.mutate(parent, draw)
        blocks = parse(parent.structure)
        assert len(blocks) == (4 if blocks[0].stride == 4 else 5)
        lengths.add(len(blocks))
    assert lengths == {4, 5}


@pytest.mark.parametrize("name", SPACES)
def test_children_are_made_of_both_parents(name: str) -> None:
    space, draw = SPACES[name], random.Random(3)
    parents = [space.sample(seed) for seed in range(8)]
    mixed = 0
    for _ in range(60):
        first, second = draw.sample(parents, 2)
        child = space.cross(first, second, draw)
        assert space.contains(child)
        own = {shape(block) for parent in (first, second) for block in parse(parent.structure)}
        assert all(shape(block) in own for block in parse(child.structure))
        assert (child.neck, child.head) in [
            (parent.neck, parent.head) for parent in (first, second)
        ]
        mixed += child not in (first, second)
    assert mixed > 5


def shape(block: SuperBlock) -> SuperBlock:
    """``block`` without its input width, which follows from the block before."""
    return dataclasses.replace(block, in_channels=8)


def test_inner_widths_of_a_narrow_space_keep_their_limit() -> None:
    # A block of 88 channels or more needs an inner width of 16: a tenth of its own.
    blocks = (("basic", 3, 0), ("conv", 3, 0))
    space = dataclasses.replace(
        SPACES["edge"], name="narrow", blocks=blocks, max_inner=8, macs=(0.15e9, 0.5e9)
    )
    drawn = [space.sample(seed) for seed in range(40)]
    drawn += [space.mutate(parent, random.Random(0)) for parent in drawn]
    assert all(block.bottleneck <= 8 for a in drawn for block in parse(a.structure))


def test_a_stem_of_another_stride_gets_a_c2_that_the_space_has() -> None:
    # c2 has no kernel of 7: without one, a network would end at stride 16.
    blocks = (("basic", 7, 0), ("basic", 3, 0), ("conv", 3, 0))
    space = dataclasses.replace(SPACES["edge"], name="large", blocks=blocks, macs=(0.15e9, 1e9))
    draw, parents = random.Random(0), [space.sample(seed) for seed in range(10)]
    for parent in parents * 10:
        strides = [block.stride for block in parse(space.mutate(parent, draw).structure)]
        assert math.prod(strides) == 32


def test_unknown_space() -> None:
    with pytest.raises(
        OptionError, match=r"unknown space 'nas' \(known: idw, xx, resnet, edge, or a .json file\)"
    ):
        get_space("nas")
    assert get_space("xx").name == "xx"


def test_a_space_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(dataclasses.asdict(SPACES["edge"])))
    assert get_space(str(path)) == SPACES["edge"]
    assert get_space(str(path)).sample(3) == SPACES["edge"].sample(3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"macs": [2e9, 1e9]},
            "macs contradict the rest of the space; accepted: two numbers, of which the second",
        ),
        ({"max_width": 8, "stems": [16]}, "max_width contradict"),
        ({"max_layers": 3}, "max_layers contradict"),
        ({"stems": [12]}, "multiples of 8"),
        ({"stem_strides": [3]}, "2, 4 or both"),
        ({"blocks": [["dense", 3, 0]]}, "dense block: kind is 'dense'"),
        ({"blocks": []}, "at least one"),
        ({"name": "my space"}, "name 'my space' is no beginning of the names of files; accepted"),
        ({"name": "../other"}, "1 to 51 letters, digits, '.', '_' or '-', the first a letter or"),
        ({"name": "x" * 52}, "is no beginning of the names of files"),
        ({"blocks": "conv"}, "expected a list"),
        ({"colour": 1}, "unknown field 'colour'"),
    ],
)
def test_a_space_that_contradicts_itself(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(dataclasses.asdict(SPACES["edge"]) | change))
    with pytest.raises(OptionError) as caught:
        get_space(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"{", b"\xff", b"[]"])
def test_a_space_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "space.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OptionError) as caught:
        get_space(str(path))
    assert str(path) in str(caught.value)


def test_a_space_in_which_nothing_can_be_drawn() -> None:
    space = dataclasses.replace(SPACES["edge"], name="empty", macs=(5e12, 6e12))
    with pytest.raises(OptionError, match=r"space empty: nothing drawn has about 5.* million"):
        space.sample(0)
