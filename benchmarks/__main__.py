"""``python -m benchmarks``: the tables that need nothing but the checkout: postprocessing and
training speed.

Latency has a command of its own: ``python -m benchmarks.bench``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import postprocess, training_speed
from edgeface.cli.flags import program_of
from edgeface.cli.program import INTERRUPTED


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    out: Path = Path("dist")
    """folder whose bench/ gets the results"""


def _run(o: Options) -> int:
    """Returns the highest exit code of the parts; Ctrl-C in one of them ends all."""
    codes = []
    for name, part in (("postprocess", postprocess.main), ("training_speed", training_speed.main)):
        codes.append(part(["--save", str(o.out / "bench" / f"{name}.json")]))
        if codes[-1] == INTERRUPTED:
            break
        print()
    return max(codes)


main = program_of(Options, "python -m benchmarks", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
