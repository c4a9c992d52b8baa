"""Reads frames in a thread while earlier ones are processed."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
DEPTH = 4
"""largest number of frames that wait"""
JOIN_S = 2.0
"""time to wait for the thread; that of a silent camera may run longer, and ends with the process"""


class ReadAhead(Generic[T]):
    """Items of a generator that a thread runs ahead of the consumer.

    ::

        camera --> thread --> [ frame, frame ] --> detector

    At most ``depth`` items wait, so memory does not grow. latest: only the newest item waits and
    older ones are skipped, so that a camera's frames are current. Exceptions of the generator are
    raised in the consumer.
    """

    def __init__(
        self, items: Generator[T, None, None], latest: bool = False, depth: int = DEPTH
    ) -> None:
        self._items, self._latest, self._depth = items, latest, depth
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self.skipped = 0
        """number of items that were skipped"""
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> ReadAhead[T]:
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(JOIN_S)

    def _read(self) -> None:
        try:
            with contextlib.closing(self._items):
                for item in self._items:
                    if not self._put(item):
                        return
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Add an item. Returns False if the consumer has closed."""
        with self._changed:
            if self._latest:
                self.skipped += len(self._waiting)
                self._waiting.clear()
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._depth)
            self._waiting.append(item)
            self._changed.notify_all()
            return not self._closed
