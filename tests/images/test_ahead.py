"""Reading ahead: all items or only the latest, with few waiting, and every way in which it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from edgeface.errors import ImageError
from edgeface.images.ahead import DEPTH, ReadAhead


def until(true: object) -> None:
    """Wait until ``true()`` is true. Raises AssertionError after 10 s."""
    assert callable(true)
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError


class Source:
    """A source of numbers that counts how many of them were taken."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.taken, self.over = 0, False
        self._count, self._error = count, error

    def items(self) -> Generator[int, None, None]:
        try:
            for i in range(self._count):
                self.taken += 1
                yield i
            if self._error:
                raise self._error
        finally:
            self.over = True


def test_everything_comes_in_order_and_little_waits() -> None:
    source = Source(100)
    with ReadAhead(source.items()) as ahead:
        until(lambda: source.taken == DEPTH + 1)  # those waiting, and one in hand
        time.sleep(0.05)
        assert source.taken == DEPTH + 1
        assert list(ahead) == list(range(100))
    assert source.over and ahead.skipped == 0


def test_of_what_is_live_the_latest_comes() -> None:
    source = Source(100)
    with ReadAhead(source.items(), latest=True) as ahead:
        until(lambda: source.over)
        assert list(ahead) == [99]
    assert ahead.skipped == 99


def test_an_error_comes_after_what_was_read_before_it() -> None:
    source = Source(3, ImageError("gone"))
    seen = []
    with pytest.raises(ImageError, match="gone"), ReadAhead(source.items()) as ahead:
        for item in ahead:
            seen.append(item)  # noqa: PERF402 - what was seen before it raised
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("latest", [False, True])
def test_who_stops_ends_the_thread_and_closes_the_source(latest: bool) -> None:
    before = threading.active_count()
    source = Source(1 << 40)
    with ReadAhead(source.items(), latest) as ahead:
        next(iter(ahead))
    assert source.over and threading.active_count() == before
