"""Start and end of runs: initial weights, branches, precision, option ranges, losses not finite."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import with_part
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import NET, SMALL, trained

from edgeface.architecture import get_architecture
from edgeface.cli import main
from edgeface.errors import ModelError, OptionError, TrainingError
from edgeface.models import build
from edgeface.training import compiling, loop, open_photos, train_model
from edgeface.training.checkpoint import load_checkpoint, read_meta
from edgeface.training.dataset import Cache
from edgeface.training.loop import Trainer
from edgeface.training.options import TrainOptions
from edgeface.training.precision import fast_bf16
from edgeface.training.start import branch_options
from edgeface.zoo import load_weights, save_weights

WITH_LANDMARKS = with_part(NET, "head", "mine", landmarks=5)
BOXES = with_part(NET, "head", "boxes", landmarks=0)


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    torch.set_num_threads(1)
    return open_photos(photos, photos / "faces.csv", tmp_path_factory.mktemp("start") / "cache")


def differing(*files: Path) -> list[str]:
    ours, theirs = map(load_file, files)
    assert ours.keys() == theirs.keys()
    return [k for k in ours if not ours[k].equal(theirs[k])]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ema", 2.0),
        ("warmup", -5),
        ("lr", math.nan),
        ("lr", 0.0),
        ("lr", math.inf),
        ("decay_share", 1.5),
        ("late_share", -0.1),
        ("box_weight", -1.0),
        ("weight_decay", -1.0),
        ("seed", -1),
        ("size", 32_000),
        ("snapshot_every", 0),
        ("lr", 1e30),
        ("batch", 10**9),
        ("samples", 10**18),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_line(name: str, value: float) -> None:
    with pytest.raises(
        OptionError, match=f"^--{name.replace('_', '-')} must be .*(got|not) [^\n]+$"
    ):
        TrainOptions(**{name: value})  # type: ignore[arg-type]


def test_without_decay_the_rate_is_constant_and_a_branch_falls_from_its_start() -> None:
    constant = TrainOptions(samples=3200, warmup=10, decay_share=0.0, lr=1.0)
    assert {constant.lr_at(step) for step in range(10, 100)} == {1.0}
    branch = replace(constant, warmup=0, decay_share=1.0)
    for each in (branch, replace(branch, warmup_lr=1e-6)):  # the asfd recipe's warm-up begins there
        assert [each.lr_at(step) for step in (0, 50, 99)] == pytest.approx([1.0, 0.5, 0.01])


def test_a_branch_goes_on_as_the_run_would_have(cache: Cache, tmp_path: Path) -> None:
    """At a constant rate, a run and its branch together equal one longer run bit for bit.

    This holds for crops, averages and momenta.
    """
    trained(cache, tmp_path / "long", replace(SMALL, samples=16))
    trained(cache, tmp_path / "short")
    options = replace(branch_options(tmp_path / "short", tmp_path / "branch")[1], decay_share=0.0)
    trained(cache, tmp_path / "branch", options, branch=tmp_path / "short")
    for name in ("checkpoint.safetensors", "weights.safetensors"):
        assert differing(tmp_path / "branch" / name, tmp_path / "long" / name) == []
    assert json.loads((tmp_path / "branch" / "config.json").read_text())["branch"]["step"] == 4


def test_a_branch_is_resumed_exactly_though_its_run_went_on(cache: Cache, tmp_path: Path) -> None:
    trained(cache, tmp_path / "run")
    options = branch_options(tmp_path / "run", tmp_path / "whole")[1]
    assert (options.warmup, options.decay_share) == (0, 1.0)
    options = replace(options, decay_share=0.0)
    trained(cache, tmp_path / "whole", options, branch=tmp_path / "run")
    trained(cache, tmp_path / "cut", replace(options, samples=4), branch=tmp_path / "run")
    trained(cache, tmp_path / "run", replace(SMALL, samples=12))
    _, again = branch_options(tmp_path / "run", tmp_path / "cut")
    trained(cache, tmp_path / "cut", replace(again, samples=8), branch=tmp_path / "run")
    assert (
        differing(
            tmp_path / "cut" / "weights.safetensors", tmp_path / "whole" / "weights.safetensors"
        )
        == []
    )


def test_a_branch_needs_no_function_that_python_3_10_lacks(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(cache, tmp_path / "run")
    monkeypatch.delattr(hashlib, "file_digest", raising=False)
    trained(cache, tmp_path / "branch", branch=tmp_path / "run")
    content = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    branch = json.loads((tmp_path / "branch" / "config.json").read_text())["branch"]
    assert branch["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_branch_of_a_run_that_saves_meanwhile_is_of_one_state(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run" / "checkpoint.safetensors"
    trained(cache, run.parent)
    earlier = run.read_bytes()
    trained(cache, run.parent, replace(SMALL, samples=12))
    later = run.read_bytes()
    run.write_bytes(earlier)

    def load_and_save(*arguments: Any) -> None:
        load_checkpoint(*arguments)
        run.write_bytes(later)

    monkeypatch.setattr(loop, "load_checkpoint", load_and_save)
    trainer = Trainer(NET, SMALL, cache, tmp_path / "branch")
    trainer.begin(branch=run)
    branch = trainer._config["branch"]
    assert (branch["step"], branch["sha256"]) == (6, hashlib.sha256(later).hexdigest())
    state = trainer.model.state_dict()
    assert all(state[k[6:]].equal(v) for k, v in load_file(run).items() if k[:6] == "model.")


def test_what_cannot_be_branched_is_refused(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no checkpoint at"):
        Trainer(NET, SMALL, cache, tmp_path / "out").begin(branch=tmp_path / "nowhere")
    trained(cache, tmp_path / "run")
    with pytest.raises(OptionError, match="leave --optimizer out"):
        Trainer(NET, replace(SMALL, optimizer="sgd"), cache, tmp_path / "out").begin(
            branch=tmp_path / "run"
        )
    with pytest.raises(OptionError, match="no branch"):
        Trainer(NET, SMALL, cache, tmp_path / "run").begin(branch=tmp_path / "run")


def test_weights_of_the_zoo_begin_a_run_and_its_average(cache: Cache, tmp_path: Path) -> None:
    trainer = Trainer(NET, SMALL, cache, tmp_path / "run")
    fit = trainer.begin(init="edgeface-n")
    assert fit is not None and fit.missing == () and "tensors fit" in str(fit)
    for model in (trainer.model, trainer.ema.shadow):
        state = model.state_dict()
        assert all(
            np.array_equal(state[k].numpy(), v) for k, v in load_weights("edgeface-n").items()
        )
    assert trainer.fit()
    assert Trainer(NET, SMALL, cache, tmp_path / "run").begin() is None
    with pytest.raises(OptionError, match="--init"):
        save_weights(build("edgeface-n"), tmp_path / "other.safetensors")
        Trainer(NET, SMALL, cache, tmp_path / "run").begin(init=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("fast", [True, False])
def test_auto_takes_the_faster_precision_and_a_resume_keeps_it(
    fast: bool,
    cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("edgeface.training.precision.fast_bf16", lambda device: fast)
    options = replace(SMALL, precision="auto")
    taken = trained(cache, tmp_path / "run", options).options.precision
    assert taken == ("bf16" if fast else "fp32")
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["options"]["precision"] == taken
    )
    monkeypatch.setattr("edgeface.training.precision.fast_bf16", lambda device: not fast)
    elsewhere = Trainer(NET, options, cache, tmp_path / "run")
    elsewhere.resume()
    assert (elsewhere.step, elsewhere.options.precision) == (4, taken)
    other = "fp32" if fast else "bf16"
    with pytest.raises(OptionError, match="precision"):
        Trainer(NET, replace(SMALL, precision=other), cache, tmp_path / "run").resume()
    monkeypatch.setattr("edgeface.training.precision.fast_bf16", lambda device: False)
    capsys.readouterr()
    Trainer(NET, replace(SMALL, precision="bf16"), cache, tmp_path / "other")
    assert "note: --precision bf16 is slow here" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["amx_bf16", "avx512_bf16", "avx512_vnni"])
def test_bf16_is_fast_where_the_cpu_computes_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    able = dict.fromkeys(torch.cpu.get_capabilities(), False) | {name: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert fast_bf16(torch.device("cpu")) == (name != "avx512_vnni")


def test_bf16_is_not_for_maps_of_one_pixel(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 64 px a network of stride 128 halves a map of one pixel: a wrong gradient in bf16."""
    monkeypatch.setattr("edgeface.training.precision.fast_bf16", lambda device: True)
    net = get_architecture("eresfd-16")
    auto = Trainer(net, replace(SMALL, precision="auto"), cache, tmp_path / "run")
    assert auto.options.precision == "fp32"
    with pytest.raises(OptionError, match="--precision bf16 needs crops of more than 64 px"):
        Trainer(net, replace(SMALL, precision="bf16"), cache, tmp_path / "run")
    larger = replace(SMALL, precision="auto", size=96, late_size=96)
    assert Trainer(net, larger, cache, tmp_path / "run").options.precision == "bf16"


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_good(
    cache: Cache, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trainer = Trainer(NET, replace(SMALL, samples=40), cache, run)
    good = trainer.crops

    def crops(step: int) -> Any:
        batch = good(step)
        return replace(batch, images=batch.images * (torch.nan if step == 4 else 1))

    trainer.crops = crops  # type: ignore[method-assign]
    with pytest.raises(
        TrainingError, match=r"not finite at step 5, learning rate .* last good state$"
    ):
        trainer.fit()
    assert read_meta(run / "checkpoint.safetensors")["step"] == 4
    assert all(v.isfinite().all() for v in load_file(run / "checkpoint.safetensors").values())
    trained(cache, tmp_path / "four")
    assert differing(run / "weights.safetensors", tmp_path / "four" / "weights.safetensors") == []


def test_fewer_samples_than_were_seen_say_what_is(cache: Cache, tmp_path: Path) -> None:
    trained(cache, tmp_path / "run")
    fewer = replace(SMALL, samples=SMALL.samples // 2)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    with pytest.raises(OptionError, match=r"has learned from \d+ samples already, --samples says"):
        trained(cache, tmp_path / "run", fewer)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize("cut", ["3", "3,12,0.1", ",,,", "x" * 50 + "\xff", "\0" * 20])
def test_a_log_line_that_was_cut_is_dropped(cut: str, cache: Cache, tmp_path: Path) -> None:
    trained(cache, tmp_path / "run")
    log = tmp_path / "run" / "log.csv"
    whole = log.read_text()
    log.write_bytes(whole.encode() + cut.encode("latin-1"))
    trained(cache, tmp_path / "run")
    assert log.read_text() == whole


@pytest.mark.parametrize("separator", [";", ",note,"])  # as spreadsheets save it
def test_a_log_that_was_edited_ends_no_run(separator: str, cache: Cache, tmp_path: Path) -> None:
    trained(cache, tmp_path / "run")
    log = tmp_path / "run" / "log.csv"
    header, *_ = whole = log.read_text().splitlines()
    log.write_text("\n".join(line.replace(",", separator, 1) for line in whole))
    trained(cache, tmp_path / "run")
    assert log.read_text().splitlines() == [header]


def test_a_checkpoint_of_before_still_resumes(cache: Cache, tmp_path: Path) -> None:
    """An earlier version wrote no landmarks, init and branch; its precision was fp32."""
    path = tmp_path / "run" / "checkpoint.safetensors"
    trained(cache, tmp_path / "run")
    with safe_open(str(path), framework="pt") as file:
        meta = json.loads(file.metadata()["meta"])
    for name in ("landmarks", "init", "branch"):
        del meta["config"][name]
    save_file(load_file(path), path, metadata={"meta": json.dumps(meta)})
    trainer = Trainer(NET, replace(SMALL, precision="auto"), cache, tmp_path / "run")
    trainer.resume()
    assert trainer.step == 4


def with_points(photos: Path, path: Path, faces: int) -> Path:
    """Write the annotations of ``photos`` with landmarks for the first ``faces`` faces."""
    lines = (photos / "faces.csv").read_text().split()[1:]
    rows = []
    for i, line in enumerate(line for line in lines if ",,," not in line):
        x1, y1, x2, y2 = map(float, line.split(",")[1:])
        points = [
            (x1 + (x2 - x1) * a, y1 + (y2 - y1) * b)
            for a, b in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
        ]
        rows.append(
            f"{line}," + ",".join(f"{v:.1f}" for point in points for v in point)
            if i < faces
            else line + "," * 10
        )
    path.write_text("\n".join(rows) + "\n")
    return path


def test_landmarks_of_a_file_of_their_own_are_learned_and_belong_to_the_run(
    photos: Path, tmp_path: Path
) -> None:
    run, boxes = tmp_path / "run", photos / "faces.csv"
    some, all_ = (with_points(photos, tmp_path / f"{n}.csv", n) for n in (2, 4))
    assert train_model(
        WITH_LANDMARKS, SMALL, photos, run, boxes, tmp_path / "some", threads=1, landmarks=some
    )
    assert json.loads((run / "config.json").read_text())["landmarks"] == 2
    with pytest.raises(OptionError, match="other landmarks"):
        train_model(
            WITH_LANDMARKS, SMALL, photos, run, boxes, tmp_path / "all", threads=1, landmarks=all_
        )


def test_landmarks_that_are_missing_or_not_used_are_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    few = replace(SMALL, samples=2)
    assert train_model(
        WITH_LANDMARKS, few, photos, out, photos / "faces.csv", tmp_path / "boxes", threads=1
    )
    assert "learns boxes alone; its landmarks get worse" in capsys.readouterr().err
    own = with_points(photos, tmp_path / "own.csv", 4)
    assert train_model(BOXES, few, photos, tmp_path / "b", own, tmp_path / "cache", threads=1)
    assert "note: boxes has no landmarks" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_bf16_is_resumed_exactly(cache: Cache, tmp_path: Path) -> None:
    options = replace(SMALL, precision="bf16", compile=True)
    trained(cache, tmp_path / "whole", options)
    trained(cache, tmp_path / "cut", replace(options, samples=4))
    trained(cache, tmp_path / "cut", options)
    assert not differing(*(tmp_path / run / "checkpoint.safetensors" for run in ("cut", "whole")))


@pytest.mark.slow
def test_a_compiled_network_learns_what_torchs_own_does(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = trained(cache, tmp_path / "own", replace(SMALL, compile=True))
    monkeypatch.setattr(compiling, "COMPILED_FROM", 1)
    compiled = trained(cache, tmp_path / "compiled", replace(SMALL, compile=True))
    assert compiled.model.backbone._compiled_call_impl is not None
    assert own.model.backbone._compiled_call_impl is None
    begun = Trainer(NET, SMALL, cache, tmp_path / "begun").model.state_dict()
    for name, value in own.model.state_dict().items():
        # sums in another order; training changed the values a thousand times as much
        moved = (value - begun[name]).abs().max()
        assert (compiled.model.state_dict()[name] - value).abs().max() <= 1e-3 * moved, name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--from needs --samples"),
        (
            ("--samples", "8", "--model", "edgeface-n", "--recipe", "extd"),
            "leave --model, --recipe out",
        ),
        (("--samples", "8"), "no checkpoint at"),
    ],
)
def test_command_line_of_a_branch_is_checked_before_any_work(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = f"--data {tmp_path} --out {tmp_path / 'out'} --from {tmp_path / 'run'}"
    assert main(["train", *shlex.split(places), *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
