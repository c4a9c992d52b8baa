"""Do scores rank trained networks: what is selected, what the table makes of made-up trainings, and
real ones."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray_cluster import two_machines

from benchmarks.research.evidence import NETWORKS, main
from benchmarks.research.ranking import FITTED, features
from benchmarks.research.selection import load_networks, save_networks, select
from benchmarks.research.trainings import write_rows
from edgeface.architecture import Architecture, PlainHeadSpec, PlainNetSpec, PyramidSpec
from edgeface.architecture.layers import macs_of
from edgeface.errors import OptionError
from edgeface.search.scores.registry import PROXIES, WITH_ALPHA, proxy
from edgeface.search.space import get_space
from edgeface.search.trials.known import COLUMNS, SETTINGS, network_fields, read_rows

pytest.importorskip("scipy", reason="SciPy is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

TINY = tuple(
    Architecture(
        f"tiny-{i}",
        PlainNetSpec(
            f"SuperConvK6BNRELU(3,8,4,1)SuperConvK3BNRELU(8,{8 * i},2,1)"
            f"SuperConvK3BNRELU({8 * i},16,2,1)"
            "SuperConvK3BNRELU(16,16,2,1)"
        ),
        PyramidSpec("fpn", 8),
        PlainHeadSpec(8, 1),
    )
    for i in (1, 2)
)
FACE = (172, 68, 274, 196)
"""of the portrait: x1, y1, x2, y2 px, set by hand"""


# -- select


def test_selected_networks_cost_the_same_and_spread(tmp_path: Path) -> None:
    """Within 3 % of 200 million MACs, from the lowest score drawn to the highest, quantile by
    quantile."""
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
    """Whoever changes what the edge space holds leaves the old one beside them as a .json file."""
    assert main(["select", "--networks", str(tmp_path / "nets.json")]) == 0
    assert load_networks(tmp_path / "nets.json") == load_networks(NETWORKS)


# -- table

Trainings = Callable[..., Path]


@pytest.fixture
def trainings(tmp_path: Path) -> Trainings:
    """``trainings(ap, networks)`` -> a CSV with the AP hard given, and random ones for the other
    settings."""

    def write(ap: Sequence[float], networks: Sequence[Architecture], **other: str) -> Path:
        rows, draw = [], random.Random(0)
        for architecture, value in zip(networks, ap, strict=True):
            results = {
                **{name: f"{draw.random():.5f}" for name in SETTINGS},
                "hard": f"{value:.8f}",
            }
            rows.append(
                {
                    **network_fields(architecture),
                    "ddsar": "old",
                    **results,
                    "cls_loss": "0.3",
                    "box_loss": "0.4",
                    "samples": "640",
                    "seed": "0",
                    **other,
                }
            )
        write_rows(tmp_path / "trainings.csv", rows, ("command: made up",))
        return tmp_path / "trainings.csv"

    return write


@pytest.fixture(scope="module")
def networks() -> list[Architecture]:
    return load_networks(NETWORKS)


def figures(
    capsys: pytest.CaptureFixture[str], path: Path, *arguments: str
) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The JSON, and its correlations by (score, setting, group)."""
    assert main(["table", "--csv", str(path), "--format", "json", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    return result, {(c["score"], c["setting"], c["group"]): c for c in result["correlations"]}


def test_a_score_that_ranks_perfectly(
    trainings: Trainings, networks: list[Architecture], capsys: pytest.CaptureFixture[str]
) -> None:
    """AP is the score as it is computed today: what the file says of scores does not matter."""
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
    assert {score for score, *_ in found} == names | {FITTED}
    groups = {group: c["networks"] for (_, _, group), c in found.items()}
    assert groups == {"all": 24, "stem of stride 2": 7, "stem of stride 4": 17}
    assert found["outputs@0.02", "hard", "stem of stride 2"]["kendall"] == 1


def test_within_a_stem_stride(
    trainings: Trainings, networks: list[Architecture], capsys: pytest.CaptureFixture[str]
) -> None:
    """A score that only knows the stride ranks all, and nothing within; one turned round within is
    found out."""
    turned = [
        proxy("levels", a, 0.0) / 100 * (-1 if "K6" in a.structure else 1) + 1 for a in networks
    ]
    _, found = figures(capsys, trainings(turned, networks), "--alphas", "0")
    assert found["levels@0", "hard", "stem of stride 4"]["kendall"] == -1
    assert found["levels@0", "hard", "stem of stride 2"]["kendall"] == 1
    assert -1 < found["levels@0", "hard", "all"]["kendall"] < 1


def test_the_fit_predicts_what_is_a_line(
    trainings: Trainings, networks: list[Architecture], capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = features(networks)
    ap = 0.2 + 0.02 * (inputs - inputs.mean(0)) / inputs.std(0) @ [0, 1, 2, 1, -1, 0.5]
    _, found = figures(capsys, trainings(ap, networks), "--alphas", "0")
    assert found[FITTED, "hard", "all"]["kendall"] > 0.85
    path = trainings(ap[:11], networks[:11])
    result, found = figures(capsys, path, "--alphas", "0")
    assert result["trained"] == 11 and (FITTED, "hard", "all") not in found


def test_a_table_that_still_grows(
    trainings: Trainings,
    networks: list[Architecture],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    some = networks[20:10:-1]  # in any order
    path, plot = trainings([0.1 + 0.01 * i for i in range(10)], some), tmp_path / "scatter.png"
    assert main(["table", "--csv", str(path), "--alphas", "0.05", "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert "10 of 24 networks are trained, 640 samples each" in out
    assert re.search(
        r"^detector@0\.05 +-\d\.\d\d \(-", out, re.MULTILINE
    )  # networks come by rising score
    assert "AP hard, stem of stride 4 (6)" in out and "AP hard, stem of stride 2 (4)" in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


def test_the_trainings_of_the_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever they show: trainings of the networks beside them."""
    result, found = figures(capsys, NETWORKS.parent / "trainings.csv", "--alphas", "0.05")
    assert result["trained"] >= 20
    assert found["detector@0.05", "hard", "all"]["kendall_interval"] is not None


# -- what cannot be read


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


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


# -- train


@pytest.fixture(scope="module")
def faces(
    astronaut: Any, write_mat: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A WIDER FACE folder of one photo to evaluate on, and photos with ``faces.csv`` to train
    on."""
    import cv2

    root = tmp_path_factory.mktemp("faces")
    val = root / "WIDER_val" / "images" / "0--Portrait"
    val.mkdir(parents=True)
    lines = ["image,x1,y1,x2,y2"]
    for i, scale in enumerate((1.0, 0.7, 0.5)):
        photo = cv2.resize(
            astronaut[:, :, ::-1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        assert cv2.imwrite(str(root / f"{i}.png"), photo)
        lines.append(f"{i}.png," + ",".join(f"{v * scale:.1f}" for v in FACE))
    assert cv2.imwrite(str(val / "astronaut.png"), astronaut[:, :, ::-1])
    (root / "faces.csv").write_text("\n".join(lines) + "\n")
    save_networks(root / "nets.json", TINY)
    box = [FACE[0], FACE[1], FACE[2] - FACE[0], FACE[3] - FACE[1]]
    write_mat(root, {"0--Portrait/astronaut": ([box], {name: [0] for name in SETTINGS})})
    return root


def command(faces: Path, out: Path, *extra: str) -> list[str]:
    return [
        "train",
        "--data",
        str(faces),
        "--annotations",
        str(faces / "faces.csv"),
        "--networks",
        str(faces / "nets.json"),
        "--cache",
        str(faces / "cache"),
        "--runs",
        str(out / "runs"),
        "--csv",
        str(out / "trainings.csv"),
        "--samples",
        "48",
        "--batch",
        "2",
        "--size",
        "64",
        "--no-compile",
        *extra,
    ]


def run(arguments: Sequence[str], stop_at: Path | None = None) -> subprocess.CompletedProcess[str]:
    """In a process of its own; Ctrl-C as soon as the file ``stop_at`` is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.research.evidence", *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    deadline = time.monotonic() + 240
    while (
        stop_at and not stop_at.exists() and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    if stop_at:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def whole(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained without a break."""
    out = tmp_path_factory.mktemp("whole")
    done = run(command(faces, out, "--processes", "2"))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_two_networks_are_trained_and_evaluated(faces: Path, whole: Path) -> None:
    rows = read_rows(whole / "trainings.csv")
    assert [row["name"] for row in rows] == ["tiny-1", "tiny-2"]
    assert {(row["samples"], row["seed"]) for row in rows} == {("48", "0")}
    assert all(float(row["cls_loss"]) > 0 and 0 <= float(row["hard"]) <= 1 for row in rows)
    text = (whole / "trainings.csv").read_text()
    assert "# command: python -m benchmarks.research.evidence train --networks nets.json" in text
    assert "1 photos" in text and str(faces) not in text
    again = run(command(faces, whole))  # nothing is left to do
    assert again.returncode == 0 and "tiny" not in again.stderr


def same_outcome(ours: Path, theirs: Path) -> None:
    """Weights bit for bit. The losses in the table are not compared: they are means over the steps
    since the log's last row, or since a cut."""
    rows, expected = (read_rows(out / "trainings.csv") for out in (ours, theirs))
    for row in (*rows, *expected):
        del row["cls_loss"], row["box_loss"]
    assert rows == expected
    for name in ("tiny-1-seed0", "tiny-2-seed0"):
        weights = [
            (out / "runs" / name / "weights.safetensors").read_bytes() for out in (ours, theirs)
        ]
        assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_cut_and_resumed_equals_uninterrupted(
    processes: str, faces: Path, whole: Path, tmp_path: Path
) -> None:
    arguments = command(faces, tmp_path, "--processes", processes)
    done = run(arguments, tmp_path / "runs" / "tiny-1-seed0" / "checkpoint.safetensors")
    assert done.returncode == 130 and "the same command goes on" in done.stderr, done.stderr
    assert not (tmp_path / "trainings.csv").exists(), "it was over before it could be stopped"
    assert run(arguments).returncode == 0
    same_outcome(tmp_path, whole)


@pytest.mark.slow
def test_a_cluster_trains_the_same(faces: Path, whole: Path, tmp_path: Path) -> None:
    with two_machines({}) as cluster:
        done = run(command(faces, tmp_path, "--ray", cluster.address))
    assert done.returncode == 0, done.stderr
    same_outcome(tmp_path, whole)


def test_other_recipes_are_not_mixed(
    faces: Path, trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trainings([0.1], TINY[:1])
    arguments = [*command(faces, path.parent), "--processes", "1"]
    assert "a row of tiny-1 with other samples or another seed" in complaint(capsys, *arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--annotations", "{faces}/none.csv"), "no annotations at"),
        (("--data", "{faces}/WIDER_val"), "wider_face_val.mat"),
        (("--threads", "0"), "--threads must be at least 1"),
        (("--processes", "0"), "processes must be 1 or more"),
        (("--samples", "0"), "samples"),
        (("--ray", "nonsense"), "luster"),  # it has no such address, or needs the package
    ],
)
def test_what_cannot_be_trained(
    change: tuple[str, str],
    message: str,
    faces: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Found out before anything is trained."""
    arguments = command(
        faces, tmp_path, "--processes", "1", change[0], change[1].format(faces=faces)
    )
    assert message in complaint(capsys, *arguments)
    assert not list(tmp_path.glob("**/log.csv"))
