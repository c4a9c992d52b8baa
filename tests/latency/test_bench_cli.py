"""``edgeface bench``, ``bench compare`` and ``device check`` as a user meets them."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from by_hand import calm, environment, record, stages, steady
from commands import Command, failed

from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.errors import DataError, DeviceError
from edgeface.latency.devices import ACCEPTED, open_device
from edgeface.latency.devices.base import findings
from edgeface.latency.devices.local import LocalDevice
from edgeface.latency.examine import examine
from edgeface.latency.measurement import Measurement, load_measurements, save_measurements
from edgeface.latency.regression import compare_records
from edgeface.latency.session import Protocol

PROMISED = {
    "bundle",
    "device",
    "runtime",
    "precision",
    "threads",
    "network_ms",
    "end_to_end_ms",
    "ratio",
    "valid",
    "invalid_reasons",
}
"""fields of a record that later work relies on"""
QUICK = shlex.split("--rounds 2 --per-round 2 --warm-up-s 0 --photo-width 320 --photo-height 240")


@pytest.fixture
def bundles(exported: Callable[..., Bundle]) -> list[str]:
    return [str(exported(target).path) for target in ("onnx", "ncnn")]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """``saved(name, *records)`` writes a file of records and returns its path."""

    def save(name: str, *records: Measurement) -> str:
        save_measurements(tmp_path / name, records)
        return str(tmp_path / name)

    return save


def test_json_has_what_later_work_relies_on(
    edgeface: Command, bundles: list[str], tmp_path: Path
) -> None:
    code, out, err = edgeface(
        "bench",
        *bundles,
        "--threads",
        "1",
        "--format",
        "json",
        "--save",
        str(tmp_path / "new" / "r.json"),
        *QUICK,
    )
    records = json.loads(out)
    assert code == 0 and err == "" and len(records) == 2
    for row, path in zip(records, bundles, strict=True):
        assert set(row) >= PROMISED and "samples" not in row
        assert (
            set(row["network_ms"]) == set(row["end_to_end_ms"]) == {"min", "median", "p90", "p99"}
        )
        assert set(row["ratio"]) == {"to", "threads", "value", "low", "high", "verdict"}
        assert (row["bundle"], row["device"], row["threads"]) == (Path(path).name, "local", 1)
        assert row["valid"] is False and any(
            "too few samples" in reason for reason in row["invalid_reasons"]
        )
    kept = load_measurements(tmp_path / "new" / "r.json")
    assert [r.to_json(samples=False) for r in kept] == [
        Measurement.from_json(row).to_json(False) for row in records
    ]
    assert kept[0].samples


def test_json_with_samples_is_what_compare_reads(
    edgeface: Command, bundles: list[str], tmp_path: Path
) -> None:
    _, out, _ = edgeface("bench", bundles[0], "--format", "json", "--samples", *QUICK)
    (tmp_path / "r.json").write_text(out)
    code, out, err = edgeface(
        "bench", "compare", str(tmp_path / "r.json"), str(tmp_path / "r.json")
    )
    assert (
        code == 0
        and "1.00 (" in out
        and "unknown" in out
        and "too few samples" in out
        and err == ""
    )


def test_table_tells_reasons_threads_and_reference(edgeface: Command, bundles: list[str]) -> None:
    code, out, err = edgeface(
        "bench",
        *bundles,
        "--threads",
        "1",
        "--threads",
        "2",
        "--reference",
        Path(bundles[1]).name,
        *QUICK,
    )
    rows = [line.split() for line in out.splitlines() if line.startswith("edgeface")]
    assert (
        code == 0
        and err == ""
        and [(r[0], r[1]) for r in rows] == [(Path(b).name, t) for t in "12" for b in bundles]
    )
    assert [row[5] for row in rows].count("reference") == 1 and rows[1][5] == "reference"
    assert out.count("too few samples") == 4 and f"ratio to {Path(bundles[1]).name}, 1T" in out


def test_fast_mode_says_what_it_changes(edgeface: Command, bundles: list[str]) -> None:
    code, out, err = edgeface("bench", bundles[1], "--fast", "--format", "json", *QUICK)
    assert code == 0 and err.startswith("note: fast mode: ") and json.loads(out)[0]["fast"] is True


def test_a_model_that_fails_is_told_after_the_others(
    edgeface: Command, bundles: list[str], tmp_path: Path
) -> None:
    copy = tmp_path / Path(bundles[0]).name
    copy.mkdir()
    for file in Path(bundles[0]).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (model,) = copy.glob("*.onnx")
    model.write_bytes(model.read_bytes()[:-1])
    code, out, err = edgeface("bench", bundles[1], str(copy), "--format", "json", *QUICK)
    assert code == 2 and [row["bundle"] for row in json.loads(out)] == [Path(bundles[1]).name]
    first, last = err.splitlines()
    assert first.startswith(f"error: {copy.name}, 1 thread: ") and "SHA-256" in first
    assert (
        last == "error: 1 of 2 models could not be measured; the figures of the others are printed"
    )


def test_all_that_a_lost_connection_leaves_out_are_counted(
    edgeface: Command, bundles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: LocalDevice, jobs: Any, *rest: Any) -> None:
        rest[3](record())
        raise DeviceError("the connection was lost")

    monkeypatch.setattr(LocalDevice, "measure", lost)
    code, _, err = edgeface("bench", *bundles, "--threads", "1", "--threads", "2", *QUICK)
    assert code == 2 and err.splitlines() == [
        "error: the connection was lost",
        "error: 3 of 4 models could not be measured; the figures of the others are printed",
    ]


def test_a_bundle_that_is_none_does_not_end_the_others(
    edgeface: Command, bundles: list[str], tmp_path: Path
) -> None:
    code, out, err = edgeface("bench", tmp_path, bundles[1], "--format", "json", *QUICK)
    assert code == 2 and [row["bundle"] for row in json.loads(out)] == [Path(bundles[1]).name]
    assert "is not a Bundle" in err and "1 of 2 models" in err


def test_names_are_those_of_ready_files(edgeface: Command) -> None:
    """A network's name stands for its ready files that run here; each file is measured once."""
    names = [file.name for file in zoo.ready_files("edgeface-s") if file.runs_here]
    code, out, err = edgeface("bench", "edgeface-s", names[0], "--format", "json", *QUICK)
    assert code == 0, err
    assert [row["bundle"] for row in json.loads(out)] == names == ["edgeface-s-tflite-int8-640x480"]


def test_the_place_of_the_records_is_checked_before_measuring(
    edgeface: Command, bundles: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    failed(edgeface("bench", bundles[1], "--save", tmp_path / "file" / "a.json"), "not a folder")
    failed(edgeface("bench", bundles[1], "--save", tmp_path), "it is a folder")
    manifest = Path(bundles[1]) / "manifest.json"
    failed(edgeface("bench", bundles[1], "--save", manifest), "is the input")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/nowhere",), ("no Bundle at /nowhere",)),
        (("damofd-0.5g",), ("no Bundle at damofd-0.5g", "edgeface export")),
        (("{bundle}", "--device", "telnet://x"), ("telnet://x", *ACCEPTED.split(", "))),
        (("{bundle}", "--reference", "other"), ("--reference 'other'", "known: edgeface-n-onnx")),
        (("{bundle}", "--rounds", "0"), ("--rounds must be from 1",)),
        (("{bundle}", "--format", "xml"), ("xml", "table, json")),
    ],
)
def test_mistakes_get_one_line(
    edgeface: Command, bundles: list[str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    failed(edgeface("bench", *(a.format(bundle=bundles[0]) for a in arguments)), *words)


@pytest.mark.parametrize(
    ("old_ms", "new_ms", "verdict", "code"),
    [
        (10, 10.1, "tie", 0),
        (10, 15, "slower", 1),
        (10, 5, "faster", 0),
    ],
)
def test_compare_says_what_changed(
    edgeface: Command,
    saved: Callable[..., str],
    old_ms: float,
    new_ms: float,
    verdict: str,
    code: int,
) -> None:
    old, new = saved("old.json", record(old_ms)), saved("new.json", record(new_ms))
    found, out, err = edgeface("bench", "compare", old, new, "--fail-slower", "--format", "json")
    (change,) = json.loads(out)["changes"]
    assert found == code and err == ""
    assert change["ratio"]["verdict"] == verdict and change["valid"] and change["notes"] == []
    assert change["ratio"]["low"] < new_ms / old_ms < change["ratio"]["high"]
    found, out, _ = edgeface("bench", "compare", old, new)
    assert found == 0 and verdict in out and f"{new_ms / old_ms:.2f} (" in out


def test_compare_tells_what_else_differs() -> None:
    other = record(
        10,
        environment(
            machine=environment().machine.__class__(
                "Another CPU", "x86_64", (), 8, None, None, "Linux 6.1", "3.11.7"
            )
        ),
        Protocol(rounds=30),
        files={"net.onnx": "1" * 64},
        runtime="onnxruntime 2.0",
    )
    (change,) = compare_records([record()], [other]).changes
    assert change.notes == (
        "another machine: Test CPU -> Another CPU",
        "another number of cores: 4 -> 8",
        "another governor: performance -> None",
        "another runtime: onnxruntime 1.0 -> onnxruntime 2.0",
        "another protocol, rounds: 50 -> 30",
        "the model files differ",
    )


def test_compare_gives_no_verdict_on_invalid_records(
    edgeface: Command, saved: Callable[..., str]
) -> None:
    bad = record(20, environment(calm(throttled=True)))
    code, out, _ = edgeface(
        "bench", "compare", saved("old.json", record(10)), saved("new.json", bad), "--fail-slower"
    )
    assert (
        code == 0
        and "unknown" in out
        and "new: throttled" in " ".join(out.split())
        and "slower" not in out
    )


def test_compare_pairs_by_bundle_device_threads_and_fast_mode(
    edgeface: Command, saved: Callable[..., str]
) -> None:
    old = saved("old.json", record(), record(threads=2), record(device="ssh://pi"))
    new = saved("new.json", record(fast=True), record(), record(bundle="b"))
    _, out, _ = edgeface("bench", "compare", old, new)
    assert (
        out.count(" tie") == 1
        and out.count("only in the old file") == 2
        and out.count("only in the new file") == 2
    )
    data = json.loads(edgeface("bench", "compare", old, new, "--format", "json")[1])
    assert len(data["changes"]) == 1 and [row["threads"] for row in data["only_old"]] == [2, 1]


def test_compare_with_sessions_of_other_lengths() -> None:
    long, short = record(10), record(15, samples=stages(steady(15, rounds=8, per_round=13)))
    (change,) = compare_records([long], [short]).changes
    assert change.verdict == "slower" and change.ratio.low < 1.5 < change.ratio.high


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ([], [record()], "share no model"),
        ([record(bundle="a")], [record(bundle="b")], "old: a; new: b"),
        ([record(bundle="a"), record(bundle="a")], [], "the old file has two records of a"),
    ],
)
def test_compare_refuses(old: list[Measurement], new: list[Measurement], words: str) -> None:
    with pytest.raises(DataError, match=words):
        compare_records(old, new)


def test_compare_needs_samples() -> None:
    bare = Measurement.from_json(json.loads(json.dumps(record().to_json(samples=False))))
    with pytest.raises(DataError, match=r"the new file has no samples: write it with .*--save"):
        compare_records([record()], [bare])


def test_compare_of_files_that_are_none(edgeface: Command, tmp_path: Path) -> None:
    failed(
        edgeface("bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")),
        "cannot read",
        "a.json",
    )


def test_device_check_of_this_machine(edgeface: Command) -> None:
    code, out, err = edgeface("device", "check", "local")
    assert (
        code == 0
        and err == ""
        and "Python 3." in out
        and "onnx: onnxruntime" in out
        and "disk space" in out
    )
    rows = json.loads(edgeface("device", "check", "local", "--format", "json")[1])
    assert all(set(row) == {"ok", "what", "fix"} for row in rows)


@pytest.mark.parametrize("url", ["", "pi", "http://x", "local://"])
def test_unknown_devices(edgeface: Command, url: str) -> None:
    words = ACCEPTED.split(", ") if url else ["an argument is empty"]
    failed(edgeface("device", "check", url), *words)
    with pytest.raises(DeviceError, match="accepted: local"):
        open_device(url)


def test_what_is_missing_comes_with_its_command() -> None:
    facts = {
        **examine(),
        "python": "3.9.2",
        "packages": {"numpy": None, "cv2": None},
        "governor": "ondemand",
        "system": "Linux",
        "machine": "aarch64",
        "runtimes": dict.fromkeys(examine()["runtimes"]),
        "free_bytes": 1 << 20,
    }
    found = findings(facts, "~/venv/bin/pip install")
    assert [f.fix for f in found if not f.ok] == [
        "install Python 3.10 or newer",
        "~/venv/bin/pip install numpy",
        "~/venv/bin/pip install opencv-python-headless",
        *(
            f"~/venv/bin/pip install {name}"
            for name in ("onnxruntime", "ai-edge-litert", "openvino", "ncnn")
        ),
        "free 200 MB of disk space",
    ]
    assert any("governor ondemand" in f.what and f.ok and f.fix for f in found)


def test_one_runtime_is_enough_and_no_command_is_given_that_cannot_work() -> None:
    facts = {
        **examine(),
        "system": "Linux",
        "machine": "armv7l",
        "governor": None,
        "free_bytes": None,
        "runtimes": {"ncnn": "ncnn 1.0"},
    }
    found = findings(facts)
    assert all(f.ok and f.fix is None for f in found)
    assert sum("no packages for Linux armv7l" in f.what for f in found) == 3


def test_two_bundles_of_one_name_are_told_apart(
    edgeface: Command, bundles: list[str], tmp_path: Path
) -> None:
    name = Path(bundles[0]).name
    for run in ("a", "b"):
        shutil.copytree(bundles[0], tmp_path / run / name)
    both = [str(tmp_path / run / name) for run in ("a", "b")]
    command = ("bench", *both, bundles[1], *QUICK)
    code, out, _ = edgeface(*command, "--reference", both[1], "--format", "json")
    records = json.loads(out)
    assert code == 0
    assert [r["bundle"] for r in records] == [f"a/{name}", f"b/{name}", Path(bundles[1]).name]
    assert {r["ratio"]["to"] for r in records} == {f"b/{name}"}
    failed(edgeface(*command, "--reference", name), "is several of the Bundles", f"a/{name}")
