"""``python -m benchmarks``: the tables that need nothing but the checkout, one after the other.

Postprocessing, training speed, and the latency of the shipped model beside itself, or beside the peers of --peers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import latency, postprocess, training_speed

MODEL, SIZE = "edgeface-n", "640x480"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the highest exit code of the parts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder of Bundles and results")
    parser.add_argument("--peers", type=Path, help="folder of peer ONNX models, for latency side by side")
    o = parser.parse_args(arguments)
    bundle = o.out / f"{MODEL}-onnx-fp32-{SIZE}"
    if not bundle.is_dir():
        subprocess.run([sys.executable, "-m", "export", "--target", "onnx", "--size", SIZE, "--out", str(o.out)],
                       check=True)
    results = o.out / "bench"
    peers = ["--peers", str(o.peers)] if o.peers and o.peers.is_dir() else []
    codes = []
    for command, flags in ((postprocess.main, []), (latency.main, [str(bundle), *peers]), (training_speed.main, [])):
        name = command.__module__.rpartition(".")[2]
        codes.append(command([*flags, "--save", str(results / f"{name}.json")]))
        print()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
