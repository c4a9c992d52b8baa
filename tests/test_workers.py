"""Tasks in this process, in other processes and on a real Ray cluster of two nodes: their results,
and that they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from by_hand import alive, wait_for
from ray_cluster import STORE_BYTES, two_machines
from worker_tasks import (
    code_folder,
    die_at_1,
    die_once,
    double,
    fail_at_2,
    fork_and_die_once,
    mistake,
    nap,
    pid,
    stay,
    without_package,
    without_room,
)

from edgeface.errors import DeviceError, MissingExtraError, OptionError, OutputError, WorkerError
from edgeface.workers import Workers, open_workers
from edgeface.workers.base import RETRIES, TASKS

ROOT, HERE = Path(__file__).parents[1], Path(__file__).parent
Open = Callable[..., AbstractContextManager[Workers]]


def noted(folder: Path) -> list[tuple[int, int, str]]:
    """(item, process, machine) for each start of a task."""
    return [
        (int(path.stem), int(line.split()[0]), line.split()[1])
        for path in folder.glob("*.log")
        for line in path.read_text().splitlines()
    ]


def gone(process: int) -> bool:
    return not alive(process)


class Journal(list[tuple[int, Any]]):
    """A ``finished`` callback that records its arguments."""

    def __call__(self, index: int, result: Any) -> None:
        self.append((index, result))


# Fixtures: where tasks run.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines of one processor each; the second has the resource ``pi``."""
    with two_machines({"pi": 1}) as made:
        yield made


@pytest.fixture(scope="module")
def connection(cluster: Any) -> Iterator[str]:
    """The cluster's address; one connection stays open, so that tests need not connect again."""
    with open_workers(cluster.address):
        yield cluster.address


@pytest.fixture(params=["here", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    kind = request.param
    address = request.getfixturevalue("connection") if kind == "ray" else None
    with open_workers(address, processes=1 if kind == "here" else 2) as opened:
        yield opened


others = pytest.mark.parametrize(
    "workers", ["processes", pytest.param("ray", marks=pytest.mark.slow)], indirect=True
)


# Tests of all kinds of workers.


def test_results_are_in_order_and_each_is_finished_once(workers: Workers) -> None:
    journal, delays = Journal(), [0.8, 0.0, 0.1, 0.0, 0.3, 0.0]
    results = workers.run(nap, [[number, delay] for number, delay in enumerate(delays)], journal)
    assert [number for number, _ in results] == list(range(6))
    assert sorted(journal) == list(enumerate(results))


def test_nothing_to_do(workers: Workers) -> None:
    assert workers.run(nap, []) == []


def test_what_can_be_passed(workers: Workers) -> None:
    items: list[Any] = [b"\x00\xff" * 300_000, "é\n", 1.5, [1, [2]], b""]
    assert workers.run(double, items) == [item * 2 for item in items]


def test_own_error_comes_back_as_itself_and_stops_the_rest(
    workers: Workers, tmp_path: Path
) -> None:
    journal = Journal()
    with pytest.raises(DeviceError) as raised:
        workers.run(fail_at_2, [[number, str(tmp_path)] for number in range(9)], journal)
    assert str(raised.value) == "the device is gone"
    assert set(journal) <= {(0, 0), (1, 0)} and len(set(journal)) == len(journal)
    begun = noted(tmp_path)
    assert len(begun) < 9
    assert workers.run(double, [21]) == [42]
    wait_for(
        lambda: all(
            gone(process) or process == os.getpid() for item, process, _ in begun if item > 2
        )
    )


def test_own_error_with_arguments_of_its_own(workers: Workers) -> None:
    with pytest.raises(MissingExtraError) as raised:
        workers.run(without_package, [0])
    assert str(raised.value) == str(MissingExtraError("torch", "zoo", "dreaming"))


def test_mistake_in_a_task_keeps_its_traceback(workers: Workers) -> None:
    with pytest.raises((ZeroDivisionError, RuntimeError), match="division by zero"):
        workers.run(mistake, [1, 0])


def test_a_machine_without_room_is_no_mistake_of_the_task(workers: Workers) -> None:
    with pytest.raises((OSError, OutputError), match="No space left") as raised:
        workers.run(without_room, ["disk"])
    assert "\n" not in str(raised.value)
    with pytest.raises(MemoryError):
        workers.run(without_room, ["memory"])


def test_error_of_finished_stops(workers: Workers, tmp_path: Path) -> None:
    def full(index: int, result: Any) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        workers.run(nap, [[0, 0.0], [1, 0.0]], full)
    assert workers.run(double, [1]) == [2]


def test_task_must_be_importable(workers: Workers) -> None:
    for task in (lambda item: item, test_task_must_be_importable.__get__(0)):
        with pytest.raises(TypeError, match="not a top-level function"):
            workers.run(task, [1])


# Tests of workers in other processes, on this machine or a cluster.


@others
def test_killed_workers_lose_and_double_nothing(
    workers: Workers, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    journal, items = Journal(), [[number, str(tmp_path)] for number in range(4)]
    assert workers.run(die_once, items, journal) == [0, 1, 2, 3]
    assert sorted(journal) == [(number, number) for number in range(4)]
    assert Counter(item for item, _, _ in noted(tmp_path)) == dict.fromkeys(range(4), 2)
    time.sleep(0.5)  # Ray prints from another thread
    assert capfd.readouterr() == ("", "")


@others
def test_item_that_always_kills_is_named(workers: Workers, tmp_path: Path) -> None:
    journal = Journal()
    with pytest.raises(
        WorkerError,
        match=r"^item 1 of worker_tasks:die_at_1 \(\[1, .*\) ended its worker 4 times: .+$",
    ):
        workers.run(die_at_1, [[number, str(tmp_path)] for number in range(2)], journal)
    assert len(noted(tmp_path)) == RETRIES + 1 and set(journal) <= {(0, 0)}


@others
def test_workers_are_kept_for_a_while(workers: Workers) -> None:
    """A worker runs at most TASKS tasks: converters do not give all their memory back."""
    pids = Counter(workers.run(pid, [0] * (2 * TASKS + 2)))
    assert len(pids) >= 3 and max(pids.values()) <= TASKS and os.getpid() not in pids


# This machine.


def test_one_process_and_a_device_need_no_other() -> None:
    with open_workers() as workers:
        assert workers.run(pid, [0]) == [os.getpid()]
    with open_workers(processes=4, resource="pi") as workers:
        assert workers.run(pid, [0, 0]) == [os.getpid()] * 2
    with pytest.raises(OptionError, match="1 or more"), open_workers(processes=0):
        pass


def test_killed_process_with_a_child_of_its_own(tmp_path: Path) -> None:
    with open_workers(processes=2) as workers:
        assert workers.run(fork_and_die_once, [[0, str(tmp_path)]]) == [0]
    wait_for(lambda: gone(int((tmp_path / "child").read_text())))


def test_end_of_the_block_ends_the_processes() -> None:
    with open_workers(processes=2) as workers:
        pids = {process for _, process in workers.run(nap, [[0, 0.2], [1, 0.2]])}
        assert len(pids) == 2 and not any(map(gone, pids))
    assert all(map(gone, pids))


CALLER = textwrap.dedent("""
    import json, sys
    from edgeface.workers import open_workers
    from worker_tasks import stay
    folder, arguments = sys.argv[1], json.loads(sys.argv[2])
    if __name__ == "__main__":
        try:
            with open_workers(**arguments) as workers:
                workers.run(stay, [[number, folder] for number in range(6)])
        except KeyboardInterrupt:
            print("stopped")
    """)


def interrupted(folder: Path, arguments: str, kill: signal.Signals) -> tuple[str, str]:
    """Send the signal to a caller with two running tasks; returns the caller's stdout and stderr.
    Checks that its tasks end."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    # A shell starts background jobs with SIGINT ignored.
    command = ["env", "--default-signal=INT", sys.executable, "-c", CALLER, str(folder), arguments]
    caller = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        begun = wait_for(lambda: len(found := noted(folder)) == 2 and found)
        caller.send_signal(kill)
        said = caller.communicate(timeout=60)
    finally:
        caller.kill()
    wait_for(lambda: all(gone(process) for _, process, _ in begun))
    assert len(noted(folder)) == 2
    return said


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    assert interrupted(tmp_path, '{"processes": 2}', signal.SIGINT) == ("stopped\n", "")


def test_killed_caller_leaves_nothing_behind(tmp_path: Path) -> None:
    interrupted(tmp_path, '{"processes": 2}', signal.SIGKILL)


# A cluster.


@pytest.mark.slow
def test_tasks_run_on_both_machines_with_the_code_of_the_caller(
    connection: str, tmp_path: Path
) -> None:
    def let_go() -> None:
        wait_for(lambda: len(noted(tmp_path)) == 2)
        (tmp_path / "go").touch()

    with open_workers(connection) as workers:
        go = threading.Thread(target=let_go)
        go.start()
        assert workers.run(stay, [[number, str(tmp_path)] for number in range(4)]) == [0, 1, 2, 3]
        go.join()
        ([code, threads],) = workers.run(code_folder, [0])
    begun = noted(tmp_path)
    assert (
        len({machine for _, _, machine in begun}) == len({process for _, process, _ in begun}) == 2
    )
    assert len(begun) == 4 and os.getpid() not in {process for _, process, _ in begun}
    assert Path(code).parents[1] != ROOT and threads == "1"
    assert (Path(code).parents[1] / "quantize" / "candidate.py").read_bytes() == (
        ROOT / "quantize" / "candidate.py"
    ).read_bytes()


@pytest.mark.slow
def test_device_is_used_on_its_machine_by_one_task_at_a_time(
    connection: str, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    with open_workers(connection, resource="pi") as workers:
        workers.run(stay, [[number, str(tmp_path)] for number in range(4)])
    assert len({machine for _, _, machine in noted(tmp_path)}) == 1
    with pytest.raises(WorkerError) as raised, open_workers(connection, resource="phone"):
        pass
    assert """ray start --address=HOST:6379 --num-cpus=1 --resources='{"phone": 1}'""" in str(
        raised.value
    )


@pytest.mark.slow
def test_one_cluster_at_a_time(connection: str) -> None:
    for address in (connection, "auto"):
        with open_workers(address) as workers:
            assert workers.run(double, [1]) == [2]
    with (
        pytest.raises(WorkerError, match="is connected to the Ray cluster at"),
        open_workers("127.0.0.1:1"),
    ):
        pass


@pytest.mark.slow
def test_killed_machine_loses_and_doubles_nothing(
    cluster: Any, connection: str, tmp_path: Path
) -> None:
    third = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    lost: list[int] = []

    def kill() -> None:
        ((item, worker),) = wait_for(
            lambda: [found[:2] for found in noted(tmp_path) if found[2] == third.node_id]
        )
        for processes in third.all_processes.values():
            for each in processes:
                each.process.kill()
        os.kill(worker, signal.SIGKILL)
        lost.append(item)
        (tmp_path / "go").touch()

    journal, killer = Journal(), threading.Thread(target=kill)
    with open_workers(connection) as workers:
        killer.start()
        assert workers.run(stay, [[number, str(tmp_path)] for number in range(8)], journal) == list(
            range(8)
        )
    killer.join()
    assert sorted(journal) == [(number, number) for number in range(8)]
    begun = Counter(item for item, _, _ in noted(tmp_path))
    assert begun == {number: 1 + (number in lost) for number in range(8)} and lost


@pytest.mark.slow
def test_device_that_vanishes(
    cluster: Any, connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeface.workers.cluster.LOOK_S", 0.5)
    monkeypatch.setattr("edgeface.workers.cluster.ABSENCE_S", 1.0)
    third = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, resources={"phone": 1})
    killer = threading.Thread(
        target=lambda: wait_for(lambda: noted(tmp_path)) and third.kill_raylet(check_alive=False)
    )
    with open_workers(connection, resource="phone") as workers:
        killer.start()
        with pytest.raises(
            WorkerError, match="'phone', are gone, with 3 of 3 tasks undone"
        ) as raised:
            workers.run(stay, [[number, str(tmp_path)] for number in range(3)])
    killer.join()
    assert "ray start" in str(raised.value)


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_on_the_cluster(cluster: Any, tmp_path: Path) -> None:
    out, err = interrupted(tmp_path, f'{{"address": "{cluster.address}"}}', signal.SIGINT)
    assert (out, err) == ("stopped\n", "")
