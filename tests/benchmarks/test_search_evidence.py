"""Evidence on whether scores rank trained networks: selection, and the table of trainings.

The table is tested with made-up trainings and those of the repository."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidence import TINY, Trainings, complaint

from benchmarks.research.evidence import NETWORKS, main
from benchmarks.research.ranking import LEARNED
from benchmarks.research.selection import load_networks, save_networks, select
from edgeface.architecture import Architecture
from edgeface.architecture.layers import macs_of
from edgeface.errors import OptionError
from edgeface.search.scores.registry import PROXIES, WITH_ALPHA, proxy
from edgeface.search.space import get_space
from edgeface.search.trials.known import COLUMNS
from edgeface.search.trials.model import LEAST_TRAININGS

pytest.importorskip("scipy", reason="SciPy is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

SPACE = NETWORKS.with_name("space.json")
"""the search space that the networks in the repository were drawn from"""


# -- select


def test_selected_networks_cost_the_same_and_spread(tmp_path: Path) -> None:
    """Selected networks have 200 million MACs within 3 %, with scores from lowest to highest.

    Their scores are evenly spaced quantiles of those of all networks drawn."""
    space = get_space("edge")
    found = select(space, 6, 0.2e9, 0.03, seed=1, drawn=40)
    assert all(abs(macs_of(a, 640, 480) / 0.2e9 - 1) <= 0.03 for a in found)
    assert [a.name for a in found] == [f"edge-200m-{i:02d}" for i in range(6)]
    scores = [proxy("detector", a, 0.05) for a in found]
    assert scores == sorted(set(scores))
    everyone = [
        proxy("detector", a, 0.05) for a in select(space, 40, 0.2e9, 0.03, seed=1, drawn=40)
    ]
    assert (scores[0], scores[-1]) == (everyone[0], everyone[-1])
    ranks = [np.searchsorted(everyone, score) / 39 for score in scores]
    assert ranks == pytest.approx(np.linspace(0, 1, 6), abs=0.05)
    assert (
        found
        == select(space, 6, 0.2e9, 0.03, seed=1, drawn=40)
        != select(space, 6, 0.2e9, 0.03, 2, drawn=40)
    )
    save_networks(tmp_path / "nets.json", found)
    assert load_networks(tmp_path / "nets.json") == found


@pytest.mark.parametrize(
    ("count", "macs", "tolerance"),
    [(1, 0.2e9, 0.03), (41, 0.2e9, 0.03), (6, -1, 0.03), (6, 0.2e9, 0.0), (6, 0.2e9, float("nan"))],
)
def test_what_cannot_be_selected(count: int, macs: float, tolerance: float) -> None:
    with pytest.raises(OptionError, match="2 to 40 networks"):
        select(get_space("edge"), count, macs, tolerance, seed=0, drawn=40)


def test_the_networks_of_the_checkout() -> None:
    found = load_networks(NETWORKS)
    assert len(found) == 24 and all(abs(macs_of(a, 640, 480) / 0.2e9 - 1) <= 0.03 for a in found)


@pytest.mark.slow
def test_the_networks_of_the_checkout_are_drawn_again(tmp_path: Path) -> None:
    """They are drawn from the space as it was then, which is kept in a file beside them.

    Whoever changes the space `edge` leaves that file as it is."""
    assert main(["select", "--space", str(SPACE), "--networks", str(tmp_path / "nets.json")]) == 0
    assert load_networks(tmp_path / "nets.json") == load_networks(NETWORKS)


# -- table


@pytest.fixture(scope="module")
def networks() -> list[Architecture]:
    return load_networks(NETWORKS)


def figures(
    capsys: pytest.CaptureFixture[str], path: Path, *arguments: str
) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The table's JSON, and its correlations by (score, setting, group)."""
    assert main(["table", "--csv", str(path), "--format", "json", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    return result, {(c["score"], c["setting"], c["group"]): c for c in result["correlations"]}


def test_a_score_that_ranks_perfectly(
    trainings: Trainings, networks: list[Architecture], capsys: pytest.CaptureFixture[str]
) -> None:
    """AP equals a score as computed today: the scores stored in the file are ignored."""
    ap = [proxy("outputs", a, 0.02) / 100 for a in networks]
    result, found = figures(
        capsys, trainings(ap, networks), "--alphas", "0,0.02", "--settings", "hard", "easy"
    )
    assert (result["trained"], result["planned"], result["samples"]) == (24, 24, 640)
    best = found["outputs@0.02", "hard", "all"]
    assert (best["networks"], best["kendall"], best["kendall_interval"]) == (24, 1, [1, 1])
    assert (best["spearman"], best["spearman_interval"]) == (1, [1, 1])
    assert abs(found["outputs@0.02", "easy", "all"]["kendall"]) < 0.5
    names = {f"{name}@{alpha}" for name in WITH_ALPHA for alpha in ("0", "0.02")} | set(
        PROXIES
    ) - set(WITH_ALPHA)
    assert {score for score, *_ in found} == names | {LEARNED}
    groups = {group: c["networks"] for (_, _, group), c in found.items()}
    assert groups == {"all": 24, "stem of stride 2": 7, "stem of stride 4": 17}
    assert found["outputs@0.02", "hard", "stem of stride 2"]["kendall"] == 1


def test_within_a_stem_stride(
    trainings: Trainings, networks: list[Architecture], capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores are also judged within each stem stride, as a score may reflect the stride alone.

    Here AP falls with the score for stems of stride 4 and rises for those of stride 2."""
    turned = [
        proxy("levels", a, 0.0) / 100 * (-1 if "K6" in a.structure else 1) + 1 for a in networks
    ]
    _, found = figures(capsys, trainings(turned, networks), "--alphas", "0")
    assert found["levels@0", "hard", "stem of stride 4"]["kendall"] == -1
    assert found["levels@0", "hard", "stem of stride 2"]["kendall"] == 1
    assert -1 < found["levels@0", "hard", "all"]["kendall"] < 1


def test_what_is_learned_ranks_what_follows_from_the_networks(
    trainings: Trainings, networks: list[Architecture], capsys: pytest.CaptureFixture[str]
) -> None:
    """AP that grows with a score is predicted well; from too few trainings no model is learned."""
    score = np.array([proxy("stage-macs", network) for network in networks])
    ap = 0.2 + 0.02 * (score - score.mean()) / score.std()
    _, found = figures(capsys, trainings(ap, networks), "--alphas", "0")
    assert found[LEARNED, "hard", "all"]["kendall"] > 0.7
    path = trainings(ap[:LEAST_TRAININGS], networks[:LEAST_TRAININGS])
    _, found = figures(capsys, path, "--alphas", "0")
    assert (LEARNED, "hard", "all") not in found


def test_a_table_that_still_grows(
    trainings: Trainings,
    networks: list[Architecture],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    some = networks[20:10:-1]  # the order does not matter
    path, plot = trainings([0.1 + 0.01 * i for i in range(10)], some), tmp_path / "scatter.png"
    assert main(["table", "--csv", str(path), "--alphas", "0.05", "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert "10 of 24 networks are trained, 640 samples each" in out
    assert re.search(
        r"^detector@0\.05 +-\d\.\d\d \(-", out, re.MULTILINE
    )  # networks are in order of rising score
    assert "AP hard, stem of stride 4 (6)" in out and "AP hard, stem of stride 2 (4)" in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


def test_the_trainings_of_the_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    """The repository's trainings belong to the networks beside them, whatever they show."""
    result, found = figures(capsys, NETWORKS.parent / "trainings.csv", "--alphas", "0.05")
    assert result["trained"] >= 20
    assert found["detector@0.05", "hard", "all"]["kendall_interval"] is not None


# -- what cannot be read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the networks"),
        (b"\x00\xff", "cannot read the networks"),
        (b"[" * 100_000, "cannot read the networks"),
        (b"{}", "expected a list of Architectures"),
        (b"[]", "expected a list of Architectures"),
        (b"[3]", "network 0: expected an object, got 3"),
        (json.dumps(2 * [TINY[0].to_json()]).encode(), "every network needs a name of its own"),
    ],
)
@pytest.mark.parametrize("step", ["train", "table"])
def test_unreadable_networks(
    content: bytes | None,
    message: str,
    step: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "nets.json"
    if content is not None:
        path.write_bytes(content)
    extra = ("--data", str(tmp_path), "--processes", "1") if step == "train" else ()
    assert message in complaint(capsys, step, "--networks", str(path), *extra)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"\x00\x01",
        b"\xff\xfe",
        b"",
        b"name,hard\na,1\n",
        ",".join(COLUMNS).encode() + b"\na,b\n",
    ],
)
def test_unreadable_trainings(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trainings.csv"
    if content is not None:
        path.write_bytes(content)
    text = complaint(capsys, "table", "--csv", str(path))
    assert "cannot read the trainings" in text or "is not a table of trainings: it lacks" in text


def test_trainings_that_do_not_fit(
    trainings: Trainings, networks: list[Architecture], capsys: pytest.CaptureFixture[str]
) -> None:
    def table(path: Path) -> str:
        return complaint(capsys, "table", "--csv", str(path))

    assert "needs 3 trained networks, there are 2" in table(trainings([0.1, 0.2], networks[:2]))
    assert "hard that is no number" in table(trainings([0.1, 0.2, float("nan")], networks[:3]))
    other = [*networks[:3], dataclasses.replace(networks[3], name=networks[4].name)]
    assert f"a row of {networks[4].name} that is none of the networks" in table(
        trainings(4 * [0.1], other)
    )
    path = trainings([0.1, 0.2, 0.3], networks[:3])
    path.write_text(path.read_text().replace(",640,0\n", ",320,0\n", 1))
    assert "mixes trainings of several recipes" in table(path)


@pytest.mark.parametrize("alphas", ["", "a", "-1", "nan", "0,,1"])
def test_bad_alphas(alphas: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--alphas" in complaint(capsys, "table", "--alphas", alphas)
