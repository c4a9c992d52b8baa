"""``python -m benchmarks.latency MODEL...``: network time of ONNX files side by side, one process, one thread.

Each argument is a Bundle folder or an .onnx file; with --peers, every peer model of that folder at the same size too.
The models take turns in shuffled slices of ten runs, so that a busy moment of the machine falls on all alike. CPU time
of the process is what is compared: it does not count what other programs took. Under 10 % difference is a tie.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import emit, environment, table
from edgeface.bundle import Bundle
from edgeface.errors import BundleError, EdgefaceError
from edgeface.options import parse_size

SLICE = 10


def open_session(path: Path, threads: int) -> Any:
    """Open a model file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"{path} is not a model that ONNX Runtime opens ({type(error).__name__})") from None


def model_file(text: str) -> tuple[str, Path]:
    """(name, file) of a Bundle folder or an .onnx file."""
    path = Path(text)
    if path.is_dir():
        bundle = Bundle.open(path)
        return path.name, path / bundle.manifest.primary
    return path.stem, path


def measure(files: dict[str, Path], width: int, height: int, rounds: int, threads: int,
            seed: int) -> dict[str, dict[str, float]]:
    """Network ms per model: CPU and wall time, interleaved."""
    sessions = {name: open_session(path, threads) for name, path in files.items()}
    image = np.random.default_rng(seed).integers(0, 256, (1, 3, height, width)).astype(np.float32)
    feeds = {name: {s.get_inputs()[0].name: image} for name, s in sessions.items()}
    cpu: dict[str, list[float]] = {name: [] for name in sessions}
    wall: dict[str, list[float]] = {name: [] for name in sessions}
    order = random.Random(seed)
    for current in range(-1, rounds):  # one round of warm-up
        for name in order.sample(list(sessions), len(sessions)):
            for _ in range(SLICE):
                start, start_cpu = time.perf_counter(), time.process_time()
                sessions[name].run(None, feeds[name])
                if current >= 0:
                    wall[name].append((time.perf_counter() - start) * 1e3)
                    cpu[name].append((time.process_time() - start_cpu) * 1e3)
    return {name: {"cpu_median_ms": float(np.median(cpu[name])), "cpu_min_ms": min(cpu[name]),
                   "wall_median_ms": float(np.median(wall[name])), "wall_min_ms": min(wall[name]),
                   "wall_p90_ms": float(np.percentile(wall[name], 90))} for name in sessions}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("models", nargs="+", help="Bundle folders or .onnx files")
    parser.add_argument("--peers", type=Path, help="folder of peer models named <name>_<size>.onnx")
    parser.add_argument("--reference", help="name that the ratios refer to; default: YuNet_n, or the first model")
    parser.add_argument("--size", default="640x480", help="input WIDTHxHEIGHT in px")
    parser.add_argument("--rounds", type=int, default=10, help="slices of ten runs per model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--save", type=Path, help="also write the JSON to this file")
    o = parser.parse_args(arguments)
    try:
        width, height = parse_size(o.size)
        files = dict(model_file(text) for text in o.models)
        peers = sorted(o.peers.glob(f"*_{o.size}.onnx")) if o.peers else []
        reference = o.reference or (next((p.stem for p in peers if "yunet_n" in p.stem), None) or next(iter(files)))
        files |= {p.stem: p for p in peers}
        if reference not in files:
            raise BundleError(f"--reference {reference!r} is not among: {', '.join(files)}")
        figures = measure(files, width, height, o.rounds, o.threads, o.seed)
    except EdgefaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [{"model": name, **f, "ratio": f["cpu_median_ms"] / figures[reference]["cpu_median_ms"]}
            for name, f in sorted(figures.items(), key=lambda item: item[1]["cpu_median_ms"])]
    columns = ("model", "cpu_median_ms", "cpu_min_ms", "wall_median_ms", "wall_p90_ms", "ratio")
    text = table(columns, [[r["model"], *(f"{r[c]:.2f}" for c in columns[1:])] for r in rows])
    result = {"size": o.size, "threads": o.threads, "rounds": o.rounds, "reference": reference, "rows": rows,
              "environment": environment("onnxruntime")}
    emit(result, f"ONNX Runtime, {o.size}, {o.threads} thread(s), ratio to {reference} (CPU median)\n{text}",
         o.format, o.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
