"""Signals that ask a program to end: taken for a Ctrl-C, or put off until what runs is whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

ASKING = tuple(
    signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
"""of systemd and its like, and of a terminal that closes; Windows has no second one"""


@contextmanager
def as_ctrl_c() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP in the block do what a Ctrl-C does; yields the list of those that came.

    One that is ignored, as under ``nohup``, or that the program treats itself, is left alone; so
    are all outside the main thread, where Python lets none be treated.
    """
    came: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        came.append(number)
        ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(ctrl_c):  # a shell lets what it starts with & ignore that
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
    """What asks to end while the block runs is heeded when it is over."""
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
        for number in reversed(treated):  # the others end in that of SIGINT: it comes last
            signal.signal(number, treated[number])
        if came:
            treated[signal.Signals(came[0])](came[0], None)
