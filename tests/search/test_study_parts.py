"""Searches over two sizes, and groups of networks measured elsewhere."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from networks import with_part
from studies import OPTIONS, SIZE, begin, quiet_note, resume, sound_progress

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import macs_of, params_of
from edgeface.errors import DeviceError
from edgeface.predict.table import LEAST_NETWORKS, LatencyTable, Record
from edgeface.search.space import SPACES, get_space

pytest.importorskip("pymoo", reason="pymoo is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("torch", reason="torch is not installed")

from ray_cluster import two_machines

from edgeface.search.evolution import CHOICE, Pool
from edgeface.search.latency import RESOURCE, LatencyOracle, measure_group
from edgeface.search.options import save_options
from edgeface.search.results import Candidate, Round
from edgeface.search.study import Study

TWO_SIZES = (SIZE, "96x96")


def test_networks_of_each_size_are_drawn_first(small_space: str) -> None:
    """Each size gets as many as a search of one size, and the first size gets the very same."""
    one, two = (Pool(get_space(small_space), sizes) for sizes in ((SIZE,), TWO_SIZES))
    alone, first = one.first(7, 20, "onnx"), two.first(7, 20, "onnx")
    assert first[:20] == alone == one.first(7, 20, "onnx")
    assert {c.key for c in alone} <= {one.sample(7 + i).key for i in range(20 * CHOICE)}
    assert [c.size for c in first] == [size for size in TWO_SIZES for _ in range(20)]
    assert len({c.architecture for c in first}) == 40


def test_each_size_has_a_model_and_a_place_in_the_front(small_space: str, tmp_path: Path) -> None:
    """The made-up device takes 20 ps for a multiply-accumulate, and 1 ms more for a network."""
    study = begin(tmp_path / "run", space=small_space, sizes=TWO_SIZES, cost="size")
    chosen = study._choose(0)
    for size, setting in study.oracle.settings.items():
        times = [
            (e.architecture, 1 + 2e-8 * macs_of(e.architecture, setting.width, setting.height))
            for e in chosen.picked
            if e.size == size
        ]
        records = tuple(Record(a, ms / 10, 0.99 * ms / 10, 1.01 * ms / 10, ms) for a, ms in times)
        study.oracle.adopt(LatencyTable(setting, "made up", "onnxruntime 0", records, (10.0,)))
    front = study._front([study._with_measurements(chosen)])
    assert {net.size for net in front} == set(TWO_SIZES)
    assert [net.params for net in front] == sorted(net.params for net in front)
    seen = study._evolve(1).values()
    assert {e.size for e in seen} == set(TWO_SIZES)
    assert all(e.predicted_ms > 0 for e in seen)


def test_trials_are_chosen_by_what_was_measured(
    small_space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of round 0 have no predicted latency: by the measured one, the fastest and the best
    are trained. The made-up device takes 10 ns for a parameter."""
    study = begin(tmp_path / "run", space=small_space)
    chosen = study._choose(0)
    times = {e.architecture: 1e-5 * params_of(e.architecture) for e in chosen.picked}
    records = tuple(Record(a, ms, 0.99 * ms, 1.01 * ms, ms) for a, ms in times.items())
    setting = study.oracle.settings[SIZE]
    study.oracle.adopt(LatencyTable(setting, "made up", "onnxruntime 0", records, (1.0,)))
    asked: list[list[Architecture]] = []
    trials = SimpleNamespace(
        find=lambda a: None, model=None, train=lambda networks, what: asked.append(networks)
    )
    monkeypatch.setattr(study.scorer, "oracle", trials)
    monkeypatch.setattr(study.scorer, "options", dataclasses.replace(study.options, trials=8))
    study._train(0, [chosen])
    (trained,) = asked
    assert len(trained) == 4
    assert min(times, key=times.__getitem__) in trained
    assert max(times, key=study.scorer.proxy) in trained


@pytest.mark.slow
def test_a_search_over_two_sizes(small_space: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    study = begin(folder, space=small_space, sizes=TWO_SIZES, cost="size")
    rounds: list[Round] = []
    front = study.run(rounds.append)
    assert [r.number for r in rounds] == [0, 1]
    tables = {size: folder / f"latency-{size}.json" for size in TWO_SIZES}
    assert all(len(LatencyTable.load(path).records) >= OPTIONS.first for path in tables.values())
    measured = [
        (e, study.oracle.ms(Candidate(e.architecture, e.size))) for r in rounds for e in r.picked
    ]
    assert {e.size for e, _ in measured} == set(TWO_SIZES)
    for e, ms in measured:
        assert ms is None or any(net.score >= e.score and net.params <= e.cost for net in front)
    before = {size: path.read_bytes() for size, path in tables.items()}
    again = resume(folder).run(lambda r: None)
    assert [net.to_json() for net in again] == [net.to_json() for net in front]
    assert {size: path.read_bytes() for size, path in tables.items()} == before


BROKEN = with_part(SPACES["xx"].sample(0), "backbone", "broken", structure="SuperConv(1)")
"""a network whose backbone structure is malformed"""


def test_a_group_leaves_out_what_cannot_be_made(small_space: str, tmp_path: Path) -> None:
    """As without a cluster, such networks are reported by name and the others are measured."""
    options = dataclasses.replace(OPTIONS, space=small_space)
    notes: list[str] = []
    oracle = LatencyOracle(options, tmp_path, sound_progress, quiet_note)
    quick = dataclasses.replace(oracle.protocol, rounds=5, per_round=2, warm_up_s=0.1)
    good = get_space(small_space).sample(0)

    def group(*networks: Architecture) -> dict[str, Any]:
        return measure_group(
            {
                "device": "local",
                "setting": dataclasses.asdict(oracle.settings[SIZE]),
                "architectures": [a.to_json() for a in networks],
                "protocol": dataclasses.asdict(quick),
            }
        )

    nothing = group(BROKEN)
    assert nothing["table"] == ""
    oracle.take(SIZE, nothing, notes.append)
    assert oracle.tables == {}
    oracle.take(SIZE, json.loads(json.dumps(group(BROKEN, good))), notes.append)
    assert [r.architecture for r in oracle.tables[SIZE].records] == [good]
    assert LatencyTable.load(oracle.path(SIZE)) == oracle.tables[SIZE]
    assert len(notes) == 2
    assert all(note.startswith("left out: broken: ") and "malformed" in note for note in notes)


def test_a_first_group_of_which_nothing_could_be_measured(tmp_path: Path) -> None:
    """Only the reference could be measured. This is no error, as the next group may succeed."""
    oracle = LatencyOracle(OPTIONS, tmp_path, sound_progress, quiet_note)
    oracle._grown(SIZE, LatencyTable(oracle.settings[SIZE], "made up", "onnxruntime 0", (), (1.0,)))
    assert oracle.missing(SIZE) == LEAST_NETWORKS and oracle.path(SIZE).is_file()


def test_networks_that_make_up_for_others_are_drawn_once(
    small_space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search stopped while it measures more networks resumes with the same ones, as without a
    stop. The made-up device measures nothing successfully."""
    notes: list[str] = []
    whole = begin(tmp_path / "whole", notes.append, space=small_space)

    def stop(_: list[Candidate]) -> None:
        raise KeyboardInterrupt

    save_options(whole.folder, whole.options)
    first = whole._choose(0)
    shutil.copytree(whole.folder, tmp_path / "cut")
    cut = begin(tmp_path / "cut", notes.append, space=small_space)
    monkeypatch.setattr(LatencyOracle, "measure", lambda *_: None)
    expected = whole._completed(first)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(cut.oracle, "measure", stop)
        cut._completed(first)
    assert cut._completed(cut._stored(0) or first) == expected
    assert len({e.candidate.key for e in expected.picked}) == len(expected.picked) > OPTIONS.first


@pytest.mark.slow
def test_the_machines_of_a_cluster_measure(small_space: str, tmp_path: Path) -> None:
    """Two groups of networks are measured on the machine that has the device."""
    options = dataclasses.replace(OPTIONS, space=small_space)
    notes: list[str] = []
    with two_machines({RESOURCE: 1}) as cluster:
        study = Study(options, tmp_path / "run", sound_progress, notes.append, ray=cluster.address)
        wanted = [study.pool.sample(seed) for seed in range(13)]
        with pytest.raises(DeviceError, match="none of 1 networks could be measured"):
            study.oracle.measure([Candidate(BROKEN, SIZE)])
        study.oracle.measure([*wanted, Candidate(BROKEN, SIZE)])
    table = LatencyTable.load(study.oracle.path(SIZE))
    assert len(table.reference_ms) >= 2
    assert {r.architecture.name for r in table.records} == {c.architecture.name for c in wanted}
    assert [note.partition(": ")[2].partition(": ")[0] for note in notes] == ["broken", "broken"]
    assert not (tmp_path / "run" / "candidates").exists()
