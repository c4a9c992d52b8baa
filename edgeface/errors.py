"""Every error a user can cause, under one root.

The command line turns any of these into one line on stderr and exit code 2. A message says what is
wrong, what would be accepted, and what to run next; ``assert`` is kept for the project's own
invariants.
"""

from __future__ import annotations

import copyreg
import errno
import re
from collections.abc import Callable, Iterator
from typing import Any

_NO_MEMORY = re.compile(
    r"out of memory|failed to allocate|not enough memory|insufficient memory|can(no|')t allocate"
    r"|unable to allocate|bad.alloc|failed to map segment|can't start new thread"
    r"|could not create a primitive$",
    re.IGNORECASE,
)
"""how torch, NumPy, OpenCV, the runtimes and the system's loader of libraries report that memory
ran out"""
NO_MEMORY = (
    "there is not enough memory for this: close other programs, or ask for less at once (a smaller"
    " --size or --batch)"
)


def counted(count: int, noun: str) -> str:
    """``1 photo``, ``2 photos``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def is_no_memory(error: BaseException) -> bool:
    """Does the error, or one that led to it, say that memory ran out?"""
    return any(map(_is_full, _origins(error, lambda e: e.__cause__ or e.__context__)))


def is_interrupt(error: BaseException) -> bool:
    """Is the error a Ctrl-C, or caused by one?

    An extension module that is interrupted while it loads raises an ImportError from it."""
    return any(isinstance(e, KeyboardInterrupt) for e in _origins(error, lambda e: e.__cause__))


def _origins(
    error: BaseException, before: Callable[[BaseException], BaseException | None]
) -> Iterator[BaseException]:
    """Yield the error, the one that ``before`` gives for it, and so on, each once."""
    seen: set[int] = set()
    origin: BaseException | None = error
    while origin is not None and id(origin) not in seen:
        yield origin
        seen.add(id(origin))
        origin = before(origin)


def _is_full(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno == errno.ENOMEM
    full |= isinstance(error, SystemError) and not _has_room()  # raised by Python itself
    return full or isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def _has_room(size: int = 1 << 26) -> bool:
    try:
        return bool(bytearray(size))
    except MemoryError:
        return False


class EdgefaceError(Exception):
    """A problem the user can fix. Its text is one line."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling ``__init__``, whose arguments the error does not keep.

        A process pool that cannot unpickle an error waits for ever, or breaks."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class ImageError(EdgefaceError):
    """An image that cannot be read or decoded."""


class ModelError(EdgefaceError):
    """An unknown model, or weights that do not fit or cannot be trusted."""


class BundleError(EdgefaceError):
    """A Bundle whose manifest or files are missing, damaged or altered."""


class DataError(EdgefaceError):
    """A data set, annotation or prediction file that breaks its format."""


class TrainingError(EdgefaceError):
    """A training that cannot go on."""


class ExportError(EdgefaceError):
    """An export that cannot be made, or that failed its parity check."""


class QuantizeError(EdgefaceError):
    """A file that cannot be quantised, or not within its accuracy budget."""

    all_int8_drop: float | None = None
    """AP points, rounded up, that are lost with all layers in INT8; set if the budget cannot be
    kept"""


class DeviceError(EdgefaceError):
    """A device that cannot be reached or used, or a measurement on it that failed."""


class WorkerError(EdgefaceError):
    """Worker processes or a cluster that are not available, or that died too often."""


class OptionError(EdgefaceError):
    """A command-line value or combination that is not accepted."""


class OutputError(EdgefaceError):
    """A place that cannot be written."""


class MissingExtraError(EdgefaceError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}': run: pip install 'edgeface[{extra}]'"
        )
        self.package, self.extra = package, extra
