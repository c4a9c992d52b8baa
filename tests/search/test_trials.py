"""Short trainings in a search: the accuracy model fitted to them, which of them end early, and that
nothing is trained twice. Trainings are real and tiny; no AP is asserted except that of a network
that learned nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Command, failed

from edgeface.architecture import Architecture
from edgeface.architecture.layers import macs_of
from edgeface.errors import DataError, OptionError, TrainingError
from edgeface.images.annotations import read_annotations
from edgeface.search.options import StudyOptions
from edgeface.search.space import SPACES, get_space
from edgeface.types import unseen

pytest.importorskip("pymoo", reason="pymoo is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("torch", reason="torch is not installed")

import torch
from networks import with_part
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import kendalltau
from small_runs import quick

from edgeface.search import accuracy
from edgeface.search.scores.registry import PROXIES, proxy
from edgeface.search.study import Study
from edgeface.search.trials import TRIALS
from edgeface.search.trials.known import checkout_tables, network_fields, network_of, read_known
from edgeface.search.trials.model import LEAST_TRAININGS, AccuracyModel, Training, left_out
from edgeface.search.trials.oracle import AccuracyOracle, Trial
from edgeface.search.trials.photos import plan_of
from edgeface.search.trials.training import Plan, recipe, train_half_item
from edgeface.training import train_model
from edgeface.training.start import CHECKPOINT

KNOWN = read_known(checkout_tables())


# The model


def test_it_ranks_better_than_any_score() -> None:
    """Each training recorded in the checkout is predicted from the others."""
    if not KNOWN:
        pytest.skip("the evidence is in a checkout alone")
    reached = [t.ap for t in KNOWN]
    tau = kendalltau([e.ap for e in left_out(KNOWN)], reached)[0]
    scores = {
        name: kendalltau([proxy(name, t.architecture) for t in KNOWN], reached)[0]
        for name in PROXIES
        if name not in ("zen", "entropy")
    }
    assert tau > 0.6 and tau > max(scores.values()) + 0.1, (tau, scores)


def test_intervals_hold_what_they_promise() -> None:
    model = AccuracyModel(KNOWN)
    inside = [
        e.low <= t.ap <= e.high and e.low < e.ap < e.hopeful < e.high
        for t, e in zip(KNOWN, model.predict([t.architecture for t in KNOWN]), strict=True)
    ]
    assert np.mean(inside) > 0.9


def test_a_property_that_all_trainings_share_hides_no_other() -> None:
    """Trained with one layer in the head, seen with two: the other differences still count."""
    drawn = [SPACES["resnet"].sample(seed) for seed in range(40)]
    alike = [a for a in drawn if a.head.stack == 1][:10]
    alike.sort(key=lambda a: macs_of(a, 640, 480))
    model = AccuracyModel([Training(a, 0.1 + 0.03 * i) for i, a in enumerate(alike)])
    deeper = [with_part(a, "head", stack=2) for a in alike]
    aps = [e.ap for e in model.predict(deeper)]
    assert max(aps) - min(aps) > 0.1


def test_trainings_by_another_recipe_are_brought_to_this_one() -> None:
    """The known trainings reached a third of the odds AP / (1 - AP) reached here."""
    own = KNOWN[::3]
    elsewhere = [
        dataclasses.replace(t, ap=1 / (1 + 3 * (1 - t.ap) / t.ap)) for t in KNOWN if t not in own
    ]
    expected = AccuracyModel(own, elsewhere).predict([t.architecture for t in KNOWN])
    ratios = [e.ap / t.ap for e, t in zip(expected, KNOWN, strict=True) if t not in own]
    assert 0.8 < np.median(ratios) < 1.25


def test_too_few_trainings() -> None:
    with pytest.raises(DataError, match=f"needs {LEAST_TRAININGS} trainings at least"):
        AccuracyModel(KNOWN[: LEAST_TRAININGS - 1])


@pytest.mark.parametrize("seed", range(8))
def test_a_row_says_which_network_it_is_of(seed: int) -> None:
    network = SPACES["edge"].sample(seed)
    assert network_of(network_fields(network)) == network


# Trials


def test_a_third_ends_early_and_nothing_is_trained_twice(
    photos: tuple[Path, Path], tmp_path: Path, small_space: str
) -> None:
    plan = quick(plan_of(tmp_path, *photos, recipe(64)))
    networks = [get_space(small_space).sample(seed) for seed in range(3)]
    told: list[tuple[str, int, int]] = []

    def oracle() -> AccuracyOracle:
        return AccuracyOracle(plan, tmp_path, KNOWN, 1, lambda *step: told.append(step), print)

    first = oracle()
    first.check()
    first.train(networks, "round 0: training")
    found = [first.find(network) for network in networks]
    trials = [trial for trial in found if trial is not None]
    assert len(trials) == len(networks)
    ended = max(trials, key=lambda t: t.loss)
    assert [t.ap is None for t in trials] == [t is ended for t in trials]
    assert told[-1] == ("round 0: training, second half", 2, 2)
    before = (tmp_path / TRIALS).read_bytes()
    again, written = oracle(), (tmp_path / TRIALS).stat().st_mtime_ns
    again.train(networks, "round 0: training")
    assert (tmp_path / TRIALS).read_bytes() == before
    assert (tmp_path / TRIALS).stat().st_mtime_ns == written
    assert again.model is not None


@pytest.mark.parametrize("name", ["../../other", "/tmp/other", "a b", ""])
def test_a_network_of_somebody_elses_folder_is_trained_nowhere_else(
    name: str, tmp_path: Path
) -> None:
    plan = Plan(recipe(64), "", None, "", str(tmp_path / "search" / "trials"), "")
    network = dataclasses.replace(SPACES["edge"].sample(0), name=name)
    with pytest.raises(DataError, match=r"cannot be trained, .*; accepted: 1 to 64 letters"):
        train_half_item(plan.item(network))
    assert not list(tmp_path.iterdir())


def begin_badly(plan: Plan, network: Architecture) -> None:
    """Train one step of ``network``, then make all weights NaN, so that no loss is finite."""
    run = plan.run_of(network)
    run.mkdir(parents=True)
    assert plan.annotations and plan.options.steps > 1
    train_model(
        network,
        plan.options,
        Path(plan.data),
        run,
        Path(plan.annotations),
        Path(plan.cache),
        until=1,
    )
    with safe_open(str(run / CHECKPOINT), framework="pt") as file:
        meta = file.metadata()
    tensors = load_file(run / CHECKPOINT)
    for name, tensor in tensors.items():
        if name.startswith("model.") and tensor.is_floating_point():
            tensor.fill_(torch.nan)
    save_file(tensors, run / CHECKPOINT, meta)


def test_one_that_diverges_does_not_end_the_others(
    photos: tuple[Path, Path], tmp_path: Path, small_space: str
) -> None:
    plan = quick(plan_of(tmp_path, *photos, recipe(64)))
    good, bad = (get_space(small_space).sample(seed) for seed in range(2))
    begin_badly(plan, bad)
    notes: list[str] = []
    oracle = AccuracyOracle(plan, tmp_path, KNOWN, 1, unseen, notes.append)
    with pytest.raises(TrainingError, match="all 1 trainings of the search failed: the loss is"):
        oracle.train([bad], "training")
    oracle.train([bad, good], "training")
    (note,) = notes
    assert note.startswith(f"{bad.name} is left out") and "not finite at step 2" in note
    found = AccuracyOracle(plan, tmp_path, KNOWN, 1, unseen, print)
    assert found.find(bad) is not None and [t.architecture for t in found.trainings] == [good]


@pytest.mark.parametrize(("loss", "low", "high"), [(1.5, 0.24, 0.27), (1e4, 0.0, 1e-6)])
def test_what_one_that_ended_would_have_reached_is_read_off_the_others(
    tmp_path: Path, loss: float, low: float, high: float
) -> None:
    """A line of the logit of AP over the loss, fitted to the complete trials, gives its AP."""
    networks = [t.architecture for t in KNOWN[:6]]
    rows = [
        Trial(a, loss, ap, 64, "")
        for a, loss, ap in zip(
            networks,
            (1.0, 1.1, 1.2, 1.3, 1.4, loss),
            (0.5, 0.45, 0.4, 0.35, 0.3, None),
            strict=True,
        )
    ]
    (tmp_path / TRIALS).write_text(
        json.dumps(
            [dataclasses.asdict(r) | {"architecture": r.architecture.to_fields()} for r in rows]
        )
    )
    plan = Plan(recipe(64), "", None, "", "", "")
    (guessed,) = [
        t for t in AccuracyOracle(plan, tmp_path, (), 1, unseen, print).trainings if t.deviation
    ]
    assert guessed.architecture == networks[5] and low < guessed.ap < high


def test_a_damaged_table_of_trials(tmp_path: Path) -> None:
    (tmp_path / TRIALS).write_text('[{"loss": "much"}]')
    with pytest.raises(DataError, match=r"trials\.json cannot be read .*delete it"):
        AccuracyOracle(Plan(recipe(64), "", None, "", "", ""), tmp_path, (), 1, unseen, print)


# In a search

OPTIONS = StudyOptions(
    target="onnx",
    precision="fp32",
    sizes=("160x128",),
    first=20,
    rounds=1,
    picks=2,
    population=12,
    generations=3,
    max_load=64,
    objective="pareto",
    trials=4,
    trial_samples=16,
    jobs=1,
)


@pytest.mark.slow
def test_a_search_with_trials_ends_in_a_detector(
    photos: tuple[Path, Path], small_space: str, tmp_path: Path, edgeface: Command
) -> None:
    data, annotations = photos
    options = dataclasses.replace(
        OPTIONS, space=small_space, data=str(data), annotations=str(annotations)
    )
    folder = tmp_path / "run"
    front = Study(options, folder, unseen, lambda _: None).run(lambda _: None)
    trials = json.loads((folder / TRIALS).read_text())
    assert len(trials) == 4 and sum(net.trained > 0 for net in front) <= 4
    for net in front:
        assert net.ap is not None and net.ap_interval is not None
        assert net.ap_interval[0] <= net.score <= net.ap_interval[1]
    written = json.loads((folder / "front.json").read_text())
    assert [entry["ap"] for entry in written] == [net.ap for net in front]
    assert "edgeface train --model" in (folder / "report.html").read_text()
    code, out, err = edgeface(
        "search", "--resume", folder, "--finish", 32, "--jobs", 2, "--format", "json"
    )
    assert code == 0 and len(json.loads(out)) == len(front), err
    made = json.loads((folder / "detector.json").read_text())
    assert made["found"]["architecture"] in [entry["architecture"] for entry in written]
    assert made["crops"] == 32 and made["network_ms"] > 0 and made["ap"]["hard"] is not None
    assert (folder / made["bundle"] / "manifest.json").is_file()


@pytest.mark.slow
def test_a_damaged_photo_is_told_and_the_exit_code_says_so(
    photos: tuple[Path, Path], small_space: str, tmp_path: Path, edgeface: Command
) -> None:
    """The search goes on without the photo and prints its front."""
    data = shutil.copytree(photos[0], tmp_path / "photos")
    name = read_annotations(photos[1])[0].path
    (data / name).write_bytes((data / name).read_bytes()[:900])
    own = dataclasses.replace(OPTIONS, space=small_space, trials=2)
    small = [
        word
        for name, value in dataclasses.asdict(own).items()
        if value != getattr(StudyOptions(), name) and name != "sizes"
        for word in (f"--{name.replace('_', '-')}", value)
    ]
    where = ("--data", data, "--annotations", photos[1], "--size", *own.sizes)
    out = ("--out", tmp_path / "run", "--format", "json")
    code, found, err = edgeface("search", *where, *small, *out)
    front = json.loads(found)
    assert code == 2 and front, err
    assert len(json.loads((tmp_path / "run" / TRIALS).read_text())) == 2
    assert err.count(f"{name}: the image is truncated or damaged") == 1
    assert "error: 1 photo could not be read and were left out of the trainings" in err
    assert (tmp_path / "run" / "front.json").is_file()


def test_refused_before_anything_is_measured(
    photos: tuple[Path, Path], tmp_path: Path, edgeface: Command
) -> None:
    data, annotations = photos
    out = ("search", "--out", tmp_path / "a", "--target", "onnx", "--precision", "fp32")
    failed(edgeface(*out, "--trials", 4), "--trials needs photos", "--annotations")
    failed(edgeface(*out, "--finish", 4), "--finish needs photos")
    failed(edgeface(*out, "--annotations", annotations), "below --data")
    failed(edgeface(*out, "--trials", 4, "--data", data), "no eval_tools/ground_truth")
    for wrong in (tmp_path / "typo", annotations):
        photos_of = ("--data", wrong, "--annotations", annotations)
        failed(edgeface(*out, "--trials", 4, *photos_of), f"--data {wrong} is not a folder")
    assert not (tmp_path / "a").exists()


def test_too_few_trials_to_foresee_anything_from(
    photos: tuple[Path, Path], tmp_path: Path, edgeface: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed edgeface lacks the trainings recorded in a checkout."""
    monkeypatch.setattr(accuracy, "checkout_tables", lambda: [])
    where = ("--out", tmp_path / "a", "--target", "onnx", "--device", "ssh://nobody@127.0.0.1:1")
    data = ("search", *where, "--data", photos[0], "--annotations", photos[1])
    failed(edgeface(*data, "--trials", 7), "--trials 7 are too few", "give 8 at least")
    assert not (tmp_path / "a").exists()
    failed(edgeface(*data, "--trials", 8), "connection refused")


def test_a_number_of_trials_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="--trials must be from 0 to"):
        StudyOptions(trials=-1)
