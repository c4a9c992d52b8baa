"""Facts about a system, read from files made for the test and from the real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgeface.latency import cores, environment
from edgeface.latency.environment import Machine, Moment
from edgeface.schema import from_fields


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that both modules read in place of ``/sys``."""
    monkeypatch.setattr(environment, "CPU", tmp_path)
    monkeypatch.setattr(cores, "CPU", tmp_path)
    monkeypatch.setattr(environment, "THERMAL", tmp_path / "thermal")
    monkeypatch.setattr(environment, "PLATFORM", tmp_path / "platform")
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


def test_the_real_machine() -> None:
    machine, moment = Machine.read(), Moment.read()
    assert machine.cpu and machine.architecture and machine.cores >= 1
    assert from_fields(Machine, json.loads(json.dumps(machine.to_json())), "machine") == machine
    assert from_fields(Moment, json.loads(json.dumps(moment.to_json())), "moment") == moment


def test_busy_time_never_falls() -> None:
    first, second = Moment.read().busy_s, Moment.read().busy_s
    if first is None or second is None:
        pytest.skip("this system does not show what its processes used")
    assert second >= first


def test_what_is_not_shown_is_none(system: Path) -> None:
    moment = Moment.read()
    assert (moment.temperature_c, moment.throttled, moment.throttle_count) == (None, None, None)
    assert Machine.read().governor is None


def test_windows_has_no_load_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    assert Moment.read().load is None


def test_frequency_is_that_of_the_cores_asked_about(system: Path) -> None:
    write(system, {f"cpu{i}/cpufreq/scaling_cur_freq": str(1_000_000 * (i + 1)) for i in range(4)})
    assert Moment.read().frequency_mhz == 2500
    assert Moment.read((1,)).frequency_mhz == 2000
    assert Moment.read((0, 3)).frequency_mhz == 2500


def test_hottest_zone(system: Path) -> None:
    write(
        system,
        {
            "thermal/thermal_zone0/temp": "41000",
            "thermal/thermal_zone1/temp": "62500",
            "thermal/thermal_zone2/temp": "nonsense",
        },
    )
    assert Moment.read().temperature_c == 62.5


def test_x86_throttle_events_add_up(system: Path) -> None:
    write(system, {f"cpu{i}/thermal_throttle/core_throttle_count": str(i) for i in range(4)})
    assert (Moment.read().throttled, Moment.read().throttle_count) == (None, 6)


@pytest.mark.parametrize(
    ("bits", "now", "count"),
    [
        ("0", False, 0),
        ("50000", False, 1),
        ("50005", True, 1),
        ("80008", True, 1),
        ("e0000", False, 3),
        ("10001", False, 0),  # under-voltage alone slows nothing
    ],
)
@pytest.mark.parametrize("soc", ["soc", "soc@107c000000"])  # up to the Pi 4, and the Pi 5
def test_raspberry_firmware(system: Path, soc: str, bits: str, now: bool, count: int) -> None:
    write(system, {f"platform/{soc}/{soc}:firmware/get_throttled": bits})
    assert (Moment.read().throttled, Moment.read().throttle_count) == (now, count)


def test_cores_are_fast_physical_and_high(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "allowed", lambda: (0, 1, 2, 3))
    assert cores.pick(1) == (3,) and cores.pick(2) == (2, 3) and cores.pick(9) == (0, 1, 2, 3)
    write(
        system, {f"cpu{i}/topology/thread_siblings_list": f"{i % 2},{i % 2 + 2}" for i in range(4)}
    )
    assert cores.pick(2) == (2, 3)  # 0 and 2 share a physical core, as do 1 and 3
    write(
        system,
        {
            f"cpu{i}/topology/thread_siblings_list": f"{i // 2 * 2}-{i // 2 * 2 + 1}"
            for i in range(4)
        },
    )
    assert cores.pick(2) == (1, 3)
    write(
        system,
        {f"cpu{i}/cpufreq/cpuinfo_max_freq": "2400000" if i < 2 else "1800000" for i in range(4)},
    )
    assert cores.pick(1) == (1,) and cores.pick(2) == (0, 1)


def test_no_more_cores_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "allowed", lambda: ())
    assert cores.pick(2) == ()


@pytest.mark.parametrize(
    ("first_s", "last_s", "own_s", "load"),
    [
        (100, 130, 20, 1.0),
        (100, 120, 20, 0.0),
        (100, 119, 20, 0.0),
        (100, 100, 20, None),
        (None, 130, 20, None),
        (100, None, 20, None),
    ],
)
def test_other_load(
    first_s: float | None, last_s: float | None, own_s: float, load: float | None
) -> None:
    first, last = (Moment(None, None, None, None, None, busy_s) for busy_s in (first_s, last_s))
    assert environment.other_load(first, last, own_s, 10.0) == load
