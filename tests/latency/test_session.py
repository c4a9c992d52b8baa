"""The protocol with real models in real processes, some of which misbehave."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from by_hand import alive, children, wait_for

from edgeface.bundle import Bundle
from edgeface.errors import DeviceError, OptionError
from edgeface.latency import session as module
from edgeface.latency.agent import Agent, Request, parse
from edgeface.latency.measurement import STAGES, Measurement
from edgeface.latency.session import Job, Protocol, measure
from edgeface.latency.worker_process import WorkerProcess

QUICK = Protocol(
    rounds=3, per_round=2, warm_up_s=0, photo_width=320, photo_height=240, time_limit_s=120
)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[WorkerProcess]]:
    """All workers in the order of their start; none may be alive at the end."""
    started: list[WorkerProcess] = []

    class Seen(WorkerProcess):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(module, "WorkerProcess", Seen)
    yield started
    assert started and not any(alive(worker.pid) for worker in started)


@pytest.fixture
def jobs(exported: Callable[..., Bundle]) -> list[Job]:
    return [
        Job(str(exported("onnx").path)),
        Job(str(exported("ncnn").path)),
        Job(str(exported("onnx").path), 2),
    ]


def test_records(jobs: list[Job], workers: list[WorkerProcess]) -> None:
    ticks: list[tuple[str, int, int]] = []
    finished: list[Measurement] = []
    found = measure(
        jobs,
        QUICK,
        1,
        lambda *progress: ticks.append(progress),
        finished.append,
        device="ssh://somewhere",
    )
    assert found == finished and len(workers) == 3
    assert [(r.bundle, r.target, r.threads) for r in found] == [
        (j.name, j.name.split("-")[2], j.threads) for j in jobs
    ]
    for record in found:
        assert record.device == "ssh://somewhere" and (record.width, record.height) == (160, 128)
        assert set(record.samples) == set(STAGES) and record.load_ms > 0 and record.import_ms > 0
        for stage in record.samples.values():
            assert (
                [len(part) for part in stage.wall_ms]
                == [len(part) for part in stage.cpu_ms]
                == [2, 2, 2]
            )
        assert (
            record.network_ms.min
            <= record.network_ms.median
            <= record.network_ms.p90
            <= record.network_ms.p99
        )
        assert record.network_ms.median < record.end_to_end_ms.median
        assert len(record.environment.during) == 3 and record.protocol == QUICK
        assert len(record.environment.cores) == min(record.threads, len(os.sched_getaffinity(0)))
        assert not record.valid and any(
            r.startswith("too few samples: 6 in 3") for r in record.invalid_reasons
        )
        assert record.files == Bundle.open(jobs[found.index(record)].bundle).manifest.files
    ratios = [r.ratio for r in found]
    assert all(ratio and (ratio.to, ratio.threads) == (jobs[1].name, 1) for ratio in ratios)
    assert [ratio.verdict == "reference" for ratio in ratios if ratio] == [False, True, False]
    assert [done for _, done, _ in ticks] == list(range(1, 16)) and {
        total for _, _, total in ticks
    } == {15}
    assert [what for what, _, _ in ticks] == ["loading"] * 3 + ["warming up"] * 3 + [
        "measuring"
    ] * 9


def test_without_a_reference_there_is_no_ratio(
    jobs: list[Job], workers: list[WorkerProcess]
) -> None:
    assert [record.ratio for record in measure(jobs[:1], QUICK)] == [None]


def test_groups_share_the_reference(jobs: list[Job], workers: list[WorkerProcess]) -> None:
    narrow = Protocol(**{**vars(QUICK), "together": 2})
    finished: list[Measurement] = []
    found = measure(jobs, narrow, 1, finished=finished.append)
    assert [r.threads for r in found] == [1, 1, 2] and len(finished) == 3 and len(workers) == 4
    assert all(r.ratio and r.ratio.to == jobs[1].name for r in found)


def fail(index: int, workers: list[WorkerProcess], act: Callable[[int], None]) -> module.Progress:
    """A progress that calls ``act`` with the process id of worker ``index`` after the first slice.

    It leaves that worker 3 s of its time limit.
    """

    def progress(what: str, *_: object) -> None:
        if what == "measuring" and not acted:
            acted.append(True)
            workers[index]._left_s = 3.0
            act(workers[index].pid)

    acted: list[bool] = []
    return progress


@pytest.mark.parametrize(
    ("signal_number", "words"),
    [
        (signal.SIGKILL, "ended by SIGKILL"),
        (signal.SIGSEGV, "ended by SIGSEGV"),
        (signal.SIGSTOP, "not done within 120 s"),
    ],
)
def test_one_that_fails_harms_no_other(
    jobs: list[Job], workers: list[WorkerProcess], signal_number: int, words: str
) -> None:
    failed: list[tuple[int, str]] = []
    found = measure(
        jobs[:2],
        QUICK,
        0,
        fail(1, workers, lambda pid: os.kill(pid, signal_number)),
        failed=lambda index, message: failed.append((index, message)),
    )
    assert [r.bundle for r in found] == [jobs[0].name] and len(
        found[0].samples["network"].wall_ms
    ) == 3
    ((index, message),) = failed
    assert (
        index == 1
        and words in message
        and message.startswith(f"{jobs[1]}: ")
        and "\n" not in message
    )


def test_a_reference_that_fails_leaves_no_ratio(
    jobs: list[Job], workers: list[WorkerProcess]
) -> None:
    failed: list[int] = []
    found = measure(
        jobs[:2],
        QUICK,
        0,
        fail(0, workers, lambda pid: os.kill(pid, signal.SIGKILL)),
        failed=lambda index, _: failed.append(index),
    )
    assert failed == [0] and [r.ratio for r in found] == [None]


def test_a_reference_that_failed_is_not_measured_after_all(
    jobs: list[Job], workers: list[WorkerProcess]
) -> None:
    """It is in every group, and its first result counts."""
    narrow = Protocol(**{**vars(QUICK), "together": 2})
    finished: list[Measurement] = []
    failed: list[int] = []
    found = measure(
        jobs,
        narrow,
        1,
        fail(1, workers, lambda pid: os.kill(pid, signal.SIGKILL)),
        finished.append,
        lambda index, _: failed.append(index),
    )
    assert failed == [1] and found == finished and [r.threads for r in found] == [1, 2]


def test_failures_are_raised_at_the_end(jobs: list[Job], workers: list[WorkerProcess]) -> None:
    finished: list[Measurement] = []
    with pytest.raises(DeviceError, match="nowhere, 1 thread: no Bundle at /nowhere"):
        measure([Job("/nowhere"), jobs[0]], QUICK, finished=finished.append)
    assert [r.bundle for r in finished] == [jobs[0].name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_exception_leaves_no_worker(
    jobs: list[Job], workers: list[WorkerProcess], error: type[BaseException]
) -> None:
    def stop(pid: int) -> None:
        raise error

    with pytest.raises(error):
        measure(jobs[:2], QUICK, 0, fail(1, workers, stop))


def test_nothing_to_measure() -> None:
    with pytest.raises(DeviceError, match="at least one Bundle"):
        measure([])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 0),
        ("per_round", 0),
        ("warm_up_s", -1),
        ("photo_width", 1),
        ("together", 1),
        ("time_limit_s", 0),
        ("seed", -1),
        ("max_load", float("nan")),
    ],
)
def test_options_out_of_range_name_their_flag(field: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"--{field.replace('_', '-')} must be from"):
        Protocol(**{field: value})  # type: ignore[arg-type]


def run_agent(request: Request | str) -> tuple[int, list[dict[str, Any]]]:
    out = io.StringIO()
    code = Agent(out).run(request if isinstance(request, str) else json.dumps(request.to_json()))
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def test_agent_measures_and_reports(jobs: list[Job]) -> None:
    code, lines = run_agent(Request("measure", (jobs[0], Job("/nowhere")), QUICK, 0, "adb://1"))
    assert code == 0 and lines[-1] == {"done": True}
    kinds = [next(iter(line)) for line in lines]
    assert [kind for kind in kinds if kind != "progress"] == ["failed", "measurement", "done"]
    record = Measurement.from_json(lines[kinds.index("measurement")]["measurement"])
    assert record.device == "adb://1" and record.samples and record.bundle == jobs[0].name
    assert lines[kinds.index("failed")]["failed"]["job"] == 1


def test_agent_checks() -> None:
    code, lines = run_agent('{"do": "check"}')
    facts = lines[0]["check"]
    assert code == 0 and facts["python"] == sys.version.split()[0] and facts["packages"]["numpy"]
    assert facts["runtimes"]["onnx"].startswith("onnxruntime ")


@pytest.mark.parametrize(
    ("request_line", "words"),
    [
        ("", "cannot read"),
        ("{", "cannot read"),
        ("[]", "an object"),
        ('{"do": "dance"}', "check or measure"),
        ('{"do": "measure", "jobs": [{"bundle": 1}]}', "a string"),
        ('{"do": "measure", "reference": 0}', "none of 0"),
        ('{"do": "measure", "protocol": {"rounds": 0}}', "--rounds"),
        ('{"do": "check", "python": []}', "a command"),
        ("[" * 100_000, "cannot read"),
    ],
)
def test_agent_refuses_what_is_no_request(request_line: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        parse(request_line)
    code, lines = run_agent(request_line)
    assert code == 2 and [next(iter(line)) for line in lines] == ["error", "done"]


def test_agent_without_anything_to_measure_says_so() -> None:
    assert run_agent('{"do": "measure"}') == (
        0,
        [{"error": "nothing to measure: name at least one Bundle"}, {"done": True}],
    )


def start(*arguments: str) -> subprocess.Popen[bytes]:
    # Shells start background jobs with SIGINT ignored, and nohup ignores SIGHUP. Processes started
    # here would inherit that.
    command = ["env", "--default-signal=INT,HUP", sys.executable, "-m", *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


def finish(process: subprocess.Popen[bytes], pids: list[int]) -> tuple[bytes, bytes]:
    """Return (stdout, stderr) once the process and the workers ``pids`` have ended."""
    out, err = process.communicate(timeout=60)
    wait_for(lambda: not any(alive(pid) for pid in pids))
    return out, err


def test_an_agent_whose_caller_is_gone_ends_with_its_workers(jobs: list[Job]) -> None:
    process = start("edgeface.latency.agent")
    assert process.stdin and process.stdout
    endless = Request("measure", tuple(jobs[:2]), Protocol(rounds=10_000))
    process.stdin.write(json.dumps(endless.to_json()).encode() + b"\n")
    process.stdin.flush()
    while b'"measuring"' not in (line := process.stdout.readline()):
        assert line
    pids = children(process.pid)
    assert len(pids) == 2
    finish(process, pids)  # closes standard input
    assert process.returncode != 0


@pytest.mark.parametrize(
    "signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]
)
def test_whatever_ends_the_command_ends_its_workers(jobs: list[Job], signal_number: int) -> None:
    process = start("edgeface", "bench", jobs[0].bundle, jobs[1].bundle, "--rounds", "10000")
    pids = wait_for(lambda: len(found := children(process.pid)) == 2 and found)
    process.send_signal(signal_number)
    _, err = finish(process, pids)
    assert b"Traceback" not in err
    if signal_number == signal.SIGINT:
        assert process.returncode == 130 and b"stopped" in err
