"""Records: what makes one invalid, where that is printed, and which files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from by_hand import calm, environment, record, stages, steady

from edgeface.errors import DataError
from edgeface.latency.environment import Moment
from edgeface.latency.measurement import (
    Environment,
    Measurement,
    invalid_reasons,
    load_measurements,
    save_measurements,
)
from edgeface.latency.session import Protocol

UNKNOWN = Moment(None, None, None, None, None, None)


def reasons(
    where: Environment, rounds: list[list[float]] | None = None, threads: int = 1
) -> tuple[str, ...]:
    return invalid_reasons(Protocol(), where, stages(rounds or steady()), threads)


@pytest.mark.parametrize(
    "where",
    [
        environment(),
        environment(other_load=0.5),
        environment(other_load=None),
        environment(UNKNOWN, before=UNKNOWN, after=UNKNOWN, other_load=None),
        environment(calm(throttle_count=3), before=calm(throttle_count=3)),
        environment(calm(throttled=False)),
        environment(calm(frequency_mhz=1090.0)),
        environment(calm(temperature_c=95.0)),
        environment(calm(load=9.0)),
        environment(cores=()),
    ],
)
def test_valid(where: Environment) -> None:
    assert reasons(where) == ()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (environment(other_load=0.51), ("load too high", "0.51 cores")),
        (environment(calm(throttled=True)), ("throttled", "firmware")),
        (environment(after=calm(throttled=True)), ("throttled", "firmware")),
        (environment(calm(throttle_count=5)), ("throttled", "2 thermal throttle events")),
        (environment(after=calm(throttle_count=4)), ("throttled", "1 thermal throttle event")),
        (environment(calm(frequency_mhz=1111.0)), ("frequency moved", "1000 to 1111 MHz")),
        (environment(before=calm(frequency_mhz=2000.0)), ("frequency moved", "1000 to 2000")),
        (environment(UNKNOWN, after=calm(frequency_mhz=500.0)), ("frequency moved", "500 to 1000")),
    ],
)
def test_invalid_by_circumstance(where: Environment, said: tuple[str, str]) -> None:
    (reason,) = reasons(where)
    assert reason.startswith(said[0]) and said[1] in reason


def test_more_threads_than_cores() -> None:
    assert reasons(environment(cores=(2, 3)), threads=2) == ()
    assert reasons(environment(cores=(3,)), threads=2) == ("load too high: 2 threads share 1 core",)
    assert reasons(environment(cores=()), threads=5) == ("load too high: 5 threads share 4 cores",)


@pytest.mark.parametrize(
    "rounds", [steady(rounds=4, per_round=100), steady(rounds=9, per_round=11)]
)
def test_too_few_samples(rounds: list[list[float]]) -> None:
    (reason,) = reasons(environment(), rounds)
    assert reason.startswith("too few samples") and "at least 100 in 5" in reason


def test_interval_too_wide() -> None:
    moved = [[v * (1 + i % 2) for v in part] for i, part in enumerate(steady())]
    (reason,) = reasons(environment(), moved)
    assert reason.startswith("interval too wide") and reason.endswith("(at most 10%)")


def test_all_reasons_are_told() -> None:
    found = reasons(
        environment(calm(throttled=True, frequency_mhz=1.0), other_load=3.0), [[1.0], [9.0]]
    )
    assert [reason.partition(":")[0] for reason in found] == [
        "load too high",
        "throttled",
        "frequency moved",
        "too few samples",
        "interval too wide",
    ]


def test_an_invalid_figure_is_never_printed_without_its_reason() -> None:
    good, bad = record(), record(where=environment(other_load=2.0))
    for stage in ("network", "network_cpu", "preprocess", "postprocess", "end_to_end"):
        assert "invalid" not in good.figure(stage)
        assert bad.figure(stage).endswith(
            "(invalid: load too high: other processes used 2 cores (at most 0.5))"
        )


def test_json_round_trip(tmp_path: Path) -> None:
    records = [
        record(),
        record(ratio=None, peak_memory_bytes=None, where=environment(delegates={"a": 1})),
        record(where=environment(UNKNOWN, other_load=2.0)),
    ]
    save_measurements(tmp_path / "r.json", records)
    assert load_measurements(tmp_path / "r.json") == records
    short = json.loads(json.dumps(records[0].to_json(samples=False)))
    assert (
        "samples" not in short and Measurement.from_json(short).network_ms == records[0].network_ms
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"valid": False}, "exactly when"),
        ({"invalid_reasons": ["x"]}, "exactly when"),
        ({"format_version": 2}, "newer"),
        ({"threads": "1"}, "an integer"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"network_ms": {"min": 1}}, "median"),
        ({"load_ms": float("inf")}, "a number"),
        ({"samples": {"network": {"wall_ms": [[1.0]], "cpu_ms": [[1.0]]}}}, "preprocess"),
        ({"samples": {"network": {"wall_ms": [], "cpu_ms": []}}}, "must have rounds"),
        ({"samples": {"network": {"wall_ms": [[]], "cpu_ms": [[]]}}}, "must have rounds"),
        ({"samples": {"network": {"wall_ms": [[0.0]], "cpu_ms": [[0.0]]}}}, "above 0 ms"),
        ({"samples": {"network": {"wall_ms": [[1, -1]], "cpu_ms": [[0, 0]]}}}, "from 0 ms on"),
        ({"samples": {"network": {"wall_ms": [[1.0]], "cpu_ms": []}}}, "as CPU time"),
        ({"protocol": {"rounds": 0}}, "--rounds"),
        ({"environment": {}}, "machine"),
        ({"files": {"a": 1}}, "a string"),
        ({"ratio": 1.0}, "an object"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(change: dict[str, Any], word: str) -> None:
    with pytest.raises(DataError, match="the record") as error:
        Measurement.from_json(
            {**json.loads(json.dumps(record().to_json())), **change}, "the record"
        )
    assert word in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "--save"),
        ("{", "valid JSON"),
        ("{}", "a list"),
        ("[1]", "an object"),
        ("[{}]", "missing"),
        ("[" * 100_000, "valid JSON"),
        ("\xff", "valid JSON"),
    ],
)
def test_files_that_hold_no_records(tmp_path: Path, text: str | None, word: str) -> None:
    path = tmp_path / "r.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as error:
        load_measurements(path)
    assert word in str(error.value) and "\n" not in str(error.value)
