"""What a runtime's C++ side says while it loads is kept from the user: our own one line tells what matters."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_LOCK = threading.RLock()
"""file descriptor 2 belongs to the whole process: two threads that load must put it back in turn"""


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Lead file descriptor 2 nowhere while the block runs.

    What other threads write to stderr meanwhile is lost, so hold it for a load and for nothing longer. Blocks may be
    nested. A process without stderr runs the block as it is.
    """
    with _LOCK, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, AttributeError, ValueError):  # closed or absent: nothing can be said on it
            sys.stderr.flush()
            saved = os.dup(2)
            stack.callback(os.close, saved)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
            stack.callback(os.dup2, saved, 2)
        yield


@contextlib.contextmanager
def unreported(sender: str = "openvino_telemetry") -> Iterator[None]:
    """Hide the package ``sender`` from what is imported in the block.

    OpenVINO and NNCF report over the network as soon as they are imported, and leave a file in the home folder, where
    that package is installed. Without it they do without.
    """
    with _LOCK:
        present = {sender: sys.modules[sender]} if sender in sys.modules else {}
        sys.modules[sender] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[sender]
            sys.modules.update(present)
