"""DamoFD's own search: its exact FLOPs, its limits, and the networks it ends in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from commands import Command, failed

from edgeface.architecture import Architecture, PlainNetSpec, get_architecture
from edgeface.architecture.structure import parse
from edgeface.errors import OptionError
from edgeface.search.published import REGIMES, ddsar, flops, search
from edgeface.search.scores.ddsar import score
from edgeface.zoo import named_architecture

FLOPS = {
    "damofd-0.5g": 63_135_422,
    "damofd-2.5g": 326_830_000,
    "damofd-10g": 1_341_946_928,
    "damofd-34g": 4_147_297_476,
}
"""FLOPs of the published backbones at 224x224, by the authors' count"""


@pytest.mark.parametrize("name", FLOPS)
def test_flops_as_the_authors_count_them(name: str) -> None:
    blocks = parse(get_architecture(name).structure)
    assert flops(blocks) == FLOPS[name]
    assert 0.94 < FLOPS[name] / REGIMES[name.removeprefix("damofd-")].budget < 0.98


@pytest.mark.parametrize("name", FLOPS)
def test_quick_score_is_the_score(name: str) -> None:
    network = get_architecture(name)
    assert ddsar(parse(network.structure)) == pytest.approx(
        score(network.backbone).ddsar, rel=1e-12
    )


@pytest.mark.parametrize("name", REGIMES)
def test_a_short_search(name: str) -> None:
    """Networks come best first, within the limits and with the stem of the start; the same seed
    finds the same ones."""
    regime = REGIMES[name]
    found = search(regime, seed=1, iterations=2000, population=64)
    assert found == search(regime, seed=1, iterations=2000, population=64)
    assert found != search(regime, seed=2, iterations=2000, population=64)
    assert 0 < len(found) <= 64
    assert [f.ddsar for f in found] == sorted((f.ddsar for f in found), reverse=True)
    stem = parse(regime.start)[0]
    for net in found:
        blocks = parse(net.structure)
        assert blocks[0] == stem and len(blocks) == 5
        assert flops(blocks) == net.flops <= regime.budget
        assert sum(block.layers for block in blocks) <= regime.max_layers
        assert all(block.layers < 6 for block in blocks)
        assert net.ddsar == pytest.approx(score(PlainNetSpec(net.structure)).ddsar, rel=1e-12)


def test_the_whole_search_ends_in_trivial_nets() -> None:
    """After 96,000 iterations the gain over the start is twice the published one, reached by thin,
    deep nets of large kernels."""
    best = search(REGIMES["0.5g"], seed=0)[0]
    blocks = parse(best.structure)
    assert best.ddsar > 17.5  # published: 13.18
    assert sum(block.bottleneck <= 16 for block in blocks[1:]) >= 3
    assert sum(block.kernel == 7 for block in blocks[1:]) >= 2
    assert max(block.layers for block in blocks) >= 4


def test_progress_and_limits() -> None:
    ticks: list[tuple[str, int, int]] = []
    search(REGIMES["0.5g"], seed=0, iterations=2001, progress=lambda *values: ticks.append(values))
    assert [done for _, done, _ in ticks] == [0, 1000, 2000]
    assert search(dataclasses.replace(REGIMES["0.5g"], budget=1.0), seed=0, iterations=50) == []
    with pytest.raises(OptionError, match="at least 1"):
        search(REGIMES["0.5g"], seed=0, iterations=0)


def test_the_command(edgeface: Command, tmp_path: Path) -> None:
    """It prints the best network that the search finds, and writes a file usable as its name."""
    code, out, _ = edgeface("search", "--published", "0.5g", "--format", "json", "--out", tmp_path)
    found, best = json.loads(out), search(REGIMES["0.5g"], seed=0)[0]
    network = Architecture.from_json(found["architecture"])
    assert code == 0 and found["ddsar"] == best.ddsar and network.structure == best.structure
    assert score(network.backbone).ddsar == pytest.approx(best.ddsar, rel=1e-12)
    assert named_architecture(tmp_path / "architecture.json") == network
    assert edgeface("search", "--published", "2.5g", "--seed", 3, "--out", tmp_path)[0] == 0
    (tmp_path / "architecture.json").write_text(
        networks := network.dumps().replace("damofd-", "my")
    )
    line = failed(edgeface("search", "--published", "0.5g", "--out", tmp_path), "would be replaced")
    assert "architecture.json is not of a published search" in line
    assert (tmp_path / "architecture.json").read_text() == networks
    failed(edgeface("search", "--published", "1g"), "'1g'", "0.5g, 2.5g, 10g, 34g")
    failed(
        edgeface("search", "--published", "10g", "--budget-ms", "5", "--resume", "x"),
        "leave --budget-ms, --resume out",
    )
