"""Latency tables: files that a stranger wrote, and a real measurement."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgeface.errors import DataError, DeviceError, OptionError
from edgeface.latency.devices import open_device
from edgeface.latency.jobs import Protocol
from edgeface.search.latency_table import LatencyTable, Record, Setting, measure
from edgeface.search.space import SPACES

SETTING = Setting(target="onnx", width=160, height=128)
QUICK = Protocol(rounds=5, per_round=20, warm_up_s=0.2, photo_width=160, photo_height=128, max_load=64)


@pytest.fixture()
def table():
    records = tuple(Record(SPACES["resnet"].sample(i), 2.0 + i, (2.0 + i) / 4, 0.1, 9.0) for i in range(3))
    return LatencyTable(SETTING, "a processor", "onnxruntime 1", records, device_s=12.5)


def test_written_and_read_back(table, tmp_path):
    path = tmp_path / "table.json"
    table.save(path)
    assert LatencyTable.load(path) == table
    json.loads(path.read_text())


def test_times_are_ratios_to_the_reference(table):
    """Group 2 ran while the machine was a quarter slower: its reference took 5 ms, not 4."""
    slow = Record(SPACES["resnet"].sample(9), 10.0, 2.0, 1.9, 2.1)
    grown = table.with_records([slow])
    assert grown.reference_ms == 4.0
    assert grown.ms(slow) == 8.0


def test_a_record_replaces_that_of_an_equal_network(table):
    renamed = dataclasses.replace(table.records[0].architecture, name="other")
    grown = table.with_records([Record(renamed, 1.0, 0.5, 0.4, 0.6)])
    assert len(grown.records) == 3
    assert grown.find(table.records[0].architecture).ms == 1.0


def test_invalid_records_are_not_found(table):
    bad = dataclasses.replace(table.records[0], invalid_reasons=("load too high",))
    assert table.with_records([bad]).find(bad.architecture) is None


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda d: d.update(format_version=2), "format_version 2 is not one"),
    (lambda d: d.pop("cpu"), "field 'cpu' is missing"),
    (lambda d: d.update(extra=1), "unknown field 'extra'"),
    (lambda d: d["setting"].update(target="coreml"), "unknown target 'coreml'"),
    (lambda d: d["setting"].update(width=100), "multiples of 32"),
    (lambda d: d["records"][0].update(ratio=-1.0), "no positive time inside its interval"),
    (lambda d: d["records"][0].update(ms="2"), "expected a number"),
    (lambda d: d["records"][0]["architecture"].pop("neck"), "field 'neck' is missing"),
])
def test_a_spoilt_table_is_one_line(table, tmp_path, spoil, message):
    path = tmp_path / "table.json"
    table.save(path)
    data = json.loads(path.read_text())
    spoil(data)
    path.write_text(json.dumps(data))
    with pytest.raises((DataError, OptionError), match=message) as caught:
        LatencyTable.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"[" * 100_000])
def test_not_a_table(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"measure it with: python -m benchmarks\.latency_model --measure"):
        LatencyTable.load(path)
    with pytest.raises(DataError, match="cannot read"):
        LatencyTable.load(tmp_path / "none.json")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Three networks through real conversion and the real protocol, the third one of no backbone that exists."""
    pytest.importorskip("onnx", reason="the export extra is not installed")
    folder = tmp_path_factory.mktemp("candidates")
    networks = [SPACES["resnet"].sample(0), SPACES["idw"].sample(1)]
    broken = dataclasses.replace(SPACES["xx"].sample(0), name="broken")
    broken = dataclasses.replace(broken, backbone=dataclasses.replace(broken.backbone, structure="SuperConv(1)"))
    saved, dropped = [], []
    with open_device("local") as device:
        found = measure(SETTING, [*networks, broken], device, folder, grown=saved.append,
                        dropped=lambda a, why: dropped.append((a.name, why)), protocol=QUICK)
    return found, networks, saved, dropped, folder


def test_real_measurement(measured):
    found, networks, saved, dropped, _ = measured
    assert [r.architecture for r in found.records] == networks
    assert all(0 < r.ratio_low <= r.ratio <= r.ratio_high and r.ms > 0 for r in found.records)
    assert found.runtime.startswith("onnxruntime")
    assert found.device_s > 0
    assert saved == [found]
    assert [name for name, _ in dropped] == ["broken"]
    assert "malformed" in dropped[0][1]


def test_what_is_known_is_not_measured_again(measured):
    found, networks, _, _, folder = measured
    valid = dataclasses.replace(found, records=tuple(dataclasses.replace(r, invalid_reasons=()) for r in found.records))

    class Gone:
        def measure(self, *a, **k):
            raise AssertionError("measured again")

    assert measure(SETTING, networks, Gone(), folder, valid) is valid


def test_another_machine_is_refused(measured):
    found, _, _, _, folder = measured
    foreign = dataclasses.replace(found, cpu="another processor", records=())
    with open_device("local") as device, pytest.raises(DataError, match="begin another table"):
        measure(SETTING, [SPACES["resnet"].sample(0)], device, folder, foreign, protocol=QUICK)


def test_what_cannot_be_made_is_an_error_when_nobody_listens(tmp_path):
    broken = SPACES["xx"].sample(0)
    broken = dataclasses.replace(broken, backbone=dataclasses.replace(broken.backbone, structure="SuperConv(1)"))
    with open_device("local") as device, pytest.raises(DeviceError, match=r"xx-0: .*malformed"):
        measure(SETTING, [broken], device, tmp_path, protocol=QUICK)
