"""Ctrl-C in the first moments of a program, while it imports what it needs: no traceback."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself takes a while to import
    from types import TracebackType


def quiet_until_main() -> None:
    """Let a command end without a traceback where Ctrl-C comes before its ``main`` does.

    Python then ends the process by the signal, which a shell sees as 130. Nothing is changed in a
    program that merely imports the library.
    """
    name = sys.argv[0].replace("\\", "/").rpartition("/")[2] if sys.argv else ""
    if name in ("-m", "edgeface", "edgeface.exe"):
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
