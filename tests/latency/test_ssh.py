"""Measuring behind a real OpenSSH server on loopback, and failures on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from by_hand import wait_for
from loopback import QUICK, Loopback, Steps

from edgeface.errors import DeviceError
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job
from edgeface.latency.session import measure


def test_measures_as_local_does(loopback: Loopback, jobs: list[Job]) -> None:
    device, steps, finished = loopback.device(), Steps(), list[Measurement]()
    found = device.measure(jobs, QUICK, 0, steps, finished.append)
    assert found == finished
    for here, there in zip(measure(jobs, QUICK, 0), found, strict=True):
        ours, theirs = here.to_json(), there.to_json()
        assert theirs["device"] == loopback.url
        assert list(ours) == list(theirs)
        same = (
            "bundle",
            "files",
            "model",
            "target",
            "precision",
            "runtime",
            "threads",
            "fast",
            "width",
            "height",
            "faces",
            "protocol",
        )
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
        assert ours["environment"]["runtimes"] == theirs["environment"]["runtimes"]
        assert ours["ratio"]["to"] == theirs["ratio"]["to"] == jobs[0].name
        for stage, samples in theirs["samples"].items():
            assert [len(part) for part in samples["wall_ms"]] == [2, 2], stage
    assert len(steps.sent()) == 6  # model files: onnx 1, ncnn 2; two manifests; the agent
    assert not list((loopback.folder / "journals").glob("*"))


def test_from_the_command_line(loopback: Loopback, jobs: list[Job]) -> None:
    url = f"{loopback.url}?python={sys.executable}&config={loopback.config}"
    environment = {**os.environ, "XDG_CACHE_HOME": str(loopback.folder)}

    def edgeface(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "edgeface", *words, "--format", "json"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert edgeface("device", "check", url)[0]["what"].startswith("Python 3.")
    (row,) = edgeface(
        "bench",
        jobs[0].bundle,
        "--device",
        url,
        *shlex.split("--rounds 2 --per-round 2 --warm-up-s 0"),
    )
    assert (
        row["device"] == loopback.url
        and row["ratio"]["verdict"] == "reference"
        and not row["valid"]
    )


def test_a_second_run_sends_nothing_and_a_damaged_file_is_sent_again(
    loopback: Loopback, jobs: list[Job]
) -> None:
    device = loopback.device()
    device.measure(jobs, QUICK)
    steps = Steps()
    device.measure(jobs, QUICK, progress=steps)
    assert steps.sent() == []
    assert not list(loopback.cache.rglob("*.part"))
    damaged = next(loopback.cache.rglob("*.onnx"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    device.measure(jobs, QUICK, progress=steps)
    assert steps.sent() == [str(damaged.relative_to(loopback.cache))]


def test_no_name_reaches_a_shell(loopback: Loopback, jobs: list[Job], tmp_path: Path) -> None:
    name = "it's; touch gone $(touch gone) `touch gone` & é"
    shutil.copytree(jobs[0].bundle, tmp_path / name)
    (record,) = loopback.device().measure([Job(str(tmp_path / name))], QUICK)
    assert record.bundle == name
    assert not (loopback.home / "gone").exists()


def test_resumes_after_a_cut_connection(loopback: Loopback, jobs: list[Job]) -> None:
    four = [Job(job.bundle, threads) for job in jobs for threads in (1, 2)]
    protocol = dataclasses.replace(QUICK, together=2)
    device, first = loopback.device(), list[Measurement]()

    def cut_in_the_middle(what: str, *_: object) -> None:
        if len(first) == 2 and loopback.running():
            loopback.cut()

    with pytest.raises(
        DeviceError, match=r"connection was lost.*2 of 4 models were measured and are kept"
    ) as caught:
        device.measure(four, protocol, progress=cut_in_the_middle, finished=first.append)
    assert "\n" not in str(caught.value)
    wait_for(lambda: not loopback.running())
    steps, second = Steps(), list[Measurement]()
    found = device.measure(four, protocol, progress=steps, finished=second.append)
    assert found == second and found[:2] == first
    assert steps.seen.count("loading") == 2 and steps.sent() == []
    assert [(r.bundle, r.threads) for r in found] == [(job.name, job.threads) for job in four]
    assert not list((loopback.folder / "journals").glob("*"))


def test_a_reference_is_measured_again_beside_what_was_missing(
    loopback: Loopback, jobs: list[Job]
) -> None:
    three = [*jobs, Job(jobs[0].bundle, 2)]
    protocol = dataclasses.replace(QUICK, together=2)
    first = list[Measurement]()

    def cut(record: Measurement) -> None:
        first.append(record)
        if len(first) == 2:
            loopback.cut()

    with pytest.raises(DeviceError, match="2 of 3"):
        loopback.device().measure(three, protocol, 1, finished=cut)
    steps = Steps()
    found = loopback.device().measure(three, protocol, 1, steps)
    assert steps.seen.count("loading") == 2
    assert sum(record == kept for record in found for kept in first) == 2
    assert all(record.ratio and record.ratio.to == jobs[1].name for record in found)


def test_what_stops_the_caller_stops_the_device(loopback: Loopback, jobs: list[Job]) -> None:
    def stop(what: str, *_: object) -> None:
        if what == "measuring":
            assert loopback.running()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loopback.device().measure(jobs, QUICK, progress=stop)
    wait_for(lambda: not loopback.running())


def test_a_caller_that_was_killed_leaves_nothing_running(
    loopback: Loopback, jobs: list[Job]
) -> None:
    code = (
        "import sys; from edgeface.latency.devices.ssh import SshDevice\n"
        "from edgeface.latency.protocol import Job\n"
        "SshDevice(*sys.argv[1:4]).measure([Job(sys.argv[4])])"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code, loopback.url, sys.executable, loopback.config, jobs[0].bundle],
        env={**os.environ, "XDG_CACHE_HOME": str(loopback.folder)},
    )
    try:
        wait_for(loopback.running)
    finally:
        caller.kill()
        caller.wait()
    wait_for(lambda: not loopback.running())
