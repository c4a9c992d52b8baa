"""Searched networks in the package: the registry knows them, damaged lists are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeface.architecture import get_architecture
from edgeface.architecture.searched import PATH, read_searched
from edgeface.errors import ModelError


def test_every_searched_network_is_listed_with_its_record() -> None:
    found = read_searched()
    assert [s.architecture.name for s in found] == ["edgeface-0.5x", "edgeface-1x", "edgeface-2x"]
    for s in found:
        assert get_architecture(s.architecture.name) == s.architecture
        assert s.search.interval_ms[0] <= s.search.measured_ms <= s.search.interval_ms[1]
        assert s.search.measured_ms <= s.search.budget_ms
        # The name promises a multiple of YuNet_n's latency, to be exceeded by a tenth at most.
        assert s.search.of_yardstick <= 1.1 * float(
            s.architecture.name.removeprefix("edgeface-").removesuffix("x")
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read: install edgeface again"),
        ("{}", "is not a JSON list"),
        ('[{"architecture": 1}]', "field 'search' is missing"),
    ],
)
def test_damaged_list(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "searched.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        read_searched(tmp_path / "searched.json")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_record_survives_a_round_trip() -> None:
    assert len(json.loads(PATH.read_text())) == len(read_searched())
