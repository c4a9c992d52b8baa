"""Runner: one input, the same names and the same meaning on every backend."""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Ports
from edgeface.decode import HeadLayout
from edgeface.errors import EdgefaceError, ImageError, OptionError
from edgeface.options import MAX_THREADS, check_count
from edgeface.runners import forks
from edgeface.types import Closing

Heads = dict[str, NDArray[np.float32]]


class RunnerClosedError(EdgefaceError):
    """A runner or detector that is used after ``close()``."""


class Runner(Closing):
    """A loaded model: uint8 RGB in, raw head outputs out.

    Thread-safe: calls wait for each other, and closing waits for the call that runs (from a signal
    handler it takes place behind the call that it interrupts); threads that
    should compute side by side need a runner each. A forked process cannot use those of its parent.
    Close it, or use it in a ``with`` block, to free the runtime's memory. Subclasses supply
    :meth:`_run_one` and :meth:`_close`; everything about the input is checked here, so that it is
    the same everywhere.
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
        """False: the weights are random, and so is what is found"""
        self._closed = self._runs = self._freed = False
        self._lock = threading.RLock()  # reentrant: a signal handler may close what it interrupts
        forks.opening(self)

    @property
    def dynamic(self) -> bool:
        """True: takes any width and height that are multiples of ``layout.multiple_px``."""
        return self.input_size is None

    def run(self, batch: NDArray[np.uint8]) -> Heads:
        """uint8 RGB [N, H, W, 3], raw 0-255 -> float32 ``cls_s`` [N, H/s, W/s, A], ``box_s`` [N,
        H/s, W/s, 4A].

        And ``kps_s`` [N, H/s, W/s, 10A] of a network with landmarks. Raises ImageError when the
        batch is not of that type and size, RunnerClosedError after :meth:`close`, RunnerForkedError
        in a forked process. The arrays returned are the caller's to keep.
        """
        self._check(batch)
        parts = [self._run_alone(batch[i : i + 1]) for i in range(len(batch))]
        if len(parts) == 1:
            return parts[0]
        return {
            name: np.concatenate([part[name] for part in parts])
            for name in self.layout.output_names
        }

    def close(self) -> None:
        """Free the runtime. Calling it again does nothing."""
        if self.inherited:  # the lock, too, may be held by a thread that is not here
            self._closed = True
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._free_if_closed()

    def __reduce__(self) -> NoReturn:
        """Raise OptionError: what a runtime holds cannot be sent or copied."""
        raise OptionError(
            f"{self.model} is open in this process and cannot be copied or sent to another one:"
            " open a Detector in each, as in the initializer of a pool"
        )

    def ports(self) -> Ports | None:
        """Where the open file has its tensors; None: it is no file."""
        return None

    def precision_hints(self) -> dict[str, Any]:
        """JSON-ready: settings of the runtime that decide what it computes in; empty where it has
        none."""
        return {}

    def delegates(self) -> dict[str, Any] | None:
        """JSON-ready: which engine runs how many operators, as far as the runtime tells; None if it
        does not."""
        return None

    def _run_alone(self, batch: NDArray[np.uint8]) -> Heads:
        """One checked image while no other thread computes or closes."""
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
                return self._run_one(batch)
            finally:
                self._runs = interrupted
                self._free_if_closed()

    def _free_if_closed(self) -> None:
        """Not below a run, of this thread then, which a signal handler that closes interrupted."""
        if self._closed and not self._runs and not self._freed:
            self._freed = True
            self._close()

    @abstractmethod
    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        """One checked image [1, H, W, 3] -> outputs; arrays are not reused by later calls."""

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
