"""What a comparison of searches selects and prints.

The searches themselves are tested in tests/search/test_study.py."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.research import comparison as searches
from benchmarks.research.comparison import Rival, _best, damofd, main
from benchmarks.research.selection import load_networks, save_networks
from benchmarks.research.trainings import write_rows
from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.errors import DataError
from edgeface.search.results import FrontNet
from edgeface.search.space import SPACES
from edgeface.search.trials.known import network_fields


def front_net(seed: int, score: float, ms: float) -> FrontNet:
    a = SPACES["edge"].sample(seed)
    return FrontNet(
        a, "640x480", score, ms, (ms, ms), ms, (ms, ms), 1, params_of(a), macs_of(a, *COUNTED_AT), 1
    )


def test_the_rival_is_damofds_backbone() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.models import build

    outputs = build(damofd())(torch.zeros(1, 3, 64, 64))
    assert [tuple(o.shape[1:]) for o in outputs][:2] == [(1, 8, 8), (4, 8, 8)]
    # the published backbone has 390 million MACs; neck and head have the published widths
    assert 400e6 < macs_of(damofd(), *COUNTED_AT) < 500e6


def test_the_best_score_that_keeps_the_latency_wins() -> None:
    nets = [front_net(0, 9.0, 5.0), front_net(1, 11.0, 6.1), front_net(2, 10.0, 5.9)]
    assert _best("clock", nets, 6.0).score == 10.0
    with pytest.raises(DataError, match=r"clock: none of 3 networks takes at most 1.000 ms"):
        _best("clock", nets, 1.0)


@pytest.fixture()
def comparison(tmp_path: Path) -> Path:
    rivals = [
        Rival(role, SPACES["edge"].sample(i), 10.0 + i, 5.0 + i, 4.9 + i, 5.1 + i)
        for i, role in enumerate(("clock", "macs"))
    ]
    (tmp_path / "rivals.json").write_text(json.dumps([dataclasses.asdict(r) for r in rivals]))
    save_networks(tmp_path / "networks.json", [r.architecture for r in rivals])
    row: dict[str, Any] = {
        "easy": "0.5",
        "medium": "0.4",
        "hard": "0.25",
        "cls_loss": "1",
        "box_loss": "1",
        "samples": "10",
        "seed": "0",
    }
    write_rows(
        tmp_path / "trainings.csv",
        [network_fields(rivals[0].architecture) | row],
        ["command: none"],
    )
    return tmp_path


def test_table(comparison: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["table", "--out", str(comparison), "--csv", str(comparison / "trainings.csv")]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    clock, macs = (
        next(line for line in lines if line.startswith(role)) for role in ("clock", "macs")
    )
    assert "5.000" in clock
    assert "0.5 0.4 0.25" in clock
    assert "not trained" in macs
    assert main(["table", "--out", str(comparison)]) == 0


def test_a_network_that_both_searches_find_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, other = (SPACES["edge"].sample(i) for i in range(2))
    rivals = [
        Rival(role, network, 10.0, 5.0, 4.9, 5.1)
        for role, network in (("clock", same), ("macs", same), ("damofd", other))
    ]
    monkeypatch.setattr(searches, "find", lambda *_: rivals)
    assert main(["find", "--out", str(tmp_path)]) == 0
    assert load_networks(tmp_path / "networks.json") == [same, other]


@pytest.mark.parametrize("content", [None, "{", "[1]", '[{"role": "clock"}]'])
def test_damaged_files(
    comparison: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in comparison.glob("*.json"):  # without any, the advice is not to make networks.json
        file.unlink()
    if content is not None:
        (comparison / "rivals.json").write_text(content)
    assert main(["table", "--out", str(comparison)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "rivals.json" in error
    if content in (None, "{"):
        assert "python -m benchmarks.research.comparison find makes it" in error
    assert error.count("\n") == 1


def test_a_device_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find", "--out", str(tmp_path / "a"), "--device", "telnet://pi"]) == 2
    assert "telnet" in capsys.readouterr().err
