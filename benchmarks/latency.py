"""``python -m benchmarks.latency MODEL...``: network time side by side, one process, one thread.

Each argument is a Bundle folder of any target; with --peers, every peer .onnx of that folder at the same size too, run
by ONNX Runtime. The models take turns in shuffled order, so that a busy moment of the machine falls on all alike. A run
is uint8 image to float32 outputs. CPU time of the process is what is compared: it does not count what other programs
took. Under 10 % difference is a tie.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.common import emit, environment, installed_runtimes, table
from edgeface.bundle import Bundle
from edgeface.errors import BundleError, EdgefaceError
from edgeface.latency.interleaved import interleave
from edgeface.options import parse_size
from edgeface.runners import open_runner
from edgeface.runners.files import to_tensor

PER_ROUND = 10


def bundle_call(path: Path, size: tuple[int, int], threads: int, seed: int) -> Callable[[], object]:
    """One run of a Bundle at ``size`` (width, height)."""
    runner = open_runner(Bundle.open(path), threads)
    if runner.input_size not in (None, size):
        raise BundleError(f"{path} is not of {size[0]}x{size[1]} px: choose another --size, or export it again")
    batch = _noise(size, seed)
    return lambda: runner.run(batch)


def peer_call(path: Path, size: tuple[int, int], threads: int, seed: int) -> Callable[[], object]:
    """One run of a foreign .onnx file that takes float32 NCHW of ``size``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"{path} is not a model that ONNX Runtime opens ({type(error).__name__})") from None
    name, batch = session.get_inputs()[0].name, _noise(size, seed)
    return lambda: session.run(None, {name: to_tensor(batch, "NCHW")})


def _noise(size: tuple[int, int], seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (1, size[1], size[0], 3), dtype=np.uint8)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, help="Bundle folders")
    parser.add_argument("--peers", type=Path, help="folder of peer models named <name>_<size>.onnx")
    parser.add_argument("--reference", help="name that the ratios refer to; default: YuNet_n, or the first model")
    parser.add_argument("--size", default="640x480", help="input WIDTHxHEIGHT in px")
    parser.add_argument("--rounds", type=int, default=10, help="stretches of ten runs per model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--save", type=Path, help="also write the JSON to this file")
    o = parser.parse_args(arguments)
    try:
        size = parse_size(o.size)
        peers = sorted(o.peers.glob(f"*_{o.size}.onnx")) if o.peers else []
        calls = {path.name: bundle_call(path, size, o.threads, o.seed) for path in o.models}
        calls |= {path.stem: peer_call(path, size, o.threads, o.seed) for path in peers}
        reference = o.reference or next((name for name in calls if "yunet_n" in name), next(iter(calls)))
        if reference not in calls:
            raise BundleError(f"--reference {reference!r} is not among: {', '.join(calls)}")
        timings = interleave(calls, o.rounds, PER_ROUND, o.seed)
    except EdgefaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [{"model": name, **t.to_json(), "ratio": t.cpu_median_ms / timings[reference].cpu_median_ms}
            for name, t in sorted(timings.items(), key=lambda item: item[1].cpu_median_ms)]
    columns = ("model", "cpu_median_ms", "cpu_min_ms", "wall_median_ms", "wall_p90_ms", "ratio")
    text = table(columns, [[r["model"], *(f"{r[c]:.2f}" for c in columns[1:])] for r in rows])
    result = {"size": o.size, "threads": o.threads, "rounds": o.rounds, "reference": reference, "rows": rows,
              "environment": environment(*installed_runtimes())}
    emit(result, f"{o.size}, {o.threads} thread(s), ratio to {reference} (CPU median)\n{text}",
         o.format, o.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
