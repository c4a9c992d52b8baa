"""edgeface: tiny face detectors, from photo to faces on any runtime.

    from edgeface import Detector

    for face in Detector.open("edgeface-n").detect("photo.jpg"):
        print(face.box, face.score)

- :class:`Detector` finds faces with a network or an exported Bundle; :class:`Detections` is what it
  returns, each :class:`Face` one of them.
- :class:`Bundle` is the folder of an exported file with its manifest; :func:`export` makes one, and
  :func:`quantize` an INT8 one of it, in a checkout of the project.
- :func:`align` cuts faces out, upright, for recognition; :func:`blur` makes them unrecognisable;
  :class:`Tracker` gives those of a video lasting numbers.
- :class:`EdgefaceError` is the root of every error that a user can cause; the others are in
  :mod:`edgeface.errors`.

Names are imported on first use, so ``import edgeface`` costs nothing and needs no runtime.
"""

from __future__ import annotations

import _thread
import sys
import time

_asked_to_stop = False
"""by a Ctrl-C that nothing has heeded, as far as is known"""
_main_began = False
_NOT_NOW = ("_frozen_importlib", "importlib._bootstrap", "torch.jit._trace")
"""Python that C++ calls which cannot hand on an exception: it would abort the process"""


def _quiet_until_main() -> None:
    """Let a command end in good order where Ctrl-C comes before its ``main`` does, or while it
    imports what it needs.

    Python then ends the process by the signal, which a shell sees as 130. Code that Python calls by
    itself, as after an import, cannot be ended, and libraries that load must not be: there the
    Ctrl-C comes once more. What a library took for an error of its own, ``stop_if_asked`` brings to
    light. Nothing is changed in a program that merely imports the library.
    """
    name = sys.argv[0].replace("\\", "/").rpartition("/")[2] if sys.argv else ""
    if name in ("-m", "edgeface", "edgeface.exe"):
        sys.excepthook = lambda kind, error, trace: (
            print("stopped", file=sys.stderr)
            if issubclass(kind, KeyboardInterrupt)
            else sys.__excepthook__(kind, error, trace)
        )
        sys.unraisablehook = lambda ignored: (
            _interrupt_again()
            if issubclass(ignored.exc_type, KeyboardInterrupt)
            else sys.__unraisablehook__(ignored)
        )
        import signal  # takes long enough for a Ctrl-C

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _asked_to_stop
    while frame is not None:
        if frame.f_globals.get("__name__") in _NOT_NOW:
            return _interrupt_again()
        frame = frame.f_back
    _asked_to_stop = not _main_began  # before it, what loads may take this for an error of its own
    raise KeyboardInterrupt


def stop_if_asked() -> None:
    """Where a program's ``main`` begins and where it ends: raise KeyboardInterrupt for a Ctrl-C
    that came before and was not heeded."""
    global _asked_to_stop, _main_began
    asked, _asked_to_stop, _main_began = _asked_to_stop, False, True
    if asked:
        raise KeyboardInterrupt


def _interrupt_again() -> None:
    global _asked_to_stop
    _asked_to_stop = True
    _thread.start_new_thread(_interrupt_soon, (_thread.get_ident(),))


def _interrupt_soon(thread: int) -> None:
    import signal

    time.sleep(0.01)  # until what runs there is over; if it is not, again
    if not _asked_to_stop:
        return
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, signal.SIGINT)
    else:  # Windows; what waits there goes on waiting
        _thread.interrupt_main()


_quiet_until_main()  # before anything that takes long

import importlib  # noqa: E402
import os  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from edgeface.deprecations import OldModules, old_name  # noqa: E402

if TYPE_CHECKING:
    from types import FrameType

    from edgeface.bundle import Bundle
    from edgeface.checkout import export, quantize
    from edgeface.detections import Detections, Face
    from edgeface.detector import Detector
    from edgeface.errors import EdgefaceError
    from edgeface.images import align, blur
    from edgeface.tracking import Tracker

# ONNX Runtime reports to its maker from the home folder of whoever imports it, unless this is there
# before. Here it comes before every import of ours, and processes that are started inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Detections",
    "Detector",
    "EdgefaceError",
    "Face",
    "Tracker",
    "__version__",
    "align",
    "blur",
    "export",
    "quantize",
]

_HOMES = {
    "Bundle": "edgeface.bundle",
    "Detections": "edgeface.detections",
    "Detector": "edgeface.detector",
    "EdgefaceError": "edgeface.errors",
    "Face": "edgeface.detections",
    "Tracker": "edgeface.tracking",
    "align": "edgeface.images",
    "blur": "edgeface.images",
    "export": "edgeface.checkout",
    "quantize": "edgeface.checkout",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            return old_name(name)
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


sys.meta_path.append(OldModules())
