"""Speed and accuracy in the quantisation report."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from by_hand import calm, environment, record, steady

from edgeface.latency.measurement import Measurement, relative
from edgeface.latency.statistics import Ratio, ratio
from quantize.report import drop_points, speed_sentence


@pytest.mark.parametrize(
    ("int8_ms", "machine", "sentence"),
    [
        (
            9.3,
            "x86_64",
            "INT8 is slower than float on this CPU (9.3 against 7.0 ms, ratio 1.33, 1.33 to 1.33):"
            " it can pay on ARM, so measure there",
        ),
        (
            7.3,
            "AMD64",
            "INT8 and float tie on this CPU (7.3 against 7.0 ms, ratio 1.04, 1.04 to 1.04): it can"
            " pay on ARM, so measure there",
        ),
        (
            6.4,
            "aarch64",
            "INT8 and float tie on this CPU (6.4 against 7.0 ms, ratio 0.91, 0.91 to 0.91): use the"
            " float file here",
        ),
        (
            3.5,
            "x86_64",
            "INT8 is 2.00 times as fast as float on this CPU (3.5 against 7.0 ms, ratio 0.50, 0.50"
            " to 0.50)",
        ),
    ],
)
def test_one_plain_sentence(int8_ms: float, machine: str, sentence: str) -> None:
    assert speed_sentence(record(7.0), compared(int8_ms), machine) == sentence


def test_the_sentence_follows_the_interval_and_says_what_may_not_be_quoted() -> None:
    """A ratio of .89 is a tie if it may as well be .97: one rule for all ratios of latencies."""
    wide = relative(Ratio(0.89, 0.8, 0.97), "float", 1)
    int8 = dataclasses.replace(record(6.2), ratio=wide)
    assert "INT8 and float tie" in (text := speed_sentence(record(7.0), int8))
    assert "0.80 to 0.97)" in text and "quoted" not in text
    throttled = record(7.0, environment(calm(throttled=True)))
    assert not throttled.valid
    assert "0.80 to 0.97; not to be quoted)" in speed_sentence(throttled, int8)


def compared(int8_ms: float) -> Measurement:
    """A record whose ratio is to one of 7 ms in the same rounds."""
    int8, exact = ([np.array(part) for part in steady(ms)] for ms in (int8_ms, 7.0))
    return dataclasses.replace(record(int8_ms), ratio=relative(ratio(int8, exact), "float", 1))


def test_drop_points() -> None:
    assert drop_points(
        {"float": {"easy": 0.5, "hard": None}, "int8": {"easy": 0.51, "hard": None}}
    ) == {"easy": -1.0, "hard": None}
    assert drop_points({"float": None, "int8": None}) is None
