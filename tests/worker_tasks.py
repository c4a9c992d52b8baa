"""Tasks for tests of workers. Tasks that write a log get a list: the item's number and the log's
folder."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from by_hand import wait_for

import edgeface
from edgeface.errors import DeviceError, MissingExtraError


def nap(item: list[Any]) -> list[Any]:
    time.sleep(item[1])
    return [item[0], os.getpid()]


def double(item: Any) -> Any:
    return item * 2


def pid(item: Any) -> int:
    return os.getpid()


def code_folder(item: Any) -> list[str]:
    return [edgeface.__file__, os.environ["OMP_NUM_THREADS"]]


def fail_at_2(item: list[Any]) -> int:
    note(item)
    if item[0] == 2:
        raise DeviceError("the device is gone")
    wait_for(lambda: item[0] < 2)
    return 0


def without_package(item: Any) -> None:
    raise MissingExtraError("torch", "zoo", "dreaming")


def without_room(item: str) -> None:
    if item == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise MemoryError


def mistake(item: Any) -> float:
    return float(1 / item)


def die_once(item: list[Any]) -> int:
    """Kills its process when an item runs for the first time."""
    if note(item) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return int(item[0])


def die_at_1(item: list[Any]) -> int:
    if item[0] == 1 and note(item):
        os.kill(os.getpid(), signal.SIGKILL)
    return int(item[0])


def fork_and_die_once(item: list[Any]) -> int:
    """Like :func:`die_once`, with a child that would outlive it and holds all its files open."""
    if note(item) == 1:
        child = os.fork()
        if not child:
            time.sleep(600)
        (Path(item[1]) / "child").write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)
    return int(item[0])


def stay(item: list[Any]) -> int:
    """Runs until the folder has a file ``go``."""
    note(item)
    wait_for((Path(item[1]) / "go").exists, 300)
    return int(item[0])


def note(item: list[Any]) -> int:
    """Add process and machine to the item's log; returns how many times the item was started."""
    ray = sys.modules.get("ray")
    node = ray.get_runtime_context().get_node_id() if ray and ray.is_initialized() else "-"
    path = Path(item[1]) / f"{item[0]}.log"
    with path.open("a") as file:
        file.write(f"{os.getpid()} {node}\n")
    return len(path.read_text().splitlines())
