"""Searches with real measurements of small networks in ONNX Runtime. No latency is asserted, only
relations that always hold."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from studies import OPTIONS, SIZE, begin, quiet_note, resume, sound_progress

from edgeface.architecture.architecture import Architecture
from edgeface.errors import DataError, DeviceError, EdgefaceError, OptionError
from edgeface.predict.table import LatencyTable

pytest.importorskip("pymoo", reason="pymoo is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("torch", reason="torch is not installed")

from typer.testing import CliRunner, Result

from edgeface.cli.app import app
from edgeface.search.options import StudyOptions, load_options, save_options
from edgeface.search.results import Candidate, FrontNet, Round
from edgeface.search.study import Study

Done = tuple[Path, Path, list[Round], list[FrontNet]]


@pytest.fixture(scope="module")
def done(small_space: str, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """(folder of a finished search, a copy of it as it was after round 0, rounds, front)"""
    folder, before = (
        tmp_path_factory.mktemp("study") / "run",
        tmp_path_factory.mktemp("before") / "run",
    )
    rounds: list[Round] = []

    def told(finished: Round) -> None:
        rounds.append(finished)
        if finished.number == 0:
            shutil.copytree(folder, before)

    study = begin(folder, space=small_space)
    return folder, before, rounds, study.run(told)


def test_a_search_writes_what_it_found(done: Done) -> None:
    folder, _, rounds, front = done
    assert [r.number for r in rounds] == [0, 1]
    assert 0 < len(rounds[0].picked) <= 20
    written = json.loads((folder / "front.json").read_text())
    assert len(written) == len(front) > 0
    for net, data in zip(front, written, strict=True):
        assert Architecture.from_json(data["architecture"]) == net.architecture
        assert {"score", "predicted_ms", "measured_ms", "interval_ms"} <= set(data)
        assert data["interval_ms"][0] <= data["measured_ms"] <= data["interval_ms"][1]
        assert data["predicted_ms"] > 0
    assert b"<h1>" in (folder / "report.html").read_bytes()


def test_the_front_is_measured_and_no_network_of_it_is_beaten(done: Done) -> None:
    folder, _, rounds, front = done
    table = LatencyTable.load(folder / f"latency-{SIZE}.json")
    assert [net.measured_ms for net in front] == sorted(net.measured_ms for net in front)
    assert [net.score for net in front] == sorted(net.score for net in front)
    for net in front:
        record = table.find(net.architecture)
        assert record is not None
        assert net.measured_ms == pytest.approx(table.ms(record))
    for e in (e for r in rounds for e in r.picked):
        record = table.find(e.architecture)
        if record:
            assert any(
                net.score >= e.score and net.measured_ms <= table.ms(record) + 1e-9 for net in front
            )


def test_every_evaluation_is_logged_once(done: Done) -> None:
    folder, _, rounds, _ = done
    lines = [json.loads(line) for line in (folder / "evaluations-1.jsonl").read_text().splitlines()]
    assert len(lines) == rounds[1].evaluated > OPTIONS.population
    networks = {json.dumps({**line["architecture"], "name": ""}) for line in lines}
    assert len(networks) == len(lines)
    logged = [Architecture.from_json(line["architecture"]) for line in lines]
    assert all(e.architecture in logged for e in rounds[1].picked)


def test_equal_measurements_give_the_same_choice(done: Done, tmp_path: Path) -> None:
    """Round 1 is chosen again from the state after round 0."""
    folder, before, _, _ = done
    again = tmp_path / "run"
    shutil.copytree(before, again)
    study = resume(again)
    assert study._stored(0) is not None
    study._choose(1)
    assert (again / "round-1.json").read_bytes() == (folder / "round-1.json").read_bytes()
    assert (again / "evaluations-1.jsonl").read_bytes() == (
        folder / "evaluations-1.jsonl"
    ).read_bytes()


def test_a_finished_search_is_read_not_repeated(done: Done) -> None:
    folder, _, _, front = done
    table = (folder / f"latency-{SIZE}.json").read_bytes()
    seen: list[Round] = []
    again = resume(folder).run(seen.append)
    assert (folder / f"latency-{SIZE}.json").read_bytes() == table
    assert [net.to_json() for net in again] == [net.to_json() for net in front]
    assert [r.number for r in seen] == [0, 1]


def test_stopped_while_it_measures_it_goes_on(done: Done, tmp_path: Path) -> None:
    """The networks chosen before the stop are measured after it."""
    _, before, _, _ = done
    again = tmp_path / "run"
    shutil.copytree(before, again)

    def stop(what: str, *_: object) -> None:
        if what.startswith("round 1 of 1: measuring") and (again / "round-1.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Study(load_options(again), again, stop, quiet_note).run(lambda r: None)
    chosen = (again / "round-1.json").read_bytes()
    assert not (again / "front.json").exists()
    front = resume(again).run(lambda r: None)
    assert (again / "round-1.json").read_bytes() == chosen
    assert len(json.loads((again / "front.json").read_text())) == len(front)


def test_a_budget_nothing_keeps_names_the_fastest(
    done: Done, small_space: str, tmp_path: Path
) -> None:
    table = LatencyTable.load(done[0] / f"latency-{SIZE}.json")
    study = begin(tmp_path / "run", space=small_space, objective="budget", budget_ms=0.001)
    with pytest.raises(
        OptionError,
        match=r"--budget-ms 0.001 is below the fastest .* takes \d.*larger budget.* --table",
    ):
        study.run(lambda r: None, [table])


def test_a_budget_everything_keeps_is_noted(done: Done, small_space: str, tmp_path: Path) -> None:
    notes: list[str] = []
    study = begin(
        tmp_path / "run", notes.append, space=small_space, objective="budget", budget_ms=1e6
    )
    study.oracle.adopt(LatencyTable.load(done[0] / f"latency-{SIZE}.json"))
    study._check_budget()
    assert len(notes) == 1
    assert "excludes nothing" in notes[0]


def test_without_a_checkout_nothing_is_chosen(
    small_space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path / "run", space=small_space)
    monkeypatch.setattr("edgeface.backends.CHECKOUT", tmp_path)
    with pytest.raises(
        OptionError, match="runs from a checkout of the project: clone it and run: the same command"
    ):
        study.run(lambda r: None)
    assert not (tmp_path / "run" / "round-0.json").exists()


def test_a_budget_must_be_given() -> None:
    with pytest.raises(OptionError, match="--objective budget needs --budget-ms"):
        dataclasses.replace(OPTIONS, objective="budget", budget_ms=0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "weighted", "exchange": 2.0, "cost": "size"},
        {"objective": "pareto", "cost": "memory"},
    ],
)
def test_objectives(done: Done, small_space: str, tmp_path: Path, change: dict[str, Any]) -> None:
    """The first network picked for measuring is the best that evolution saw by its objective."""
    study = begin(tmp_path / "run", space=small_space, **change)
    study.oracle.adopt(LatencyTable.load(done[0] / f"latency-{SIZE}.json"))
    seen = list(study._evolve(1).values())
    picked = study._pick(seen)
    assert len(picked) == OPTIONS.picks
    if change["objective"] == "weighted":
        best = min(study.options.exchange * math.log(e.cost) - e.score for e in seen)
        assert study.options.exchange * math.log(picked[0].cost) - picked[0].score == pytest.approx(
            best
        )
    else:
        assert not any(
            other.score > e.score and other.cost < e.cost for e in picked[:1] for other in seen
        )


def test_budget_and_best_score(done: Done, small_space: str, tmp_path: Path) -> None:
    table = LatencyTable.load(done[0] / f"latency-{SIZE}.json")
    budget = sorted(table.ms(r) for r in table.valid)[len(table.valid) // 2]
    study = begin(
        tmp_path / "run", space=small_space, objective="budget", budget_ms=budget, generations=6
    )
    study.oracle.adopt(table)
    seen = list(study._evolve(1).values())
    picked = study._pick(seen)
    assert all(e.predicted_ms <= budget for e in picked)
    allowed = [
        e.score
        for e in seen
        if e.predicted_ms <= budget
        and study.oracle.record(Candidate(e.architecture, e.size)) is None
    ]
    assert picked[0].score == max(allowed)
    cheapest = min(picked, key=lambda e: e.cost)  # picks include both ends of the front in budget
    unmeasured = [e for e in seen if study.oracle.record(Candidate(e.architecture, e.size)) is None]
    assert cheapest.cost == min(e.cost for e in unmeasured)
    assert not any(e.cost <= cheapest.cost and e.score > cheapest.score for e in unmeasured)


def test_another_search_in_the_folder(done: Done) -> None:
    options = dataclasses.replace(load_options(done[0]), seed=5)
    with pytest.raises(
        OptionError, match="holds a search with other options: go on with edgeface search --resume"
    ):
        Study(options, done[0], sound_progress, quiet_note)


def test_a_table_of_another_setting(done: Done, small_space: str, tmp_path: Path) -> None:
    table = LatencyTable.load(done[0] / f"latency-{SIZE}.json")
    study = begin(tmp_path / "run", space=small_space, threads=2)
    with pytest.raises(DataError, match="this search is of onnx fp32, 160x128, 2 threads"):
        study.oracle.adopt(table)
    with pytest.raises(DataError, match="begin another table"):
        table.joined(dataclasses.replace(table, cpu="another"))


def test_tables_are_joined(done: Done) -> None:
    table = LatencyTable.load(done[0] / f"latency-{SIZE}.json")
    first, second = (
        dataclasses.replace(table, records=part, reference_ms=(ms,), device_s=1.5)
        for part, ms in ((table.records[:5], 2.0), (table.records[5:], 3.0))
    )
    both = first.joined(second)
    assert both.records == table.records
    assert (both.reference_ms, both.device_s) == ((2.0, 3.0), 3.0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("study.json", "{"),
        ("study.json", '{"colour": 1}'),
        ("round-0.json", "[]"),
        ("evaluations-0.jsonl", "{}"),
    ],
)
def test_damaged_files_of_a_search(done: Done, tmp_path: Path, name: str, content: str) -> None:
    again = tmp_path / "run"
    shutil.copytree(done[0], again)
    (again / name).write_text(content)
    with pytest.raises(EdgefaceError) as caught:
        resume(again).run(lambda r: None)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [f"latency-{SIZE}.json", "round-1.json", "evaluations-0.jsonl"])
def test_the_front_of_a_search_that_is_over_outlives_its_files(
    done: Done, tmp_path: Path, name: str
) -> None:
    again = shutil.copytree(done[0], tmp_path / "run")
    before = (again / "front.json").read_bytes()
    (again / name).rename(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} is missing, of which front\.json is: put it"):
        resume(again).run(lambda r: None)
    assert (again / "front.json").read_bytes() == before and not (again / name).exists()
    (tmp_path / name).rename(again / name)
    resume(again).run(lambda r: None)
    assert (again / "front.json").read_bytes() == before


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["search", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --out"),
        (("--out", "{folder}/a", "--resume", "{folder}/a"), "give either --out"),
        (("--resume", "{folder}/none"), "no search to go on with"),
        (("--out", "{folder}/broken"), "(JSONDecodeError): choose another --out folder"),
        (("--resume", "{folder}/broken"), "(JSONDecodeError): choose another --out folder"),
        (("--out", "{folder}/a", "--space", "huge"), "unknown space 'huge'"),
        (("--out", "{folder}/a", "--target", "tensorrt"), "tensorrt"),
        (("--out", "{folder}/a", "--size", "100x100"), "multiples of 32"),
        (("--out", "{folder}/a", "--size", "64x64", "--size", "64x64"), "each once"),
        (("--out", "{folder}/a", "--size", "64x64", "--size", "064x64"), "each once"),
        (("--out", "{folder}/a", "--score", "beauty"), "unknown score 'beauty'"),
        (("--out", "{folder}/a", "--first", "3"), "--first must be from 20 to 100000, got 3"),
        (
            ("--out", "{folder}/a", "--budget-ms", "nan"),
            "--budget-ms must be from 0 to 1000000, got nan",
        ),
        (("--out", "{folder}/a", "--objective", "luck"), "--objective 'luck' is not one of"),
        (("--out", "{folder}/a", "--data", "{folder}/none.txt"), "there are no faces"),
        (("--out", "{folder}/a", "--device", "telnet://pi"), "telnet"),
        (("--out", "{folder}/a", "--table", "{folder}/none.json"), "none.json"),
        (("--out", "{folder}/none.txt/a"), "cannot write"),
        (
            (
                "--out",
                "{folder}/a",
                "--device",
                "ssh://nobody@127.0.0.1:1",
                "--target",
                "onnx",
                "--precision",
                "fp32",
            ),
            "ssh://nobody@127.0.0.1:1: connection refused",
        ),
    ],
)
def test_command_refuses(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("a.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text('{"target":')
    result = run(*(argument.format(folder=tmp_path) for argument in arguments))
    error = result.exception
    assert isinstance(error, EdgefaceError)
    assert message in str(error)
    assert "\n" not in str(error)
    assert "what was measured is kept" not in str(error)
    assert not (tmp_path / "a").exists() or not [*(tmp_path / "a").iterdir()]


def test_options_of_a_device_come_from_the_command_line_alone(tmp_path: Path) -> None:
    """Options of a device can run commands, and the folder may come from a stranger."""
    config, ran = tmp_path / "ssh_config", tmp_path / "ran"
    config.write_text(f"Host *\n  ProxyCommand touch {ran}\n")
    folder = tmp_path / "search"
    plain, whole = "ssh://nobody@127.0.0.1:1", f"ssh://nobody@127.0.0.1:1?config={config}"
    first = run("--out", str(folder), "--device", whole)
    assert isinstance(first.exception, DeviceError) and ran.exists(), "the configuration is taken"
    ran.unlink()
    save_options(folder, StudyOptions(device=whole))
    study = folder / "study.json"
    assert json.loads(study.read_text())["device"] == plain
    study.write_text(study.read_text().replace(plain, whole))
    assert isinstance(run("--resume", str(folder)).exception, EdgefaceError)
    assert not ran.exists()
    again = run("--resume", str(folder), "--device", whole)
    assert isinstance(again.exception, DeviceError) and ran.exists()
    assert f"is kept, continue with: edgeface search --resume {folder} --device '{whole}'" in str(
        again.exception
    )
    other = run("--resume", str(folder), "--device", f"ssh://elsewhere?config={config}")
    assert "leave --device out" in str(other.exception)


def test_the_command_prints_the_front(done: Done) -> None:
    result = run("--resume", str(done[0]), "--format", "json")
    assert result.exit_code == 0, result.output
    assert {"architecture", "score", "predicted_ms", "measured_ms", "interval_ms"} <= set(
        json.loads(result.stdout)[0]
    )
    assert "measured ms" in run("--resume", str(done[0])).stdout


def test_resume_may_change_what_is_free(done: Done) -> None:
    folder = done[0]
    options = load_options(folder)
    changed = dataclasses.replace(options, max_load=3, jobs=2)
    assert Study(changed, folder, sound_progress, quiet_note).run(lambda _: None)
