"""edgeface: tiny face detectors, from photo to faces on any runtime.

    from edgeface import Detector

    for face in Detector.open("edgeface-n").detect("photo.jpg"):
        print(face.box, face.score)

- :class:`Detector` finds faces with a network or an exported Bundle; :class:`Detections` is what it
  returns, each :class:`Face` one of them.
- :class:`Bundle` is the folder of an exported file with its manifest. In a checkout of the project,
  :func:`export` makes one, and :func:`quantize` makes an INT8 Bundle from it.
- :func:`align` cuts faces out, upright, for recognition; :func:`blur` makes them unrecognisable;
  :class:`Tracker` numbers the faces of a video, the same from frame to frame.
- :class:`EdgefaceError` is the root of every error that a user can cause; the others are in
  :mod:`edgeface.errors`, those of a closed or forked Detector in :mod:`edgeface.runners`.

Names are imported on first use, so ``import edgeface`` costs nothing and needs no runtime.
"""

from __future__ import annotations

import _thread
import sys
import time

_asked_to_stop = False
"""True after a Ctrl-C that, as far as is known, has not stopped anything yet"""
_main_began = False
_NOT_NOW = ("_frozen_importlib", "importlib._bootstrap", "torch.jit._trace")
"""Python modules called by C++ code that cannot pass on an exception and would abort the process"""


def _quiet_until_main() -> None:
    """Let a command end in good order on a Ctrl-C before its ``main`` or during its imports.

    Python then ends the process by the signal, which a shell sees as 130. A KeyboardInterrupt
    cannot end code that Python calls by itself, as after an import, and must not be raised while a
    library loads: there the Ctrl-C is sent again a little later. If a library takes it for an error
    of its own, ``stop_if_asked`` raises it again. A program that merely imports edgeface is not
    changed.
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
    _asked_to_stop = not _main_began  # before main, a library that loads may swallow the exception
    raise KeyboardInterrupt


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if an earlier Ctrl-C stopped nothing.

    To be called where a program's ``main`` begins and where it ends."""
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

    time.sleep(0.01)  # lets the code there finish; if it has not, the handler comes back here
    if not _asked_to_stop:
        return
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, signal.SIGINT)
    else:  # Windows; does not interrupt a blocking call
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

# ONNX Runtime reports to its maker, from the user's home folder, unless this is set before its
# import. Set here, it precedes all imports of the package, and child processes inherit it.
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
