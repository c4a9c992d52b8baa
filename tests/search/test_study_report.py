"""The report of a search: what it says, what it must never do, and how it looks in a browser."""

from __future__ import annotations

import dataclasses
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, HOSTILE, Reader, check_in_chromium
from networks import with_part

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import layers_of, macs_of, params_of
from edgeface.architecture.registry import get_architecture
from edgeface.errors import OutputError
from edgeface.predict.table import LatencyTable, Record, Setting
from edgeface.search.findings import Findings
from edgeface.search.options import StudyOptions
from edgeface.search.report import document, write_report
from edgeface.search.results import FrontNet, Round, ScoredNetwork
from edgeface.search.space import SPACES

BUDGET_MS = 6.0
CPU = "A processor & its cores"


@dataclasses.dataclass(frozen=True)
class Example:
    """All inputs of a report."""

    options: StudyOptions
    rounds: tuple[Round, ...]
    front: tuple[FrontNet, ...]
    tables: dict[str, LatencyTable]

    def page(self, **changes: object) -> str:
        """The text of the page."""
        other = dataclasses.replace(self, **changes)  # type: ignore[arg-type]
        return document(other.options, other.rounds, other.front, other.tables)


def evaluation(
    architecture: Architecture, size: str, draw: random.Random, known: bool
) -> tuple[ScoredNetwork, float]:
    """(a real network scored by its MACs, with a predicted latency if ``known``; its latency of
    about 10 ms per 500 million MACs)."""
    width, height = map(int, size.split("x"))
    macs = macs_of(architecture, width, height)
    ms = round((1 + macs / 50e6) * draw.uniform(0.7, 1.3), 3)
    predicted = round(ms * draw.gauss(1, 0.05), 3) if known else 0.0
    interval = (0.9 * predicted, 1.1 * predicted)
    return ScoredNetwork(architecture, size, math.log(macs), predicted, predicted, interval), ms


def front_net(found: ScoredNetwork, ms: float, number: int) -> FrontNet:
    width, height = map(int, found.size.split("x"))
    layers = layers_of(found.architecture, width, height)
    return FrontNet(
        found.architecture,
        found.size,
        found.score,
        found.predicted_ms,
        found.interval_ms,
        ms,
        (0.98 * ms, 1.02 * ms),
        number,
        params_of(found.architecture),
        macs_of(found.architecture, width, height),
        max(layer.values_read + layer.values_written for layer in layers),
    )


def make(space: str, sizes: tuple[str, ...] = ("640x480",)) -> Example:
    """A study of four rounds."""
    draw, rounds, measured = random.Random(0), [], []
    for number, count in enumerate((16, 7, 7, 7, 7)):
        drawn = [SPACES[space].sample(100 * number + i) for i in range(count)]
        picked = [
            evaluation(a, sizes[i % len(sizes)], draw, number > 0) for i, a in enumerate(drawn)
        ]
        measured += [(found, ms, number) for found, ms in picked]
        rounds.append(
            Round(
                number,
                5000 * number + count,
                max(found.score for found, _ in picked),
                tuple(found for found, _ in picked),
                tuple(ms for _, ms in picked),
            )
        )
    front: list[FrontNet] = []
    for found, ms, number in sorted(measured, key=lambda m: m[1]):
        if ms <= BUDGET_MS and (not front or found.score > front[-1].score):
            front.append(front_net(found, ms, number))
    tables = {}
    for size in sizes:
        width, height = map(int, size.split("x"))
        records = tuple(
            Record(found.architecture, ms, 0.97 * ms, 1.03 * ms, ms)
            for found, ms, _ in measured
            if found.size == size
        )
        tables[size] = LatencyTable(
            Setting(width=width, height=height), CPU, "openvino 2026.1", records, (1.0, 1.2), 754.0
        )
    options = StudyOptions(space=space, sizes=sizes, budget_ms=BUDGET_MS, score="macs")
    return Example(options, tuple(rounds), tuple(front), tables)


@pytest.fixture(scope="module")
def example() -> Example:
    return make("edge")


def test_says_what_was_asked_and_found(example: Example) -> None:
    page = Reader(example.page())
    for text in (
        "Search for OpenVINO int8 networks within 6 ms",
        CPU,
        "openvino 2026.1",
        "macs, alpha 0.25",
        "stem 0.2, c2 0.27, c3 0.25, c4 0.18, c5 0.1",
        "50,044 scored, 44 measured",
        "12 min 34 s",
        "up to 20% more than at its quietest",
        "66 networks measured first, then 4 rounds of 60 generations",
    ):
        assert text in page.text, text
    assert len(example.front) > 2
    for rank, net in enumerate(example.front, 1):
        assert net.architecture.structure in page.text, "it can be copied as one"
        assert f"{rank} {net.architecture.name}" in page.text
        assert f"{net.params:,}" in page.text and f"{net.macs / 1e6:,.0f} M" in page.text
    assert "budget 6 ms" in page.text


def test_every_measured_network_is_drawn(example: Example) -> None:
    """Each has a mark in the plot of the front and one in the history of fronts; predicted ones
    also have one in the plot of errors per round."""
    marks = [
        attributes.get("class") or ""
        for name, attributes in Reader(example.page()).tags
        if name == "path" and (attributes.get("class") or "").startswith("mark")
    ]
    measured = sum(len(one.picked) for one in example.rounds)
    outside_keys = sum(m == "mark t4 pale" for m in marks) - 2
    assert outside_keys == measured - len(example.front)
    assert sum(m == "mark h0 pale" for m in marks) == len(example.rounds[0].picked)
    for shade, one in zip(("h1", "h2", "h4", "h5"), example.rounds[1:], strict=True):
        assert sum(m == f"mark {shade} pale" for m in marks) == 2 * len(one.picked)


def test_errors_of_predictions(example: Example) -> None:
    """Three networks with known errors: how many are within 10 %, the mean and largest error."""
    picked = tuple(
        dataclasses.replace(
            found, predicted_ms=ms * factor, interval_ms=(0.95 * ms, 1.05 * ms * factor)
        )
        for (found, ms, factor) in zip(
            example.rounds[1].picked, example.rounds[1].measured_ms, (1.06, 0.97, 1.3), strict=False
        )
    )
    one = Round(1, 10, 12.0, picked, example.rounds[1].measured_ms[:3])
    net = dataclasses.replace(
        example.front[0],
        measured_ms=2.0,
        predicted_ms=2.5,
        predicted_interval_ms=(2.1, 2.9),
        round=0,
    )
    table = re.search(
        r"<table><thead><tr><th[^>]*>networks of<.*?</table>",
        example.page(rounds=(example.rounds[0], one), front=(net,)),
    )
    assert table
    found = {
        name: re.findall(r">([^<]+)<", rest)
        for name, rest in re.findall(r"<tr><td class=\"\">([^<]+)</td>(.*?)</tr>", table[0])
    }
    assert (
        found["round 1"] == found["all rounds"] == ["3", "2 (67%)", "3", "13.0%", "30.0%", "+11.0%"]
    )
    assert found["the front"] == ["1", "0 (0%)", "0", "25.0%", "25.0%", "+25.0%"]


@pytest.mark.parametrize("space", SPACES)
def test_shares_of_each_winner_add_up(space: str) -> None:
    """They add up to 100 %, also if a stem of stride 4 takes the place of c2."""
    draw = random.Random(0)
    nets = [
        front_net(*evaluation(SPACES[space].sample(seed), "640x480", draw, True), 1)
        for seed in range(2)
    ]
    labels = re.findall(
        r'aria-label="((?:stem|c2) [^"]*% of the MACs)"',
        document(StudyOptions(budget_ms=9), (), nets, {}),
    )
    assert len(labels) == len(nets)
    for label in labels:
        shares = dict(re.findall(r"(\w+) ([\d.]+) % of", label))
        assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.1)
        assert {"c2", "c3", "c4", "c5", "neck", "head"} <= set(shares)


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "pareto", "cost": "size"},
        {"objective": "pareto", "cost": "memory"},
        {"objective": "weighted", "budget_ms": 0.0},
    ],
)
def test_other_objectives(example: Example, change: dict[str, Any]) -> None:
    page = Reader(example.page(options=dataclasses.replace(example.options, **change)))
    cost = change.get("cost", "latency")
    assert f"Score against {cost}" in page.text and "Score against latency" in page.text
    assert ("budget 6 ms" in page.text) == ("budget_ms" not in change)
    assert not page.open and not page.crossed


def test_sizes_are_told_apart() -> None:
    example = make("resnet", ("640x480", "320x256"))
    page = example.page()
    assert "smaller marks: smaller input" in page and "640x480 or 320x256" in page
    assert f"{example.front[0].architecture.name} at {example.front[0].size}" in page
    assert "smaller marks" not in make("resnet").page()


def test_no_network_kept_the_limits(example: Example) -> None:
    options = dataclasses.replace(example.options, budget_ms=1.0)
    page = Reader(example.page(options=options, front=()))
    nearest, ms = min(
        (
            (found, ms)
            for one in example.rounds
            for found, ms in zip(one.picked, one.measured_ms, strict=True)
        ),
        key=lambda m: m[1],
    )
    assert "No network that was measured kept the limits" in page.text
    assert re.search(
        rf"{nearest.architecture.name}: score .* {ms - 1:.0%} above the budget of 1 ms", page.text
    )
    assert "none keeps the budget" in page.text and "What the winners are made of" not in page.text


def test_a_budget_of_multiply_accumulates_is_a_limit(example: Example) -> None:
    options = dataclasses.replace(example.options, budget_ms=0.0, budget_mmacs=200.0)
    page = Reader(example.page(options=options, front=()))
    assert "within 200 million multiply-accumulates" in page.text
    picked = [found for one in example.rounds for found in one.picked]
    macs = {found: macs_of(found.architecture, 640, 480) for found in picked}
    study = Findings(options, example.rounds, (), example.tables)
    kept = [m.evaluation for m in study.measured if study.fits(m)]
    assert kept == [found for found in picked if macs[found] <= 200e6] and len(kept) < len(picked)
    tight = dataclasses.replace(options, budget_mmacs=min(macs.values()) / 1.5e6)
    nearest = min(picked, key=macs.__getitem__).architecture.name
    text = Reader(example.page(options=tight, front=())).text
    assert re.search(rf"{nearest}: score .* 50% above the budget of", text)


def test_a_network_that_was_chosen_twice_counts_once(example: Example) -> None:
    """Its first measurement was too uncertain; a value predicted after it is no prediction."""
    first, second, *rest = example.rounds[1:]
    picked, ms = first.picked + second.picked, first.measured_ms + second.measured_ms
    second = dataclasses.replace(second, picked=picked, measured_ms=ms)
    plain, study = (
        Findings(example.options, rounds, example.front, example.tables)
        for rounds in (example.rounds, (example.rounds[0], first, second, *rest))
    )
    assert study.measured == plain.measured and study.predicted == plain.predicted


def test_hostile_strings_stay_text(example: Example) -> None:
    evil = dataclasses.replace(example.front[0].architecture, name=HOSTILE)
    strange = with_part(with_part(evil, "backbone", structure=HOSTILE), "neck", kind=HOSTILE)
    nets = (
        dataclasses.replace(example.front[0], architecture=evil, size=HOSTILE),
        dataclasses.replace(example.front[1], architecture=strange),
    )
    one = example.rounds[1]
    picked = tuple(
        dataclasses.replace(found, architecture=evil, size=HOSTILE) for found in one.picked
    )
    tables = {HOSTILE: dataclasses.replace(example.tables["640x480"], cpu=HOSTILE, runtime=HOSTILE)}
    options = dataclasses.replace(
        example.options,
        device=HOSTILE,
        target=HOSTILE,
        precision=HOSTILE,
        space=HOSTILE,
        score=HOSTILE,
    )
    page = example.page(
        options=options,
        rounds=(dataclasses.replace(one, picked=picked), *example.rounds[2:]),
        front=nets,
        tables=tables,
    )
    page.encode("utf-8")
    read = Reader(page)
    read.check_harmless(Reader(example.page()))
    assert "its layers are not listed" in read.text
    assert not read.open and not read.crossed


def test_refers_to_nothing_outside(example: Example) -> None:
    page = example.page(
        options=dataclasses.replace(example.options, space="/home/someone/own.json")
    )
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<iframe|data:", page)
    assert "default-src 'none'" in page
    assert "/home" not in page and "own.json" in page


def test_equal_input_gives_equal_bytes(example: Example, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        fresh = make("edge")
        write_report(
            tmp_path / name, fresh.options, list(fresh.rounds), list(fresh.front), fresh.tables
        )
    assert (
        (tmp_path / "a.html").read_bytes()
        == (tmp_path / "b.html").read_bytes()
        == example.page().encode()
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(
            tmp_path / "file" / "report.html", example.options, example.rounds, example.front, {}
        )


@pytest.mark.parametrize(
    "change",
    [
        "nothing at all",
        "first round only",
        "no tables",
        "empty table",
        "zeros",
        "huge",
        "one network",
        "zoo network",
        "no best",
    ],
)
def test_odd_studies(example: Example, change: str) -> None:
    """Whatever a run folder contains, the page is written and every tag is closed."""
    found = example
    first = example.rounds[0]
    if change == "nothing at all":
        found = dataclasses.replace(example, rounds=(), front=(), tables={})
    elif change == "first round only":
        found = dataclasses.replace(example, rounds=(first,))
    elif change == "no tables":
        found = dataclasses.replace(example, tables={})
    elif change == "empty table":
        empty = dataclasses.replace(example.tables["640x480"], records=(), reference_ms=())
        found = dataclasses.replace(example, tables={"640x480": empty})
    elif change in ("zeros", "huge"):
        value = 0.0 if change == "zeros" else 1e299
        flat = tuple(
            dataclasses.replace(r, measured_ms=len(r.picked) * (value,)) for r in example.rounds
        )
        nets = tuple(
            dataclasses.replace(net, measured_ms=value, interval_ms=(value, value))
            for net in example.front
        )
        found = dataclasses.replace(example, rounds=flat, front=nets)
    elif change == "one network":
        alone = Round(0, 1, 1.0, first.picked[:1], first.measured_ms[:1])
        found = dataclasses.replace(example, rounds=(alone,), front=example.front[:1])
    elif change == "zoo network":
        net = dataclasses.replace(example.front[0], architecture=get_architecture("edgeface-n"))
        found = dataclasses.replace(example, front=(net, *example.front[1:]))
    else:
        found = dataclasses.replace(
            example,
            rounds=tuple(dataclasses.replace(r, best_score=-math.inf) for r in example.rounds),
        )
    page = found.page()
    read = Reader(page)
    assert not re.search(r"\b(nan|inf)\b", page) and page.endswith("</html>\n")
    assert not read.open and not read.crossed


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize("width_px", [1200, 400])
def test_opens_in_a_browser_without_network(
    example: Example, tmp_path: Path, width_px: int
) -> None:
    page = tmp_path / "report.html"
    write_report(page, example.options, example.rounds, example.front, example.tables)
    check_in_chromium(page, width_px)
