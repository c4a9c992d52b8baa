"""``python -m benchmarks``: the tables that need nothing but the checkout: postprocessing and training speed.

Latency has a command of its own: ``python -m benchmarks.bench``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import postprocess, training_speed


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the highest exit code of the parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder whose bench/ gets the results")
    o = parser.parse_args(arguments)
    codes = []
    for command in (postprocess.main, training_speed.main):
        name = command.__module__.rpartition(".")[2]
        codes.append(command(["--save", str(o.out / "bench" / f"{name}.json")]))
        print()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
