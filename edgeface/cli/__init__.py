"""The ``edgeface`` command. Results go to stdout as a table or as JSON, everything else to stderr.

    app        the verbs by task; a verb's module is imported when it is called
    program    runs a command and gives every ending its exit code
    flags      options that several commands share; a dataclass as options
    output     tables and JSON; text from outside made printable
    terminal   progress and notes, on stderr

Every other module is one verb. Heavy imports happen inside its function, so that a device needs
only the packages that it uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from edgeface.errors import NO_MEMORY, MissingExtraError, is_interrupt, is_no_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; arguments: default those of the process."""
    # Set before NumPy is imported: OpenBLAS waits for ever for a thread that a limit of memory or
    # processes denies it, and its results depend on the number of threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from edgeface.cli.app import app
        from edgeface.cli.program import run
    except KeyboardInterrupt:
        return 130
    except (ImportError, MemoryError, OSError) as error:
        if is_interrupt(error):
            return 130
        if is_no_memory(error):
            print(f"error: {NO_MEMORY}", file=sys.stderr)
            return 2
        # only typer may be missing: on a device that embeds the library
        if (getattr(error, "name", None) or "").partition(".")[0] != "typer":
            raise
        print(f"error: {MissingExtraError('typer', 'cli', 'the command line')}", file=sys.stderr)
        return 2
    return run(app, "edgeface", arguments)
