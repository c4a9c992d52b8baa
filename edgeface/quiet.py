"""What runtimes and converters say while they work is kept from the user: our own one line tells
what matters."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from edgeface.errors import EdgefaceError, ExportError, is_no_memory

_LOCK = threading.RLock()
"""file descriptors belong to the whole process: two threads that load must put them back in turn"""


@contextlib.contextmanager
def quiet(everything: bool = False) -> Iterator[None]:
    """Lead file descriptor 2 nowhere while the block runs; ``everything``: stdout, from Python too,
    and warnings.

    What other threads write meanwhile is lost, so hold it for a load and for nothing longer. Blocks
    may be nested. A process without stderr runs the block as it is.
    """
    with _LOCK, contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr))[not everything :]:
            with contextlib.suppress(
                OSError, AttributeError, ValueError
            ):  # closed or absent: nothing is said on it
                stream.flush()
                saved = os.dup(descriptor)
                stack.callback(os.close, saved)
                os.dup2(nowhere.fileno(), descriptor)
                stack.callback(os.dup2, saved, descriptor)
        if everything:
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def quiet_stage(stage: str, verbose: bool = False) -> Iterator[None]:
    """Run a block of a converter's with all that it says turned away.

    A failure inside becomes one ExportError line that names ``stage``; with ``verbose`` nothing is
    turned away and the converter's own traceback follows. Errors that are ours pass through, and
    one that says that memory ran out, whatever its kind, is a MemoryError.
    """
    try:
        with contextlib.nullcontext() if verbose else quiet(everything=True):
            yield
    except (EdgefaceError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        if verbose:
            raise
        if is_no_memory(error):
            raise MemoryError(str(error)) from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(
            f"{stage} failed: {reason} (run again with --verbose for the converter's log)"
        ) from error


@contextlib.contextmanager
def unreported(sender: str = "openvino_telemetry") -> Iterator[None]:
    """Hide the package ``sender`` from what is imported in the block.

    OpenVINO and NNCF report over the network as soon as they are imported, and leave a file in the
    home folder, where that package is installed. Without it they do without.
    """
    with _LOCK:
        present = {sender: sys.modules[sender]} if sender in sys.modules else {}
        sys.modules[sender] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[sender]
            sys.modules.update(present)
