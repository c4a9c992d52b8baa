"""Latency tables: broken files, averaging of sessions, and a real measurement."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from networks import with_part

from benchmarks.latency_model import table_path
from edgeface.architecture import Architecture
from edgeface.errors import DataError, DeviceError, OptionError
from edgeface.latency.devices import open_device
from edgeface.latency.devices.local import LocalDevice
from edgeface.latency.measurement import Stage
from edgeface.latency.protocol import Protocol
from edgeface.latency.statistics import Summary
from edgeface.predict.measure import _records, measure, polish
from edgeface.predict.table import LatencyTable, Record, Setting
from edgeface.search.space import SPACES

SETTING = Setting(target="onnx", width=160, height=128)
BROKEN = with_part(SPACES["xx"].sample(0), "backbone", "broken", structure="SuperConv(1)")
"""a network whose backbone cannot be built"""
QUICK = Protocol(
    rounds=5, per_round=20, warm_up_s=0.2, photo_width=160, photo_height=128, max_load=64
)


Spoil = Callable[[dict[str, Any]], object]
Measured = tuple[LatencyTable, list[Architecture], list[LatencyTable], list[tuple[str, str]], Path]


@pytest.fixture()
def table() -> LatencyTable:
    records = tuple(
        Record(SPACES["resnet"].sample(i), 0.5 + i, 0.49 + i, 0.52 + i, 2.0 + 4 * i)
        for i in range(3)
    )
    return LatencyTable(
        SETTING,
        "a processor",
        "onnxruntime 1",
        records,
        reference_ms=(4.4, 4.0, 5.0),
        device_s=12.5,
    )


def test_written_and_read_back(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    table.save(path)
    assert LatencyTable.load(path) == table
    json.loads(path.read_text())


def test_times_are_ratios_to_the_median_of_the_reference(table: LatencyTable) -> None:
    assert table.scale_ms == 4.4
    assert table.ms(table.records[1]) == pytest.approx(6.6)
    even = dataclasses.replace(table, reference_ms=(4.0, 5.0))
    assert even.scale_ms == 4.5
    assert table.drift == pytest.approx(0.25)


def test_joined_tables_keep_the_references_of_both(table: LatencyTable) -> None:
    """The groups of both tables give the scale that turns ratios into ms."""
    quiet = dataclasses.replace(table, records=(), reference_ms=(3.5,), device_s=2.25)
    for first, second, references in (
        (table, quiet, (*table.reference_ms, 3.5)),
        (quiet, table, (3.5, *table.reference_ms)),
    ):
        joined = first.joined(second)
        assert joined.reference_ms == references and joined.scale_ms == 4.2
        assert joined.records == table.records
        assert joined.device_s == pytest.approx(table.device_s + 2.25, abs=0.051)


def test_two_sessions_are_averaged_by_their_precision(table: LatencyTable) -> None:
    """Ratios 1 and e^0.1 of weights 4 to 1 have the mean e^0.02 and a narrower interval."""
    first = Record(SPACES["resnet"].sample(0), 1.0, math.exp(-0.1), math.exp(0.1), 1.0)
    second = Record(first.architecture, math.exp(0.1), math.exp(-0.1), math.exp(0.3), 1.0)
    both = first.with_session(second)
    narrow = 2 * (1 / 0.01 + 1 / 0.04) ** -0.5
    assert math.log(both.ratio) == pytest.approx(0.02)
    assert math.log(both.high / both.low) == pytest.approx(narrow)
    renamed = dataclasses.replace(first.architecture, name="other")
    grown = dataclasses.replace(table, records=(first,)).with_records(
        [dataclasses.replace(second, architecture=renamed)]
    )
    assert [r.ratio for r in grown.records] == [both.ratio]
    # Logarithms 0 and 1 in intervals of the same widths are 0.2 and 0.8 off the mean of 0.2. The
    # intervals are of 95 %, the Birge ratio takes standard deviations.
    apart = Record(first.architecture, math.e, math.exp(0.8), math.exp(1.2), 1.0)
    assert math.log((far := first.with_session(apart)).ratio) == pytest.approx(0.2)
    birge = 1.96 * math.sqrt((0.2 / 0.1) ** 2 + (0.8 / 0.2) ** 2)
    assert math.log(far.high / far.low) == pytest.approx(narrow * birge)


def test_a_session_that_is_wrong_is_not_averaged(table: LatencyTable) -> None:
    good = table.records[0]
    bad = dataclasses.replace(good, ratio=0.51, wrong=("load too high",))
    assert good.with_session(bad) == good
    assert bad.with_session(good) == good
    assert dataclasses.replace(table, records=(bad,)).find(good.architecture) is None


@pytest.mark.parametrize(
    ("width", "quoted", "taught"),
    [(0.099, True, True), (0.101, False, True), (0.299, False, True), (0.301, False, False)],
)
def test_wide_intervals_are_not_quoted_and_wider_ones_not_learned_from(
    table: LatencyTable, width: float, quoted: bool, taught: bool
) -> None:
    """At most a tenth of the ratio, and three tenths; never from a session that is wrong."""
    wide = dataclasses.replace(table.records[0], ratio=2.0, low=2.0 - width, high=2.0 + width)
    assert (wide.valid, wide.teaches) == (quoted, taught)
    wrong = dataclasses.replace(wide, wrong=("load too high",))
    assert not wrong.valid and not wrong.teaches


def test_polish_takes_disturbances_out() -> None:
    """With two of five columns slower by half, the polish is exact; means would be off."""
    own, slow = np.log([10.0, 12.0, 7.0, 30.0]), np.log([1.0, 1.5, 1.0, 1.5, 1.0])
    rows, columns = polish(own[:, None] + slow)
    assert np.exp(rows) == pytest.approx([10.0, 12.0, 7.0, 30.0])
    assert np.exp(columns) == pytest.approx([1.0, 1.5, 1.0, 1.5, 1.0])


def test_polish_goes_on_until_no_median_is_left() -> None:
    """Of 12 networks and 30 rounds of noise, what is left has medians of 0 along both axes."""
    for seed in range(5):
        values = np.random.default_rng(seed).normal(0, 1, (12, 30))
        rows, columns = polish(values)
        rest = values - rows[:, None] - columns
        assert max(np.abs(np.median(rest, axis)).max() for axis in (0, 1)) < 0.01


TRUTH = (4.0, 6.0, 2.0, 3.0, 9.0, 5.0)
"""latency of each network, ms"""


def made_up_session(seed: int, rounds: int = 30) -> list[Record]:
    """Records of a session whose rounds slow all networks by up to a half, with 3 % of noise.

    The second sample of a round is slower, by another factor for each network; only the faster one
    counts.
    """
    random = np.random.default_rng(seed)
    slow = random.uniform(1.0, 1.5, rounds)
    measured: dict[int, Any] = {}
    for index, ms in enumerate(TRUTH):
        wall = tuple(
            (float(v), float(v) * (1.2 + 0.1 * index))
            for v in ms * slow * np.exp(0.03 * random.standard_normal(rounds))
        )
        measured[index] = SimpleNamespace(
            samples={"network": Stage(wall, wall)},
            invalid_reasons=("too few samples",),
            network_ms=Summary(1.0, 1.0, 1.0, 1.0),
        )
    networks = [SPACES["resnet"].sample(i) for i in range(len(TRUTH))]
    found = _records(networks, measured)
    assert [r.architecture for r in found] == networks[1:]
    return found


def test_ratios_of_made_up_sessions() -> None:
    """Ratios are within 5 %, although rounds are slowed by up to a half.

    At least 85 % of the 200 intervals of 95 % contain the truth.
    """
    inside: list[bool] = []
    truth = [ms / TRUTH[0] for ms in TRUTH[1:]]
    for seed in range(40):
        found = made_up_session(seed)
        assert all(r.valid for r in found)
        assert [r.ratio for r in found] == pytest.approx(truth, rel=0.05)
        inside += [r.low <= ratio <= r.high for r, ratio in zip(found, truth, strict=True)]
    assert np.mean(inside) >= 0.85


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.update(format_version=2), "format_version 2 is not one"),
        (lambda d: d.pop("cpu"), "field 'cpu' is missing"),
        (lambda d: d.update(extra=1), "unknown field 'extra'"),
        (lambda d: d["setting"].update(target="coreml"), "unknown target 'coreml'"),
        (lambda d: d["setting"].update(width=100), "multiples of 32"),
        (lambda d: d.update(reference_ms=[]), "records and no reference_ms"),
        (lambda d: d.update(reference_ms=[4.0, 0.0]), "not all above 0 ms"),
        (lambda d: d["records"][0].update(ratio=-1.0), "does not lie between its bounds"),
        (lambda d: d["records"][0].update(low=0.0), "is not positive"),
        (lambda d: d["records"][0].update(median_ms="2"), "expected a number"),
        (lambda d: d["records"][0]["architecture"].pop("neck"), "field 'neck' is missing"),
    ],
)
def test_a_spoilt_table_is_one_line(
    table: LatencyTable, tmp_path: Path, spoil: Spoil, message: str
) -> None:
    path = tmp_path / "table.json"
    table.save(path)
    data = json.loads(path.read_text())
    spoil(data)
    path.write_text(json.dumps(data))
    with pytest.raises((DataError, OptionError), match=message) as caught:
        LatencyTable.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"[" * 100_000])
def test_not_a_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"; accepted: a table that edgeface search or python -m .*--measure wrote;"
    ):
        LatencyTable.load(path)
    with pytest.raises(DataError, match="cannot read"):
        LatencyTable.load(tmp_path / "none.json")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Three networks, really converted and measured; the third one's backbone cannot be built."""
    pytest.importorskip("onnx", reason="the export extra is not installed")
    folder = tmp_path_factory.mktemp("candidates")
    networks = [SPACES["resnet"].sample(0), SPACES["idw"].sample(1)]
    saved: list[LatencyTable] = []
    dropped: list[tuple[str, str]] = []
    with open_device("local") as device:
        found = measure(
            SETTING,
            [*networks, BROKEN],
            device,
            folder,
            grown=saved.append,
            dropped=lambda a, why: dropped.append((a.name, why)),
            protocol=QUICK,
        )
    return found, networks, saved, dropped, folder


def test_real_measurement(measured: Measured) -> None:
    found, networks, saved, dropped, _ = measured
    assert [r.architecture for r in found.records] == networks
    assert all(r.ratio > 0 and r.median_ms > 0 for r in found.records)
    assert len(found.reference_ms) == 1
    assert found.drift == 0
    assert found.runtime.startswith("onnxruntime")
    assert found.device_s > 0
    assert saved == [found]
    assert [name for name, _ in dropped] == ["broken"]
    assert "malformed" in dropped[0][1]


def test_what_is_known_is_not_measured_again(measured: Measured) -> None:
    found, networks, _, _, folder = measured
    valid = dataclasses.replace(
        found,
        records=tuple(
            dataclasses.replace(r, low=r.ratio, high=r.ratio, wrong=()) for r in found.records
        ),
    )

    class Gone(LocalDevice):
        def measure(self, *a: object, **k: object) -> NoReturn:
            raise AssertionError("measured again")

    assert measure(SETTING, networks, Gone(), folder, valid) is valid


def test_another_machine_is_refused(measured: Measured) -> None:
    found, _, _, _, folder = measured
    foreign = dataclasses.replace(found, cpu="another processor", records=())
    with open_device("local") as device, pytest.raises(DataError, match="begin another table"):
        measure(SETTING, [SPACES["resnet"].sample(0)], device, folder, foreign, protocol=QUICK)


def test_the_table_of_another_device_is_refused_before_anything_is_made(
    table: LatencyTable, tmp_path: Path
) -> None:
    other = dataclasses.replace(table.setting, device="ssh://pi")
    with open_device("local") as device, pytest.raises(DataError, match=r"is of .*, this is .*pi"):
        measure(other, [r.architecture for r in table.records], device, tmp_path, table)
    assert table_path(tmp_path, other) != table_path(tmp_path, table.setting)
    assert table_path(tmp_path, other).parent == tmp_path


def test_what_cannot_be_made_is_an_error_when_nobody_listens(tmp_path: Path) -> None:
    with open_device("local") as device, pytest.raises(DeviceError, match=r"broken: .*malformed"):
        measure(SETTING, [BROKEN], device, tmp_path, protocol=QUICK)
