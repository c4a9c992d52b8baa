"""Whatever a device answers gives a result or a one-line error.

Its facts, files and records are checked as any foreign JSON is.
"""

from __future__ import annotations

import copy
import json
import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from by_hand import record
from plain_device import PlainDevice

from edgeface.bundle import Bundle
from edgeface.cli.output import LONGEST, printable
from edgeface.errors import DeviceError, EdgefaceError
from edgeface.latency.devices import staging
from edgeface.latency.examine import examine
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.latency.worker_process import WorkerProcess

STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    0.5,
    1e308,
    "",
    "\x1b[2J[/b]\n",
    "9" * 10_000,
    [],
    [[]],
    {},
    {"a": 1},
)
URL = "ssh://stranger"
HERE = {
    "stage": "here",
    "root": "/home/pi/.cache/edgeface",
    "missing": [0],
    "free_bytes": 10**9,
    "executable": "/usr/bin/python3",
    "virtual": False,
    "ensurepip": True,
}
END = {"stage": "end"}


class Stranger(PlainDevice):
    """A device that answers each command with the next of ``talks``."""

    def __init__(self, *talks: Any, journals: Path | None = None) -> None:
        super().__init__(URL, journals=journals)
        self.talks = list(talks)

    def arguments(self, command: str) -> list[str]:
        lines = "\n".join(map(json.dumps, self.talks.pop(0) if self.talks else []))
        return [sys.executable, "-c", f"print({lines!r})"]


class Told(Stranger):
    """A Stranger without a process: each of ``talks`` has the lines of an agent."""

    def _stage(self, files: Any, run: Any = None) -> staging.Staged:
        return staging.Staged("/root", 1 << 40, "/usr/bin/python3", False, True, ())

    def _agent(self, *_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        yield from self.talks.pop(0)


def mutations(data: Any) -> Iterator[Any]:
    """Copies of ``data`` with one value at any depth removed or replaced, then STRANGE itself."""
    for path in places(data):
        for value in (*STRANGE, KeyError):
            found = copy.deepcopy(data)
            owner = found
            for key in path[:-1]:
                owner = owner[key]
            if value is KeyError:
                del owner[path[-1]]
            else:
                owner[path[-1]] = value
            yield found
    yield from STRANGE


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in ``data``, but only of the first item of a list."""
    keys = data if isinstance(data, dict) else range(min(1, len(data)))
    for key in keys:
        yield (*path, key)
        if isinstance(data[key], (dict, list)):
            yield from places(data[key], (*path, key))


def one_line(error: EdgefaceError) -> None:
    assert len(printable(error)) <= LONGEST and "\n" not in printable(error)


def of(function: Callable[[], list[Any]]) -> list[Any]:
    """Return what ``function`` returns, or [] if it raises an error of one line."""
    try:
        return function()
    except EdgefaceError as error:
        one_line(error)
        return []


@pytest.fixture(scope="module")
def bundle(exported: Callable[..., Bundle]) -> Path:
    """Folder of a Bundle, of which the tests read the manifest only."""
    return exported("onnx").path


def test_mutations_reach_everything() -> None:
    found = list(mutations({"a": [1, 2], "b": {"c": 3}}))
    assert {"a": [None, 2], "b": {"c": 3}} in found and {"a": [1, 2], "b": {}} in found
    assert len(found) == 4 * (len(STRANGE) + 1) + len(STRANGE)


def test_facts() -> None:
    good = Told([{"check": examine()}]).check()
    assert any("Python" in finding.what for finding in good)
    devices = [Told([{"check": facts}]) for facts in mutations(examine())]
    found = [finding for device in devices for finding in of(device.check)]
    assert len(found) > 100, "a strange name of a processor is a name"
    assert all(printable(finding.what) and isinstance(finding.ok, bool) for finding in found)


@pytest.mark.parametrize("version", ["3.11.7", "3.13.0rc1", "3.12.0+", "3.14.0a1+"])
def test_any_build_of_python(version: str) -> None:
    """Python adds the plus where it was built from sources between two releases."""
    (python, *_) = Told([{"check": examine() | {"python": version}}]).check()
    assert python.ok and python.what.startswith(f"Python {version} on ")


def test_what_it_has() -> None:
    """Answers come from a process, as from a device's shell; strange ones give one line."""
    assert Stranger([HERE, END], [{"check": examine()}]).check()
    answers = list(mutations(HERE))
    for here in [*answers[:: len(answers) // 12], {**HERE, "missing": [0, 0]}]:
        with pytest.raises(DeviceError) as caught:
            Stranger([here, END], [{"check": {}}]).check()
        one_line(caught.value)


def measured(bundle: Path, tmp_path: Path, *lines: Any) -> list[Measurement]:
    device = Told([{"check": examine()}], lines, journals=tmp_path / "journals")
    return device.measure([Job(str(bundle))], Protocol())


def wanted(bundle: Path) -> dict[str, Any]:
    """JSON of a valid record of the Bundle, as the device should send it."""
    manifest = Bundle.open(bundle).manifest
    made = record(
        bundle=bundle.name,
        files=dict(manifest.files),
        model=manifest.model,
        target=manifest.target,
        precision=manifest.precision,
        device=URL,
    )
    found: dict[str, Any] = json.loads(json.dumps(made.to_json()))
    return found


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_records(step: int, bundle: Path, tmp_path: Path) -> None:
    good = wanted(bundle)
    assert len(measured(bundle, tmp_path, {"measurement": good})) == 1
    for data in islice(mutations(good), 0, None, step):
        for found in of(partial(measured, bundle, tmp_path, {"measurement": data})):
            assert (found.bundle, found.device) == (bundle.name, URL)
            assert found.figure() and json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("kind", ["progress", "failed"])
def test_other_lines(kind: str, bundle: Path, tmp_path: Path) -> None:
    lines = {
        "progress": {"what": "measuring", "done": 1, "total": 2},
        "failed": {"job": 0, "message": "broken"},
    }
    for line in mutations(lines[kind]):
        with pytest.raises(EdgefaceError) as caught:
            measured(bundle, tmp_path, {kind: line})
        one_line(caught.value)


FLOODS = {
    "an endless line": "while True: sys.stdout.write('x' * 65536)",
    "lines for ever": "while True: print('Welcome!')",
    "objects that mean nothing": "while True: print('{}')",
    "a slow greeting": "while True: print('Welcome!', flush=True); time.sleep(.1)",
    "endless complaints": "while True: sys.stderr.write('x' * 65536)",
}


class Flood(Stranger):
    """A device that runs ``program``, whose output never ends."""

    program = ""

    def arguments(self, command: str) -> list[str]:
        return [sys.executable, "-c", f"import sys, time\n{self.program}"]


@pytest.mark.parametrize("kind", FLOODS)
def test_a_device_that_does_not_end(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless answer gives one line, within the time limit and with little memory."""
    monkeypatch.setattr("edgeface.latency.devices.shell.ANSWER_S", 2.0)
    monkeypatch.setattr("edgeface.latency.devices.shell.STAGE_LIMIT_S", 3.0)
    device = Flood(URL)
    device.program = FLOODS[kind]
    with pytest.raises(DeviceError, match=r"does not end|nothing was heard for too long") as caught:
        device.check()
    one_line(caught.value)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < 4 << 30, "nothing of it is kept"


@pytest.mark.parametrize("text", ["{}\n", "[1]\n", '{"ok": {}}\n', "x" * 4096])
def test_a_worker_that_does_not_end(text: str) -> None:
    talk = f"import sys\nwhile True: sys.stdout.write({text!r})"
    python = (sys.executable, "-c", talk, "--")
    with WorkerProcess("it", 20.0, python) as worker, pytest.raises(DeviceError) as caught:
        for _ in range(100):
            worker.ask("nothing")
    one_line(caught.value)


def test_a_device_that_says_nothing_has_measured_nothing(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="sent no record of it"):
        measured(bundle, tmp_path)
    with pytest.raises(DeviceError, match="sent no record of it"):
        measured(bundle, tmp_path, {"measurement": {**wanted(bundle), "threads": 7}})
    with pytest.raises(EdgefaceError, match="record is of 'ssh://other', not of ssh://stranger"):
        measured(bundle, tmp_path, {"measurement": {**wanted(bundle), "device": "ssh://other"}})
