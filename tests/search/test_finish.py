"""A detector from a search's front: checks before the search, resuming after a stop, inputs of the
training, and the file made of it. No search runs; trainings are faked or tiny."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import Command, failed
from hard_times import photos

from edgeface.errors import OptionError, QuantizeError
from edgeface.images.annotations import PLAIN_COLUMNS, POINT_COLUMNS, read_annotations
from edgeface.search import finish as module
from edgeface.search.options import STUDY, StudyOptions, save_options
from edgeface.search.results import FrontNet
from edgeface.search.space import SPACES
from edgeface.search.trials.photos import KEPT, TRAINED, kept_aside, plan_of
from edgeface.training.options import TrainOptions
from edgeface.types import unseen
from edgeface.zoo.index import FOLDER

pytest.importorskip("pymoo", reason="pymoo is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("torch", reason="torch is not installed")

import small_runs

from edgeface import training
from edgeface.search import study

OPTIONS = StudyOptions(target="onnx", precision="fp32", budget_ms=6, seed=3)
BOX = (10, 20, 60, 80)
NET = FrontNet(
    SPACES["edge"].sample(0), "640x480", 1.0, 5.0, (4.0, 6.0), 5.0, (4.9, 5.1), 1, 1, 1, 1
)


@dataclasses.dataclass
class Own:
    """Own photos, as empty files that are never opened, and their annotations."""

    data: Path
    annotations: Path
    landmarks: Path


@pytest.fixture
def own(tmp_path: Path) -> Own:
    found = Own(tmp_path / "my photos", tmp_path / "faces.csv", tmp_path / "landmarks.csv")
    found.data.mkdir()
    names = [f"{number:02}.png" for number in range(50)]
    box, points = ",".join(map(str, BOX)), ",".join(map(str, range(10)))
    for name in names:
        (found.data / name).touch()
    header = ",".join(PLAIN_COLUMNS)
    found.annotations.write_text("\n".join([header, *(f"{n},{box}" for n in names), ""]))
    header += "," + ",".join(POINT_COLUMNS)
    found.landmarks.write_text("\n".join([header, *(f"{n},{box},{points}" for n in names), ""]))
    return found


Asked = list[tuple[StudyOptions, tuple[Any, ...]]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Options of each search and arguments of :func:`finish`; both are fakes, as if stopped."""
    calls: Asked = []
    searched: list[StudyOptions] = []

    class Study:
        def __init__(self, options: StudyOptions, folder: Path, *_: object) -> None:
            save_options(folder, options)
            searched.append(options)

        def run(self, *_: object) -> list[FrontNet]:
            return [NET]

    def finish(*arguments: Any) -> None:
        calls.append((searched.pop(), (*arguments[:2], *arguments[3:5])))

    monkeypatch.setattr(study, "Study", Study)
    monkeypatch.setattr(module, "finish", finish)
    return calls


def advised(result: tuple[int, str, str]) -> list[str]:
    """Words of the command that the message advises to continue with."""
    code, _, err = result
    line = err.splitlines()[-1]
    assert code == 130 and line.startswith("stopped: nothing is lost, continue with: edgeface "), (
        err
    )
    return shlex.split(line.removeprefix("stopped: nothing is lost, continue with: "))


@pytest.mark.parametrize("known", [{}, {"data": "{data}"}])
def test_photos_are_given_for_the_detector_alone(
    known: dict[str, str], own: Own, asked: Asked, edgeface: Command, tmp_path: Path
) -> None:
    """The search itself had no photos, or no annotations. After a stop, the advised command uses
    the photos given with --finish."""
    folder = tmp_path / "s"
    data: Any = {name: text.format(data=own.data) for name, text in known.items()}
    options = dataclasses.replace(OPTIONS, **data)
    save_options(folder, options)
    arguments = ("search", "--resume", folder, "--finish", 1000)
    first = edgeface(*arguments, "--data", own.data, "--annotations", own.annotations)
    photos: Any = {"data": str(own.data), "annotations": str(own.annotations)}
    ((searched, call),) = asked
    assert searched == options, "and its stages are weighed as before"
    assert call == (dataclasses.replace(options, **photos), folder, 1000, None)
    edgeface(*advised(first)[1:])
    assert asked[1] == asked[0]


def test_all_that_was_given_goes_on(
    own: Own, asked: Asked, edgeface: Command, tmp_path: Path
) -> None:
    """The advised command keeps a folder with a space, a device with its own Python, landmarks."""
    folder = tmp_path / "my search"
    device = ("--device", "ssh://pi@h?python=/my venv/bin/python", "--target", "onnx")
    photos = ("--data", own.data, "--annotations", own.annotations, "--landmarks", own.landmarks)
    wanted = ("--finish", 32, "--ray", "h:6379")
    first = edgeface("search", "--out", folder, *device, *photos, *wanted)
    edgeface(*advised(first)[1:])
    assert asked[0] == asked[1] and "h:6379" in advised(first)
    assert asked[0][0].device == device[1] and asked[0][1][3] == own.landmarks
    assert "--data" not in advised(first), "the folder keeps them"


def test_it_goes_on_from_another_folder(
    own: Own, asked: Asked, edgeface: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths of photos and of a space file still name the same files."""
    monkeypatch.chdir(tmp_path)
    space = dataclasses.asdict(SPACES["edge"])
    (tmp_path / "space.json").write_text(json.dumps(space))
    photos = ("--data", own.data.name, "--annotations", own.annotations.name)
    wanted = ("--space", "space.json", "--target", "onnx", "--finish", 32)
    first = edgeface("search", "--out", tmp_path / "s", *photos, *wanted)
    monkeypatch.chdir("/")
    edgeface(*advised(first)[1:])
    assert asked[0] == asked[1] and asked[0][0].data == str(own.data)


def test_photos_of_trials_stay_those_of_the_search(
    own: Own, asked: Asked, edgeface: Command, tmp_path: Path
) -> None:
    photos: Any = {"data": str(own.data), "annotations": str(own.annotations)}
    save_options(tmp_path / "s", dataclasses.replace(OPTIONS, trials=4, **photos))
    other = tmp_path / "others"
    other.mkdir()
    arguments = ("search", "--resume", tmp_path / "s", "--finish", 1000, "--data", other)
    failed(edgeface(*arguments, "--annotations", own.annotations), "leave --data out")
    assert asked == []


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("annotations", ("no eval_tools/ground_truth", "--annotations FILE")),
        ("typo", ("typo.csv",)),
        ("other boxes", ("are not among the annotations",)),
        ("no points", ("holds no landmarks",)),
        ("few", ("50 at least",)),
        ("missing", ("1 of 50 photos are not in",)),
        ("no photos to judge on", ("ground_truth",)),
    ],
)
def test_what_it_needs_is_looked_at_before_the_search(
    mistake: str,
    words: tuple[str, ...],
    own: Own,
    asked: Asked,
    edgeface: Command,
    tmp_path: Path,
) -> None:
    landmarks, annotations = own.landmarks, ["--annotations", own.annotations]
    if mistake == "annotations":
        annotations = []
    elif mistake == "typo":
        landmarks = tmp_path / "typo.csv"
    elif mistake == "other boxes":
        landmarks.write_text(landmarks.read_text().replace("49.png,10,", "49.png,12,"))
    elif mistake == "no points":
        landmarks = own.annotations
    elif mistake == "few":
        lines = own.annotations.read_text().splitlines(keepends=True)
        own.annotations.write_text("".join(lines[:31]))
    elif mistake == "missing":
        (own.data / "07.png").unlink()
    else:
        (own.data / "eval_tools/ground_truth").mkdir(parents=True)
    out = ("--out", tmp_path / "s", "--data", own.data, *annotations, "--landmarks", landmarks)
    failed(edgeface("search", *out, "--target", "onnx", "--finish", 1000), *words)
    assert asked == [] and not (tmp_path / "s" / STUDY).exists()


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("outside", ("box x1,y1,x2,y2 = 10, 20, 60, 80 lies outside the image of 32x16 px",)),
        ("no faces", ("that are kept aside for AP has no face to find in its 10 photos",)),
        ("one stem", ("kept aside for AP names two photos that differ in their suffix alone",)),
    ],
)
def test_photos_kept_aside_are_looked_at_before_the_search(
    mistake: str,
    words: tuple[str, ...],
    own: Own,
    asked: Asked,
    edgeface: Command,
    tmp_path: Path,
) -> None:
    """Without the check, they would first be opened after the training, hours later."""
    kept = sorted(kept_aside(read_annotations(own.annotations)))
    text = own.annotations.read_text()
    if mistake == "outside":
        cv2.imwrite(str(own.data / kept[0]), np.zeros((16, 32, 3), np.uint8))
    elif mistake == "no faces":
        for name in kept:
            text = text.replace(f"{name},{','.join(map(str, BOX))}", f"{name},,,,")
    else:
        names = [f"{number:02}.{suffix}" for number in range(25) for suffix in ("png", "jpg")]
        box = ",".join(map(str, BOX))
        text = "\n".join([",".join(PLAIN_COLUMNS), *(f"{name},{box}" for name in names)])
        for name in names:
            (own.data / name).touch()
    own.annotations.write_text(text)
    arguments = ("search", "--out", tmp_path / "s", "--data", own.data, "--target", "onnx")
    failed(edgeface(*arguments, "--annotations", own.annotations, "--finish", 1000), *words)
    assert asked == [] and not (tmp_path / "s" / STUDY).exists()


def test_a_training_that_cannot_go_on_says_how_it_begins_anew(
    hopper_path: Path, tmp_path: Path
) -> None:
    """The folder of a search holds one training, whatever --out is. To train another network, such
    as one with landmarks, the user must delete that training."""
    data, annotations = photos(tmp_path, hopper_path, 50)
    options = dataclasses.replace(OPTIONS, data=str(data), annotations=str(annotations))
    folder = tmp_path / "s"
    plan = plan_of(folder, data, annotations, TrainOptions())
    assert plan.annotations
    cache = training.open_photos(data, Path(plan.annotations), folder / "cache")
    small_runs.trained(cache, folder / "training")
    with pytest.raises(OptionError, match=r"other architecture.*; or delete .*s/training, and"):
        module.finish(options, folder, [NET], 1000, None, unseen, lambda _: None)


def test_landmarks_of_own_photos_are_learned(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The landmarks file also covers the photos kept aside. Trials have no landmarks and use a
    cache of their own."""
    calls: list[dict[str, Any]] = []
    names = ("network", "recipe", "data", "run", "annotations", "cache")

    def train(*arguments: Any, **others: Any) -> bool:
        calls.append(dict(zip(names, arguments, strict=True)) | others)
        return False

    monkeypatch.setattr(training, "train_model", train)
    options = dataclasses.replace(OPTIONS, data=str(own.data), annotations=str(own.annotations))
    folder = tmp_path / "s"
    for landmarks in (None, own.landmarks):
        module.finish(options, folder, [NET], 32, landmarks, unseen, lambda _: None)
    plain, pointed = calls
    assert plain["network"] == NET.architecture and plain["cache"] == folder / "cache"
    assert plain["annotations"] == folder / TRAINED
    run = folder / "training"
    assert (pointed["run"], pointed["cache"]) == (run, run / "cache")
    assert pointed["network"].head.landmarks == 5 and pointed["landmarks"] is None
    for name, count in ((TRAINED, 40), (KEPT, 10)):
        images = read_annotations(run / name)
        assert len(images) == count
        for image in images:
            assert image.landmarks is not None
            assert image.landmarks.ravel().tolist() == [*range(10)]
    assert pointed["annotations"] == run / TRAINED
    assert all(np.array_equal(i.boxes, [BOX]) for i in read_annotations(folder / TRAINED))


@pytest.mark.parametrize("held", [True, False])
def test_int8_has_a_budget_on_own_photos(
    held: bool, hopper_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held on the photos kept aside; if it cannot be, the file is made and says its loss."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from quantize.budget import Budget

    hold = Budget.hold

    def too_much(self: Budget, reference: Any, max_drop: float, share: float) -> Any:
        if max_drop < module.ANY_DROP:
            raise QuantizeError("the budget cannot be held")
        return hold(self, reference, max_drop, share)

    if not held:
        monkeypatch.setattr(Budget, "hold", too_much)
    plan = plan_of(tmp_path, *photos(tmp_path, hopper_path, 50), TrainOptions())
    said: list[str] = []
    options = dataclasses.replace(OPTIONS, precision="int8")
    weights, out = FOLDER / "edgeface-n.safetensors", tmp_path / "out"
    made = module._file(options, "160x128", plan, weights, out, said.append, None).manifest
    assert made.precision == "int8" and made.accuracy and made.accuracy["images"] == 10
    assert made.accuracy["int8"]["hard"] is not None
    assert made.accuracy["max_drop"] == (0.5 if held else module.ANY_DROP)
    assert said.pop(0).startswith("AP is that of 10 faces, one of which is 10.0 points")
    assert [note for note in said if "cannot be held; made all the same" in note] == said
    assert bool(said) != held


def test_a_budget_that_cannot_be_held_is_the_least_that_all_of_int8_loses(
    hopper_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file gets the ranges with that least loss, not the first ones, and keeps no layer in
    float. Calibration on dark noise loses more than half a point."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from quantize.budget import Budget

    hold, asked = Budget.hold, list[float]()

    def all_int8(self: Budget, reference: Any, max_drop: float, _: float) -> Any:
        asked.append(max_drop)
        return hold(self, reference, max_drop, 0)

    monkeypatch.setattr(Budget, "hold", all_int8)
    plan = plan_of(tmp_path, *photos(tmp_path, hopper_path, 50), TrainOptions())
    assert plan.annotations
    random = np.random.default_rng(5)
    for number, image in enumerate(read_annotations(plan.annotations)):
        dark = random.integers(0, 64, (64, 64 + number, 3), np.uint8)
        cv2.imwrite(str(Path(plan.data) / image.path), dark)
    options = dataclasses.replace(OPTIONS, precision="int8")
    weights, out = FOLDER / "edgeface-n.safetensors", tmp_path / "out"
    bundle = module._file(options, "160x128", plan, weights, out, lambda _: None, None)
    made = bundle.manifest.accuracy
    assert made and made["reverted_layers"] == []
    lost = round(100 * (made["float"]["hard"] - made["int8"]["hard"]), 4)
    assert asked == [0.5, made["max_drop"]]
    assert 0.5 < lost <= made["max_drop"] < lost + 0.011


def test_what_was_made_is_not_made_again(
    hopper_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is repeated while training, photos and options stay the same. A latency marked as
    disturbed is measured again, without making the file again."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    data, annotations = photos(tmp_path, hopper_path, 50)
    options = dataclasses.replace(OPTIONS, data=str(data), annotations=str(annotations))
    options, folder = dataclasses.replace(options, max_load=1024), tmp_path / "s"
    said: list[str] = []
    small = dataclasses.replace(small_runs.SMALL, seed=options.seed)
    monkeypatch.setattr(module, "TrainOptions", lambda **_: small)
    made = list[str]()
    for name in ("_file", "_timed"):
        work = getattr(module, name)

        def counted(*arguments: Any, name: str = name, work: Any = work) -> Any:
            made.append(name)
            return work(*arguments)

        monkeypatch.setattr(module, name, counted)
    net = dataclasses.replace(NET, architecture=small_runs.NET, size="64x64")

    def finish(**changed: Any) -> list[str]:
        made.clear()
        wanted = dataclasses.replace(options, **changed)
        assert module.finish(wanted, folder, [net], 8, None, unseen, said.append)
        return [*made]

    assert finish() == ["_file", "_timed"]
    path = folder / "detector.json"
    before = json.loads(path.read_text())
    assert before["search"] == json.loads(json.dumps(dataclasses.asdict(options)))
    path.write_text(json.dumps(before | {"valid": True}))
    assert finish() == finish(max_load=3.0) == []
    assert said[-1] == f"{path} is of this training and these photos: nothing is made again"
    path.write_text(json.dumps(before | {"valid": False, "network_ms": 1e6}))
    assert finish() == ["_timed"]
    after = json.loads(path.read_text())
    assert after["network_ms"] < 1e6 and after["ap"] == before["ap"]
    assert not any("--budget-ms" in line for line in said)
    assert finish(budget_ms=1e-3) == ["_file", "_timed"]
    assert f"the file takes {said[-1].split()[3]} ms, more than --budget-ms 0.001" in said[-1]
    assert finish(threads=2)[0] == "_file"
    kept = data / read_annotations(folder / KEPT)[0].path
    kept.touch()
    assert finish()[0] == "_file", "another photo"
