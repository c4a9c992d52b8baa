"""Ctrl-C in the first moments of a program, while it imports what it needs: no traceback."""

from __future__ import annotations

import sys
from types import TracebackType


def quiet_until_main() -> None:
    """Let ``python -m <module>`` end without a traceback where Ctrl-C comes before its ``main``
    does.

    Python then ends the process by the signal, which a shell sees as 130. Elsewhere nothing is
    changed.
    """
    if sys.argv[:1] == ["-m"]:
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
