"""One model in one process, timed on request.

Requests and answers are JSON, one per line, on standard input and output::

    {"do": "open", "bundle": ..., "threads": 1, "fast": false, "cores": [1], "photo": [1280, 960],
    "seed": 0}
    {"do": "run", "images": 10}       -> {"ok": {"stages": ..., "faces": 3, "moment": ..., ...}}
    {"do": "close"}                   -> {"ok": {}}

An answer is ``{"ok": ...}``, or ``{"error": "one line"}`` for an error that the user can fix. Every
request carries ``limit_s``, seconds after which the worker ends itself even if the runtime hangs.
It also ends as soon as its standard input does, so it never outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from edgeface.backends import OPENCV, get_backend, import_runtime
from edgeface.errors import EdgefaceError
from edgeface.latency.environment import Moment

if TYPE_CHECKING:
    from edgeface.backends import Backend
    from edgeface.detector import Detector
    from edgeface.images import Image

EXIT_ORPHAN = 3
STATUS = Path("/proc/self/status")
CLOCKS = ("wall_ms", "cpu_ms")


class Worker:
    """Answers requests; see the module docstring."""

    def __init__(self) -> None:
        self.detector: Detector | None = None
        self.photo: Image | None = None
        self.cores: tuple[int, ...] = ()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer to one request. Raises EdgefaceError for an error that the user can fix."""
        what = request.pop("do")
        if what == "open":
            return self.open(**request)
        if what == "run":
            return self.run(**request)
        assert what == "close", what
        if self.detector is not None:
            self.detector.close()
        return {}

    def open(
        self,
        bundle: str,
        threads: int,
        fast: bool,
        cores: list[int],
        photo: tuple[int, int],
        seed: int,
    ) -> dict[str, Any]:
        """Load a Bundle and make the photo; returns the model's facts for the record."""
        self._pin(cores)  # before a runtime is imported: its threads inherit the pinning
        start = time.perf_counter()
        backend = _import_all(bundle)
        imported = time.perf_counter()
        import cv2

        from edgeface.detector import Detector
        from edgeface.latency.photo import synthetic_photo

        cv2.setNumThreads(threads)  # resizing the photo uses as many threads as the network
        started = time.perf_counter()
        self.detector = Detector.open(Path(bundle), threads, fast=fast)
        loaded = time.perf_counter()
        self.photo = synthetic_photo(*photo, seed)
        width, height = self.detector.network_size(*photo)
        runner = self.detector.runner
        return {
            "runtime": runner.runtime,
            "width": width,
            "height": height,
            "cores": list(self.cores),
            "import_ms": round((imported - start) * 1e3, 4),
            "load_ms": round((loaded - started) * 1e3, 4),
            "runtimes": _versions(backend),
            "precision_hints": runner.precision_hints(),
            "delegates": runner.delegates(),
        }

    def run(self, images: int) -> dict[str, Any]:
        """Detect the faces in the photo ``images`` times, after one run that is not recorded."""
        assert self.detector is not None and self.photo is not None
        timed = [time_stages(self.detector, self.photo) for _ in range(images + 1)][1:]
        stages = {
            name: {
                clock: [round(sample[0][name][i], 4) for sample in timed]
                for i, clock in enumerate(CLOCKS)
            }
            for name in timed[0][0]
        }
        return {
            "stages": stages,
            "faces": timed[-1][1],
            "moment": Moment.read(self.cores).to_json(),
            "peak_memory_bytes": peak_memory_bytes(),
            "cpu_s": time.process_time(),
        }

    def _pin(self, cores: list[int]) -> None:
        if cores and hasattr(os, "sched_setaffinity"):
            # A container may forbid it; ``cores`` in the record is then empty.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, cores)
                self.cores = tuple(cores)


def time_stages(detector: Detector, photo: Image) -> tuple[dict[str, tuple[float, float]], int]:
    """Detect once: ({stage: (wall ms, process CPU ms)}, number of faces).

    ``end_to_end`` spans the other three stages of the same image. They are all that
    :meth:`Detector.detect` does, so timing it separately would take twice as long for the same
    result.
    """
    marks = [_now()]
    fitted = detector.preprocess(photo)
    marks.append(_now())
    heads = detector.runner.run(fitted.batch)
    marks.append(_now())
    faces = len(detector.postprocess(heads, fitted))
    marks.append(_now())
    return {
        "preprocess": _span(marks[0], marks[1]),
        "network": _span(marks[1], marks[2]),
        "postprocess": _span(marks[2], marks[3]),
        "end_to_end": _span(marks[0], marks[3]),
    }, faces


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _span(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    return (end[0] - start[0]) * 1e3, (end[1] - start[1]) * 1e3


def _import_all(bundle: str) -> Backend:
    """Import whatever a detection with this Bundle needs. Raises BundleError and
    MissingExtraError."""
    importlib.import_module("edgeface.detector")
    from edgeface.bundle import Bundle

    # verify=False: the runner checks the bytes it loads.
    backend = get_backend(Bundle.open(bundle, verify=False).manifest.target)
    module = sys.modules[backend.load_runner().__module__]
    # The module of a runner has load_runtime if importing the package is not enough.
    getattr(module, "load_runtime", lambda: import_runtime(backend))()
    return backend


def _versions(backend: Backend) -> dict[str, str]:
    """pip name -> version of the installed packages that a detection uses."""
    found = {}
    for name in (*backend.distributions, "numpy", *OPENCV):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def peak_memory_bytes() -> int | None:
    """Peak physical memory of this process; None if the system does not show it."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def serve(requests: Iterator[dict[str, Any]], out: TextIO) -> None:
    """Answer until ``close`` or the end of the requests."""
    worker = Worker()
    for request in requests:
        closing = request["do"] == "close"
        with _limited(request.pop("limit_s")):
            try:
                answer: dict[str, Any] = {"ok": worker.answer(request)}
            except (EdgefaceError, MemoryError) as error:
                answer = {"error": str(error) or "not enough memory"}
        out.write(json.dumps(answer) + "\n")
        out.flush()
        if closing:
            return


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    # This uses a thread that needs no GIL: it works even if a runtime hangs while holding the GIL.
    faulthandler.dump_traceback_later(max(1.0, seconds), exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _requests() -> Iterator[dict[str, Any]]:
    """Requests from standard input.

    A thread reads them and ends the process when its parent is gone, whatever else is running.
    """
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        # Not sys.stdin: a thread waiting in a buffered reader can crash the interpreter at exit.
        for line in io.FileIO(0, closefd=False):
            lines.put(line)
        os._exit(EXIT_ORPHAN)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())


def main() -> None:
    """Serve standard input."""
    # The answers get their own descriptor: whatever a runtime prints goes to standard error.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(_requests(), out)
    except BrokenPipeError:
        os._exit(EXIT_ORPHAN)


if __name__ == "__main__":
    main()
