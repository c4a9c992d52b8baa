"""``python -m benchmarks.eager BUNDLE ...``: exported files beside the same network run by PyTorch, eagerly.

For whoever asks what an export is worth. All Bundles are of one network; its parameters do not change its latency, so
that random ones do. One process runs everything, a round has one slice of each in shuffled order, and ratios come with
the interval of every other benchmark. Two rows are PyTorch's: the network as it is trained, and with normalisations
folded into the convolutions, as :class:`edgeface.runners.torch.TorchRunner` runs it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import emit, environment, exit_code, installed_runtimes, table
from edgeface.bundle import Bundle
from edgeface.errors import OptionError
from edgeface.latency.photo import synthetic_photo
from edgeface.latency.statistics import Summary, ratio
from edgeface.runners import open_runner
from edgeface.runners.torch import TorchRunner
from export.terminal import Terminal

EAGER = "torch, as trained"
PER_ROUND = 2
WARM_UP = 3
"""runs of each before the first round"""

Run = Callable[[], Any]
Floats = NDArray[np.float64]


def subjects(bundles: Sequence[Bundle], threads: int) -> dict[str, Run]:
    """Name -> one pass over one photo. Raises OptionError unless all are of one network and size."""
    import torch

    from edgeface.models.detector import build_detector

    first = bundles[0].manifest
    network = build_detector(first.architecture, seed=0).eval()
    photo = synthetic_photo(first.input.width, first.input.height)[None]
    image = torch.from_numpy(photo).permute(0, 3, 1, 2).float()

    def eager() -> None:
        with torch.inference_mode():
            network(image)

    found: dict[str, Run] = {EAGER: eager, "torch, folded": _pass(TorchRunner(network, threads), photo)}
    for bundle in bundles:
        manifest = bundle.manifest
        if (manifest.architecture, manifest.input.width, manifest.input.height) != (
                first.architecture, first.input.width, first.input.height):
            raise OptionError(f"{bundle.path.name} is not of the network and size of {bundles[0].path.name}: compare "
                              "Bundles of one network")
        found[f"{manifest.target} {manifest.precision}"] = _pass(open_runner(bundle, threads), photo)
    return found


def _pass(runner: Any, photo: NDArray[np.uint8]) -> Run:
    return lambda: runner.run(photo)


def measure(runs: dict[str, Run], rounds: int, seed: int, terminal: Terminal) -> dict[str, list[Floats]]:
    """Name -> ms of each pass, one array a round."""
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    order, draw = list(runs), random.Random(seed)
    samples: dict[str, list[Floats]] = {name: [] for name in runs}
    for done in range(rounds):
        terminal.tick("rounds", done, rounds)
        draw.shuffle(order)
        for name in order:
            runs[name]()  # brings clock and caches back to this one
            samples[name].append(np.array([_timed(runs[name]) for _ in range(PER_ROUND)]))
    return samples


def _timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def rows_of(samples: dict[str, list[Floats]]) -> list[dict[str, Any]]:
    """One for each subject, with PyTorch's time over its own."""
    return [{"name": name, **Summary.of(np.concatenate(rounds)).to_json(),
             "speedup": ratio(samples[EAGER], rounds).to_json()} for name, rounds in samples.items()]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eager", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folders of exported Bundles")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0, help="of the order in each round")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--save", type=Path, help="keep the JSON in this file, too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    o = parse(arguments)
    return exit_code(lambda: _run(o), "measured")


def _run(o: argparse.Namespace) -> int:
    import torch

    if o.threads < 1 or o.rounds < 2:
        raise OptionError(f"--threads {o.threads} --rounds {o.rounds}: give 1 thread and 2 rounds or more")
    torch.set_num_threads(o.threads)
    bundles = [Bundle.open(path) for path in o.bundles]
    with Terminal() as terminal:
        rows = rows_of(measure(subjects(bundles, o.threads), o.rounds, o.seed, terminal))
    manifest = bundles[0].manifest
    result = {"model": manifest.model, "width": manifest.input.width, "height": manifest.input.height,
              "threads": o.threads, "rows": rows, "environment": environment("torch", *installed_runtimes())}
    lines = [(r["name"], f"{r['median']:.1f}", f"{r['min']:.1f}", f"{r['p90']:.1f}", f"{r['speedup']['value']:.2f}x",
              f"{r['speedup']['low']:.2f}-{r['speedup']['high']:.2f}") for r in rows]
    title = f"{manifest.model}, {manifest.input.width}x{manifest.input.height}, {o.threads} thread(s)"
    emit(result, f"{title}\n" + table(("", "median ms", "min", "p90", f"against {EAGER}", "95 %"), lines), o.format,
         o.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
