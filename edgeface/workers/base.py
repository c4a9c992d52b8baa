"""What all workers share: how a task is named and run, and how its outcome is returned."""

from __future__ import annotations

import builtins
import importlib
import reprlib
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from types import FunctionType
from typing import Any, NamedTuple

from edgeface.errors import EdgefaceError, OutputError, WorkerError, is_no_memory

Task = Callable[[Any], Any]
Finished = Callable[[int, Any], None]

RETRIES = 3
"""times that an item is tried again after its worker died"""
TASKS = 25
"""tasks after which a worker is replaced, because converters do not free all memory"""


class Outcome(NamedTuple):
    """Outcome of a task, as data: not every exception can be sent from process to process."""

    result: Any = None
    error: str = ""
    """class of an EdgefaceError as module:name; MemoryError; RuntimeError for any other"""
    text: str = ""

    def value(self) -> Any:
        """Return the result, or raise the error."""
        if not self.error:
            return self.result
        if self.error in (RuntimeError.__name__, MemoryError.__name__):
            raise getattr(builtins, self.error)(self.text)
        kind = load(self.error)
        raise kind.__new__(kind, self.text)  # not __init__, which may take other arguments


Outcomes = Generator[tuple[int, Outcome], None, None]


class Workers(ABC):
    """Base class of what runs tasks: this process, several processes, or a cluster."""

    def run(self, task: Task, items: Sequence[Any], finished: Finished | None = None) -> list[Any]:
        """Run ``task`` on each of ``items`` and return the results in their order.

        finished: called with index and result of each item, once, in this process, as they come in.

        An error of a task, an error of ``finished`` and Ctrl-C stop all running tasks and are
        raised. From another process, an EdgefaceError comes unchanged, a lack of memory as
        MemoryError, an OSError as OutputError, and any other error, which is a bug of the task, as
        RuntimeError with its traceback. In this process all come unchanged. Raises WorkerError if
        workers die again and again at an item, or nothing is left to run it on.
        """
        task_name(task)
        results: list[Any] = [None] * len(items)
        with closing(self.outcomes(task, items)) as outcomes:
            for index, outcome in outcomes:
                results[index] = outcome.value()
                if finished is not None:
                    finished(index, results[index])
        return results

    @abstractmethod
    def outcomes(self, task: Task, items: Sequence[Any]) -> Outcomes:
        """Yield index and outcome of each item as they come in; if closed early, stop all tasks."""


class Here(Workers):
    """Runs tasks in this process, one after the other."""

    def outcomes(self, task: Task, items: Sequence[Any]) -> Outcomes:
        for index, item in enumerate(items):
            yield index, Outcome(task(item))


def attempt(name: str, item: Any) -> Outcome:
    """Run a task in the process of a worker."""
    try:
        return Outcome(load(name)(item))
    except EdgefaceError as error:
        return _known(type(error), str(error))
    except Exception as error:
        if is_no_memory(error):
            return Outcome(error=MemoryError.__name__, text=str(error))
        if isinstance(error, OSError):  # of the machine, such as a full disk, not of the code
            return _known(OutputError, f"{name} failed in a worker: {error}")
        return Outcome(
            error=RuntimeError.__name__, text=f"{name} failed:\n{traceback.format_exc()}"
        )


def _known(kind: type[EdgefaceError], text: str) -> Outcome:
    return Outcome(error=f"{kind.__module__}:{kind.__qualname__}", text=text)


def task_name(task: Task) -> str:
    """``module:function`` of a task.

    Raises TypeError if another process could not import the task by that name."""
    module = getattr(task, "__module__", None)
    if module == "__main__":
        module = getattr(sys.modules["__main__"].__spec__, "name", None)  # of python -m MODULE
    if not (isinstance(task, FunctionType) and task.__qualname__.isidentifier() and module):
        raise TypeError(
            f"{task!r} is not a top-level function of a module that other processes can import"
        )
    return f"{module}:{task.__qualname__}"


def load(name: str) -> Any:
    """Import and return the object named ``module:attribute``."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def worker_died(name: str, index: int, item: Any, cause: str) -> WorkerError:
    """The error for an item whose worker died again in each of :data:`RETRIES` retries."""
    return WorkerError(
        f"item {index} of {name} ({reprlib.repr(item)}) ended its worker {RETRIES + 1} times:"
        f" {cause}"
    )
