"""Signals that ask a program to end: treated as Ctrl-C, or delayed until a block is complete."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

ASKING = tuple(
    signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
"""SIGTERM, as systemd sends it, and SIGHUP, sent when a terminal closes; Windows has no SIGHUP"""


@contextmanager
def as_ctrl_c() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP in the block act as Ctrl-C; yields a list that collects their numbers.

    A signal that is ignored, as under ``nohup``, or has a handler already is left alone. Outside
    the main thread, where Python allows no handlers, both are left alone.
    """
    came: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        came.append(number)
        ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(ctrl_c):  # a shell makes programs started with & ignore SIGINT
            raise KeyboardInterrupt
        ctrl_c(number, frame)

    treated = [number for number in ASKING if signal.getsignal(number) is signal.SIG_DFL]
    if current_thread() is not main_thread():
        treated.clear()
    try:
        for number in treated:
            signal.signal(number, press)
        yield came
    finally:
        for number in treated:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def put_off() -> Iterator[None]:
    """Delay signals that ask to end until the block is over; then the first one is handled.

    These are SIGINT, SIGTERM and SIGHUP, each if it has a Python handler, in the main thread only.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *ASKING)}
    if current_thread() is not main_thread():
        handlers.clear()
    treated = {number: handler for number, handler in handlers.items() if callable(handler)}
    came: list[int] = []
    try:
        for number in treated:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number in reversed(treated):  # SIGINT last, as the others' handlers call its handler
            signal.signal(number, treated[number])
        if came:
            treated[signal.Signals(came[0])](came[0], None)
