"""Speed and accuracy in the quantisation report."""

from __future__ import annotations

import pytest

from quantize.report import drop_points, speed_sentence


@pytest.mark.parametrize(
    ("exact", "int8", "machine", "sentence"),
    [
        (
            7.0,
            7.3,
            "x86_64",
            (
                "INT8 is not faster than float on this CPU (7.3 against 7.0 ms): it can pay on ARM,"
                " so measure there"
            ),
        ),
        (
            7.0,
            7.0,
            "AMD64",
            (
                "INT8 is not faster than float on this CPU (7.0 against 7.0 ms): it can pay on ARM,"
                " so measure there"
            ),
        ),
        (
            7.0,
            7.3,
            "aarch64",
            (
                "INT8 is not faster than float on this CPU (7.3 against 7.0 ms): use the float file"
                " here"
            ),
        ),
        (
            7.0,
            6.6,
            "x86_64",
            (
                "INT8 is hardly faster than float on this CPU (6.6 against 7.0 ms): it can pay on"
                " ARM, so measure there"
            ),
        ),
        (
            8.0,
            4.0,
            "x86_64",
            "INT8 is 2.00 times as fast as float on this CPU (4.0 against 8.0 ms)",
        ),
    ],
)
def test_one_plain_sentence(exact: float, int8: float, machine: str, sentence: str) -> None:
    assert speed_sentence(exact, int8, machine) == sentence


def test_drop_points() -> None:
    assert drop_points(
        {"float": {"easy": 0.5, "hard": None}, "int8": {"easy": 0.51, "hard": None}}
    ) == {"easy": -1.0, "hard": None}
    assert drop_points({"float": None, "int8": None}) is None
