"""Processes that train one network together, and how they are asked to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, current_thread, main_thread

import torch.distributed as dist


@contextmanager
def distributed() -> Iterator[bool]:
    """Join the other processes of ``torchrun``, if any; yields whether this one is the first.

    On leaving, all processes wait for each other, so that what the first one wrote is there for
    all.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield True
        return
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(hours=2))
    yield dist.get_rank() == 0
    dist.barrier()


@contextmanager
def stop_request(world: int, at_once: Callable[[], bool]) -> Iterator[Event]:
    """An event that Ctrl-C or SIGTERM sets; the second signal acts as usual, and the first one
    raises KeyboardInterrupt while ``at_once`` is true.

    A SIGTERM that has a handler already is left to it. With several processes the event is never
    set: they would stop at different steps and wait for each other forever. Nor is it set outside
    the main thread.
    """
    stop = Event()
    if world > 1 or current_thread() is not main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGTERM] is not signal.SIG_DFL:
        del before[signal.SIGTERM]

    def request(*_: object) -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        if at_once():
            raise KeyboardInterrupt
        stop.set()

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
