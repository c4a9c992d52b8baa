"""Types that several packages share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

Floats = NDArray[np.float32]
"""arrays that networks compute with"""
Doubles = NDArray[np.float64]
"""arrays that statistics are computed with"""
Note = Callable[[str], None]
"""takes a sentence that a user should see"""
Stage = Callable[[str], AbstractContextManager[Any]]
"""called with the name of each step that takes long; its context lasts as long as the step"""


class Closing(ABC):
    """Base class of objects that are closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> object:
        """Release all resources. Calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Progress(Protocol):
    """Callback that is called often and updates a bar or a line in a log."""

    def __call__(self, what: str, done: int, total: int, note: str = "", /) -> None:
        """``done`` of ``total`` parts of ``what`` are done; note: a short text to show beside."""


def unseen(what: str, done: int, total: int, note: str = "") -> None:
    """A Progress that shows nothing."""


def unnoted(what: object) -> None:
    """A callback for notes or errors that shows nothing."""
