"""Trainings for the evidence on scores: stopped, resumed, on a cluster, and refused in one line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from evidence import TINY, Trainings, complaint
from ray_cluster import two_machines

from benchmarks.research.selection import save_networks
from edgeface.search.trials.known import SETTINGS, read_rows

pytest.importorskip("scipy", reason="SciPy is not installed")
pytest.importorskip("torch", reason="torch is not installed")

FACE = (172, 68, 274, 196)
"""the portrait's face x1, y1, x2, y2 in px, set by hand"""


@pytest.fixture(scope="module")
def faces(
    astronaut: Any, write_mat: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A WIDER FACE folder with one photo to evaluate on; photos with ``faces.csv`` to train on."""
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
    places = (
        f"--data {faces} --annotations {faces / 'faces.csv'} --networks {faces / 'nets.json'} "
        f"--cache {faces / 'cache'} --runs {out / 'runs'} --csv {out / 'trainings.csv'}"
    )
    sizes = shlex.split("--samples 48 --batch 2 --size 64 --no-compile")
    return ["train", *shlex.split(places), *sizes, *extra]


def run(arguments: Sequence[str], stop_at: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in its own process; send Ctrl-C as soon as the file ``stop_at`` exists."""
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
    """The output folder of a training that was never interrupted."""
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
    assert "1 photo, " in text and str(faces) not in text
    again = run(command(faces, whole))  # everything is trained
    assert again.returncode == 0 and "tiny" not in again.stderr


def same_outcome(ours: Path, theirs: Path) -> None:
    """Assert equal tables and bitwise equal weights.

    The losses in the table are not compared: they are means over the steps since the log's last row
    or since an interruption."""
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
    assert done.returncode == 130 and "run the same command again" in done.stderr, done.stderr
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
    for text, said in (
        ('{"batch": 2, "size": 128}', "trainings with --size 128, not 64"),
        ('{"batch": 4}', "trainings with --batch 4, not 2"),
        ("[", "has a recipe that is no JSON"),
    ):
        of_another = trainings([0.1], TINY[:1])
        of_another.write_text(f"# recipe: {text}\n{of_another.read_text()}")
        assert said in complaint(capsys, *arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--annotations", "{faces}/none.csv"), "no annotations at"),
        (("--data", "{faces}/WIDER_val"), "wider_face_val.mat"),
        (("--threads", "0"), "--threads must be at least 1"),
        (("--processes", "0"), "processes must be 1 or more"),
        (("--samples", "0"), "samples"),
        (("--ray", "nonsense"), "luster"),  # no such address, or Ray is not installed
    ],
)
def test_what_cannot_be_trained(
    change: tuple[str, str],
    message: str,
    faces: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Mistakes are found before anything is trained."""
    arguments = command(
        faces, tmp_path, "--processes", "1", change[0], change[1].format(faces=faces)
    )
    assert message in complaint(capsys, *arguments)
    assert not list(tmp_path.glob("**/log.csv"))
