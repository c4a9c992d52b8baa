"""Whole runs by command line: exact resume, two processes agree with one, options are checked."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgeface import zoo
from edgeface.architecture import Architecture, AutoFEMSpec
from edgeface.architecture.genotype import DEFAULT_GENOTYPE, write_genotype
from edgeface.errors import ModelError, OptionError
from edgeface.training.checkpoint import read_meta
from edgeface.training.ema import EMA
from edgeface.training.optimizer import orthogonalise
from edgeface.training.options import AugmentOptions, TrainOptions

SMALL = shlex.split(
    "--samples 40 --batch 4 --size 64 --late-size 96 --late-share 0.3 --warmup 2 "
    "--checkpoint-every 2 --snapshot-every 5 --threads 1 --no-compile"
)


def command(
    photos: Path, run: Path, *extra: str, start: tuple[str, ...] = (sys.executable,)
) -> list[str]:
    places = (
        f"--data {photos} --annotations {photos / 'faces.csv'} --out {run} "
        f"--cache {photos.parent / photos.name}-cache"
    )
    return [*start, "-m", "edgeface", "train", *shlex.split(places), *SMALL, *extra]


def train(photos: Path, run: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(photos, run, *extra), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = train(photos, run)
    assert done.returncode == 0, done.stderr
    return run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_run_folder_holds_what_it_says(whole: Path) -> None:
    config = json.loads((whole / "config.json").read_text())
    assert config["architecture"]["name"] == "edgeface-n"
    assert config["options"]["samples"] == 40
    assert sorted(p.name for p in (whole / "snapshots").iterdir()) == [
        "step-0000005.safetensors",
        "step-0000010.safetensors",
    ]
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert rows(whole)[-1]["step"] == "10"
    assert not list(whole.rglob(".*"))


def test_killed_and_resumed_equals_uninterrupted(photos: Path, whole: Path, tmp_path: Path) -> None:
    """A run killed by SIGKILL after a checkpoint and started again ends with identical tensors."""
    run = tmp_path / "killed"
    process = subprocess.Popen(command(photos, run), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (run / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = read_meta(run / "checkpoint.safetensors")["step"]
    assert 0 < step < 10, "the run was over before it could be killed"
    done = train(photos, run)
    assert done.returncode == 0, done.stderr
    for name in ("checkpoint.safetensors", "weights.safetensors"):
        ours, theirs = load_file(run / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert [k for k in ours if not ours[k].equal(theirs[k])] == []


def test_interrupted_run_saves_its_state(photos: Path, whole: Path, tmp_path: Path) -> None:
    """Ctrl-C between checkpoints: the step is finished and saved; resuming gives equal weights."""
    run = tmp_path / "interrupted"
    process = subprocess.Popen(
        command(photos, run, "--checkpoint-every", "1000"), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not (run / "log.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "run the same command again" in err
    assert read_meta(run / "checkpoint.safetensors")["step"] < 10
    assert train(photos, run).returncode == 0
    ours, theirs = load_file(run / "weights.safetensors"), load_file(whole / "weights.safetensors")
    assert [k for k in ours if not ours[k].equal(theirs[k])] == []


def test_a_finished_run_can_be_made_longer_but_not_another(
    photos: Path, whole: Path, tmp_path: Path
) -> None:
    refused = train(photos, whole, "--lr", "0.001")
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].startswith("error: ") and "lr" in refused.stderr
    run = tmp_path / "longer"
    assert train(photos, run, "--samples", "8").returncode == 0
    assert train(photos, run, "--samples", "16").returncode == 0
    assert read_meta(run / "checkpoint.safetensors")["step"] == 4


def test_two_processes_share_the_batches(photos: Path, whole: Path, tmp_path: Path) -> None:
    """torchrun with two gloo processes sees the same faces as one process.

    ATSS depends on the faces alone, so the summed number of positive cells must be equal. The
    losses are not, because each process normalises its own half of the batch.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(photos, one, "--assigner", "atss").returncode == 0
    start = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        command(photos, two, "--assigner", "atss", start=start),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert rows(two)[-1]["positives"] == rows(one)[-1]["positives"]
    assert float(rows(two)[-1]["cls_loss"]) == pytest.approx(
        float(rows(one)[-1]["cls_loss"]), rel=0.3
    )


def test_a_genotype_makes_another_network(photos: Path, tmp_path: Path) -> None:
    """The run folder names the network after its genotype; its weights alone can be loaded."""
    genotype = dataclasses.replace(DEFAULT_GENOTYPE, top_down=("conv_1x1",) * 5)
    write_genotype(tmp_path / "mine.json", genotype)
    run = tmp_path / "run"
    done = train(
        photos,
        run,
        *shlex.split(
            f"--model asfd-d0 --genotype {tmp_path / 'mine.json'} --samples 4 --late-size 64"
        ),
    )
    assert done.returncode == 0, done.stderr
    architecture = Architecture.from_json(
        json.loads((run / "config.json").read_text())["architecture"]
    )
    assert re.fullmatch(r"asfd-d0-[0-9a-f]{12}", architecture.name)
    assert isinstance(architecture.neck, AutoFEMSpec) and architecture.neck.genotype == genotype
    assert zoo.load_network(run / "weights.safetensors").architecture == architecture


@pytest.mark.slow
def test_compiling_is_told_before_the_first_step(photos: Path, tmp_path: Path) -> None:
    """Compiling takes longer than many steps, so the user is told that it runs."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    done = train(photos, tmp_path / "run", "--samples", "4", "--compile")
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert told.index("compiling the network ...") < told.index("training ...")


@pytest.mark.slow
def test_training_finds_the_face(photos: Path, tmp_path: Path) -> None:
    """After 240 steps on five photos the loss has halved and the portrait's face is found."""
    from edgeface.architecture import get_architecture
    from edgeface.detector import Detector
    from edgeface.images import read_image
    from edgeface.runners.torch import TorchRunner
    from edgeface.zoo import load_weights_file, network_with

    run = tmp_path / "run"
    args = shlex.split(
        "--samples 1920 --batch 8 --size 160 --late-size 256 --warmup 20 --ema 0.95 "
        "--checkpoint-every 100"
    )
    done = train(photos, run, *args)
    assert done.returncode == 0, done.stderr
    log = rows(run)
    assert float(log[-1]["cls_loss"]) < 0.5 * float(log[0]["cls_loss"])
    network = network_with(
        get_architecture("edgeface-n"), load_weights_file(run / "weights.safetensors")
    )
    with Detector(TorchRunner(network), size=512) as detector:
        faces = detector.detect(read_image(photos / "0.png"), score_threshold=0.3)
    assert len(faces) >= 1
    x1, y1, x2, y2 = faces.boxes[0]
    assert abs(x1 - 172) < 40 and abs(y1 - 68) < 40 and abs(x2 - 274) < 40 and abs(y2 - 196) < 40


def test_a_damaged_checkpoint_is_refused(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="not a training checkpoint"):
        read_meta(run / "checkpoint.safetensors")
    done = train(photos, run)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()[-1:]) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 100), ("optimizer", "lion"), ("samples", 0), ("precision", "fp8"), ("loss", "l2")],
)
def test_options_are_checked(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        TrainOptions(**{name: value})  # type: ignore[arg-type]


NAN = float("nan")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"paste_share": 30}, "paste_share must be from 0 to 1, got 30"),
        ({"paste_share": -0.1}, "paste_share must be from 0 to 1"),
        ({"roll_share": NAN}, "roll_share must be from 0 to 1"),
        ({"stretch": 0.8}, "stretch must be from 1 to 4"),
        ({"shear": -0.1}, "shear must be from 0 to 1"),
        ({"scale_low": 0}, "scale_low must be above 0 to 64"),
        ({"scale_high": NAN}, "scale_high must be above 0"),
        ({"scale_low": 3}, "scale_low is above scale_high: 3 and 2"),
        ({"large_high": 0.5}, "large_low is above large_high"),
        ({"face_low_px": 0}, "face_low_px must be above 0"),
        ({"face_high": 0}, "face_high must be above 0"),
        ({"contrast": NAN}, "contrast must be from 0 to 1"),
        ({"min_face_px": -5}, "min_face_px must be from 0"),
    ],
)
def test_values_that_give_no_crop_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        AugmentOptions(**wrong)  # type: ignore[arg-type]


def test_schedule() -> None:
    o = TrainOptions(samples=3200, batch=32, warmup=10, decay_share=0.5, lr=1.0, late_share=0.2)
    assert [o.lr_at(s) for s in (0, 4, 9, 49)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert [o.lr_at(s) for s in (75, 99)] == pytest.approx([0.5, 0.02])
    assert [o.size_at(s) for s in (0, 79, 80, 99)] == [320, 320, 448, 448]


def test_moving_average_is_its_formula() -> None:
    model: Any = torch.nn.BatchNorm1d(3)
    ema: Any = EMA(model, decay=0.9)
    want, k = model.weight.detach().clone(), 1000
    for step in range(k, k + 3):
        with torch.no_grad():
            model.weight += 1
            model.num_batches_tracked += 1
        want = 0.9 * want + 0.1 * model.weight.detach()
        ema.update(step)
    torch.testing.assert_close(ema.shadow.weight, want)
    assert ema.shadow.num_batches_tracked == 3


@pytest.mark.parametrize("shape", [(64, 576), (64, 32), (32, 32)])
def test_orthogonalised_matrices_are_nearly_orthogonal(shape: tuple[int, int]) -> None:
    """The quintic iteration leaves singular values of about 0.7 to 1.2, of tiny ones a bit less."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.max() < 1.3 and values.median() > 0.6
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert (
        torch.nn.functional.cosine_similarity(
            orthogonalise(matrix).flatten(), (u @ v).flatten(), dim=0
        )
        > 0.95
    )
