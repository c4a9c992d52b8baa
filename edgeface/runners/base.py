"""Runner: the same input, the same output names and the same meaning on every backend."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Ports
from edgeface.decode import HeadLayout
from edgeface.errors import EdgefaceError, ImageError, OptionError
from edgeface.options import MAX_THREADS, check_count
from edgeface.runners import forks
from edgeface.types import Closing

Heads = dict[str, NDArray[np.float32]]
T = TypeVar("T")


class RunnerClosedError(EdgefaceError):
    """A runner or detector was used after ``close()``."""


class Runner(Closing):
    """A loaded model: uint8 RGB in, raw head outputs out.

    Thread-safe: calls wait for each other, and closing waits for the running call. If a signal
    handler closes the runner, it is freed after the call that the handler interrupted. Threads that
    should compute in parallel need a runner each. A forked process cannot use the runners of its
    parent. Close a runner, or use it in a ``with`` block, to free the runtime's memory. Subclasses
    supply :meth:`_run_one` and :meth:`_close`; the input is checked here, so that the rules are the
    same for all of them.
    """

    opens_after_fork: ClassVar[bool] = True
    """False: the runtime hangs in a process whose parent has used it"""

    def __init__(
        self,
        model: str,
        layout: HeadLayout,
        input_size: tuple[int, int] | None,
        runtime: str,
        threads: int,
        fast: bool = False,
    ) -> None:
        self.model = model
        """name of the model"""
        self.layout = layout
        self.input_size = input_size
        """(width, height) in px, or None: any multiples of ``layout.multiple_px``"""
        self.runtime = runtime + (" (fast)" if fast else "")
        """package and version, such as ``onnxruntime 1.31.1``; with ``(fast)`` if lower precision
        was allowed"""
        self.threads = check_count("threads", threads, 1, MAX_THREADS)
        self.inherited = False
        """True in a process that was forked from the one that opened it"""
        self.trained = True
        """False: the weights are random, and so are the outputs"""
        self._closed = self._runs = self._freed = False
        self._lock = threading.RLock()  # reentrant: a signal handler may close during a call
        forks.opening(self)

    @property
    def dynamic(self) -> bool:
        """True: takes any width and height that are multiples of ``layout.multiple_px``."""
        return self.input_size is None

    def run(self, batch: NDArray[np.uint8]) -> Heads:
        """Raw head outputs for ``batch``, uint8 RGB [N, H, W, 3] with values from 0 to 255.

        Returns float32 ``cls_s`` [N, H/s, W/s, A] and ``box_s`` [N, H/s, W/s, 4A] for each stride
        s; with landmarks also ``kps_s`` [N, H/s, W/s, 10A]. The caller may keep the arrays. Raises
        ImageError if the batch has another type or a wrong size, RunnerClosedError after
        :meth:`close`, RunnerForkedError in a forked process.
        """
        self._check(batch)
        images = (batch[i : i + 1] for i in range(len(batch)))
        parts = [self._alone(partial(self._run_one, image)) for image in images]
        if len(parts) == 1:
            return parts[0]
        return {
            name: np.concatenate([part[name] for part in parts])
            for name in self.layout.output_names
        }

    def close(self) -> None:
        """Free the runtime. Calling it again does nothing."""
        if self.inherited:  # the lock may be held by a thread that did not survive the fork
            self._closed = True
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._free_if_closed()

    def __reduce__(self) -> NoReturn:
        """Raise OptionError: the state of a runtime cannot be copied or sent."""
        raise OptionError(
            f"{self.model} is open in this process and cannot be copied or sent to another one:"
            " open a Detector in each, as in the initializer of a pool"
        )

    def ports(self) -> Ports | None:
        """Where the open file has its tensors; None if the runner has no file.

        This and the following raise what :meth:`run` raises after :meth:`close` or a fork."""
        return self._alone(self._ports)

    def precision_hints(self) -> dict[str, Any]:
        """Runtime settings that decide the precision it computes in, JSON-ready; may be empty."""
        return self._alone(self._precision_hints)

    def delegates(self) -> dict[str, Any] | None:
        """Which engine runs how many operators, JSON-ready; None if the runtime does not say."""
        return self._alone(self._delegates)

    def _alone(self, call: Callable[[], T]) -> T:
        """Result of ``call`` while no other thread computes or closes."""
        if self.inherited:
            raise forks.RunnerForkedError(
                f"{self.model} was opened before this process was forked, and would hang here:"
                f" {forks.ADVICE}"
            )
        with self._lock:
            if self._closed:
                raise RunnerClosedError(f"the runner of {self.model} is closed: open it again")
            interrupted, self._runs = self._runs, True
            try:
                return call()
            finally:
                self._runs = interrupted
                self._free_if_closed()

    def _free_if_closed(self) -> None:
        """Free the runtime once the runner is closed, but not inside a call.

        A call can only be running here if a signal handler interrupted it in this thread to close
        the runner; the runtime is then freed at the end of the call.
        """
        if self._closed and not self._runs and not self._freed:
            self._freed = True
            self._close()

    @abstractmethod
    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        """One checked image [1, H, W, 3] -> outputs; arrays are not reused by later calls."""

    def _ports(self) -> Ports | None:
        return None

    def _precision_hints(self) -> dict[str, Any]:
        return {}

    def _delegates(self) -> dict[str, Any] | None:
        return None

    @abstractmethod
    def _close(self) -> None:
        """Drop what the runtime holds; called once."""

    def _check(self, batch: NDArray[np.uint8]) -> None:
        if not isinstance(batch, np.ndarray) or batch.dtype != np.uint8:
            what = f"dtype {batch.dtype}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise ImageError(f"a batch must be a uint8 array [N, H, W, 3], got {what}")
        if batch.ndim != 4 or batch.shape[3] != 3 or batch.shape[0] == 0:
            raise ImageError(
                f"a batch must be [N, H, W, 3] with N of 1 or more, got {list(batch.shape)}"
            )
        height, width = batch.shape[1:3]
        if self.input_size is not None and (width, height) != self.input_size:
            raise ImageError(
                f"{self.model} is fixed at {self.input_size[0]}x{self.input_size[1]} px, got a"
                f" batch of {width}x{height}: letterbox the images first"
            )
        multiple = self.layout.multiple_px
        if width % multiple or height % multiple or 0 in (width, height):
            raise ImageError(
                f"width and height must be multiples of {multiple} px, got {width}x{height}"
            )
