"""Converters talk a lot, from Python and from C++. What they say is kept aside and shown only when it matters."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from edgeface.errors import EdgefaceError, ExportError


@contextlib.contextmanager
def quiet(stage: str, verbose: bool = False) -> Iterator[None]:
    """Run a block with stdout and stderr of this process, C++ included, turned away.

    A failure inside becomes one ExportError line that names ``stage``; with ``verbose`` nothing is turned away and the
    converter's own traceback follows. Errors that are ours pass through.
    """
    try:
        with contextlib.nullcontext() if verbose else _silenced():
            yield
    except (EdgefaceError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        if verbose:
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(f"{stage} failed: {reason} (run again with --verbose for the converter's log)") from error


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """File descriptors 1 and 2 lead to a scratch file, and so do ``sys.stdout`` and ``sys.stderr``."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log, contextlib.ExitStack() as stack:
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
            os.dup2(log.fileno(), descriptor)
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield
