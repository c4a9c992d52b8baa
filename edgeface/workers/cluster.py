"""Workers on the machines of a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import edgeface
from edgeface.errors import MissingExtraError, WorkerError
from edgeface.files import scratch_folder
from edgeface.quiet import quiet
from edgeface.workers.base import (
    RETRIES,
    TASKS,
    Outcome,
    Outcomes,
    Task,
    Workers,
    attempt,
    task_name,
    worker_died,
)

CONNECT_S = 5.0
"""seconds for a TCP connection"""
JOIN_S = 60.0
"""seconds for Ray to connect; by itself it tries for many minutes"""
LOOK_S = 5.0
"""seconds between checks that the cluster can still run the tasks"""
ABSENCE_S = 60.0
"""seconds without a cluster that can run the tasks before they are given up"""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_task_oom_retries": str(RETRIES),
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}
"""settings of Ray, unless the user sets others: send no usage reports, log little, retry no more
than :data:`RETRIES` times, and do not end this process when the head of the cluster has been away
for a minute, because :data:`ABSENCE_S` handles that"""
JOIN = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='CRITICAL')"
HELP = (
    "start one with: ray start --head --disable-usage-stats --include-dashboard=false; "
    "this machine, if it is another, and each further one joins with: ray start --address=HOST:6379"
)
_JOINED: set[str] = set()
"""address that the user gave for the cluster that this process is connected to; Ray itself reports
the address of an interface"""


class Cluster(Workers):
    """Workers of the connected module ``ray``.

    resource: as in :func:`edgeface.workers.open_workers`."""

    def __init__(self, ray: ModuleType, resource: str | None) -> None:
        self._ray = ray
        self._resources = {resource: 1} if resource else {}
        given = f" --resources='{json.dumps(self._resources)}'" * bool(resource)
        self._start = f"ray start --address=HOST:6379 --num-cpus=1{given}"
        self._needed = "a processor to give" + f" and {resource!r}" * bool(resource)
        if not self._is_able():
            raise WorkerError(
                f"no machine of the cluster has {self._needed}: on one that has, run: {self._start}"
            )

    def outcomes(self, task: Task, items: Sequence[Any]) -> Outcomes:
        name = task_name(task)
        options = {
            "num_cpus": 1,
            "resources": self._resources,
            "max_retries": RETRIES,
            "max_calls": TASKS,
        }
        remote = self._ray.remote(**options)(attempt)
        running = {remote.remote(name, item): index for index, item in enumerate(items)}
        able = time.monotonic()
        try:
            while running:
                ready, _ = self._ray.wait(list(running), num_returns=1, timeout=LOOK_S)
                for reference in ready:
                    index = running.pop(reference)
                    yield index, self._get(reference, name, index, items[index])
                if ready or self._is_able():
                    able = time.monotonic()
                elif time.monotonic() > able + ABSENCE_S:
                    raise WorkerError(
                        f"the head of the cluster, or all that had {self._needed}, are gone, with"
                        f" {len(running)} of {len(items)} tasks undone; join again with:"
                        f" {self._start}"
                    )
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _get(self, reference: Any, name: str, index: int, item: Any) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # raised before the task began
            raise WorkerError(
                f"a machine of the cluster cannot run {name}: {_last_line(str(error))}"
            ) from None
        except self._ray.exceptions.LocalRayletDiedError:
            raise WorkerError(
                f"this machine has left the cluster; join again with: {self._start}"
            ) from None
        except self._ray.exceptions.RayError as error:
            raise worker_died(name, index, item, str(error).partition("\n")[0]) from None
        return outcome

    def _is_able(self) -> bool:
        """Does the head answer, and is there a machine that could run a task?"""
        try:
            _connect(self._ray.get_runtime_context().gcs_address)
        except OSError:
            return False
        needed = {"CPU", *self._resources}
        return any(
            node["Alive"] and all(node["Resources"].get(name, 0) >= 1 for name in needed)
            for node in self._ray.nodes()
        )


@contextlib.contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Yield the module ``ray``, connected to the cluster at ``address``.

    Shares a connection that this process already has to it. Raises MissingExtraError, WorkerError.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise MissingExtraError("ray", "scale", "running on a cluster") from None
    if ray.is_initialized():
        other = ray.get_runtime_context().gcs_address
        if address not in {"auto", other, *_JOINED}:
            raise WorkerError(
                f"this process is connected to the Ray cluster at {other}: accepted is that"
                f" address, or {address} after the end of that connection"
            )
        yield ray
        return
    _check_answers(address)
    handler, driver = signal.getsignal(signal.SIGTERM), vars(sys.modules[ray.init.__module__])
    driver["_worker_logs_enabled"] = (
        False  # otherwise Ray prints messages about machines on our stdout
    )
    try:
        _join(ray, address)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has replaced it by its own
        _JOINED.add(address)
        yield ray
    finally:
        _JOINED.clear()
        with quiet():
            ray.shutdown()
        driver["_worker_logs_enabled"] = True


def _check_answers(address: str) -> None:
    """Raise WorkerError, in bounded time, unless this machine is in a cluster at ``address``.

    Ray itself tries for many minutes, writes to stderr meanwhile, and may end the process.
    """
    if address != "auto":
        if not re.fullmatch(r"[^/]+:\d{1,5}", address):
            raise WorkerError(
                f"{address!r} is not the address of a Ray cluster: accepted are HOST:PORT, as ray"
                f" start prints it, and auto; {HELP}"
            )
        try:
            _connect(address)
        except OSError as error:
            raise WorkerError(
                f"no Ray cluster answers at {address}: {error.strerror or error}; {HELP}"
            ) from None
    try:
        done = subprocess.run(
            [sys.executable, "-c", JOIN, address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=JOIN_S,
        )
    except subprocess.TimeoutExpired:
        raise WorkerError(
            f"no Ray cluster answers this machine at {address} within {JOIN_S:g} s; {HELP}"
        ) from None
    if done.returncode != 0:
        raise WorkerError(
            f"cannot join the Ray cluster at {address}: {_last_line(done.stderr)}; {HELP}"
        )


def _connect(address: str) -> None:
    """Raise OSError if nothing listens at ``address``."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OverflowError as error:
        raise OSError(str(error)) from None


def _join(ray: ModuleType, address: str) -> None:
    with scratch_folder() as scratch, quiet():
        code = scratch / "code"
        for package in _packages():
            shutil.copytree(
                package, code / package.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        try:
            # In the working_dir, the code takes precedence over what a machine has installed.
            # Without one, the folder that this process was started in would come first on all
            # machines, and another machine may have other code at that place.
            ray.init(
                address,
                runtime_env={"working_dir": str(code)},
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise WorkerError(
                f"cannot join the Ray cluster at {address}: {_last_line(str(error))}; {HELP}"
            ) from None


def _packages() -> list[Path]:
    """Folders of this package and, in a checkout, of the packages beside it."""
    own = Path(edgeface.__file__).parent
    if not (own.parent / "pyproject.toml").is_file():
        return [own]
    return sorted(path.parent for path in own.parent.glob("*/__init__.py"))


def _last_line(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"])[-1]
