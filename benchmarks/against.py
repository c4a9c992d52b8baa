"""``python -m benchmarks.against BUNDLE ... [--peer FILE.onnx]``: latency of exported files beside
PyTorch or a peer, in interleaved rounds.

Without --peer, the same network is run eagerly by PyTorch, to show what an export gains. All
Bundles must then be of one network; random weights do, as they do not change latency. PyTorch has
two rows: the network as trained, and with normalisations folded into the convolutions, as
:class:`edgeface.runners.torch.TorchRunner` runs it.

With --peer, the other side is a published .onnx network, converted to ncnn by pnnx: for devices
that have only ncnn. Inputs and outputs are handled as by our own runner. (For ONNX Runtime, use
`make bench`.)

One process runs everything; each round has one slice of each subject in shuffled order, and ratios
come with the same interval as in the other benchmarks.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Printed, environment, installed_runtimes
from benchmarks.peers import pinned
from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.cli.flags import Argument, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError, ExportError, OptionError, counted
from edgeface.files import scratch_folder
from edgeface.latency.photo import synthetic_photo
from edgeface.latency.statistics import Summary, ratio
from edgeface.runners import Runner, open_runner
from edgeface.runners.ncnn import extracting, feed, fetch, new_net
from edgeface.types import Doubles

EAGER = "torch, as trained"
PER_ROUND = 2
WARM_UP = 3
"""runs of each subject before the first round"""

Run = Callable[[], Any]


def torch_runs(bundle: Bundle, threads: int) -> dict[str, Run]:
    """Name -> one pass of PyTorch over one photo."""
    import torch

    from edgeface.models.detector import build_detector
    from edgeface.runners.torch import TorchRunner

    torch.set_num_threads(threads)
    network, photo = build_detector(bundle.manifest.architecture, seed=0).eval(), photo_of(bundle)
    image = torch.from_numpy(photo).permute(0, 3, 1, 2).float()

    def eager() -> None:
        with torch.inference_mode():
            network(image)

    return {EAGER: eager, "torch, folded": _pass(TorchRunner(network, threads), photo)}


def peer_run(path: Path, bundle: Bundle, threads: int) -> dict[str, Run]:
    """Name -> one pass in ncnn of a published .onnx over one photo, at the size of ``bundle``.
    Raises DataError, MissingExtraError."""
    from export.ncnn import run_pnnx

    size = bundle.manifest.input
    with (
        scratch_folder() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            source = Path(shutil.copy(path, folder / "peer.onnx"))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from None
        try:
            param, weights = run_pnnx(source, path.name, size.width, size.height)
        except ExportError:  # its advice is an option that this command lacks
            raise DataError(
                f"pnnx does not convert {path} for {size.width}x{size.height} px: give an .onnx"
                " with one image input that takes this size, or Bundles of its size"
            ) from None
        source.with_name("bin").write_bytes(weights)
        net = new_net(threads)
        if net.load_param_mem(param.decode("ascii")) or net.load_model(
            str(source.with_name("bin"))
        ):
            raise DataError(f"ncnn does not run {path}: give an .onnx with one image input")
    (name,), photo = net.input_names(), photo_of(bundle)

    def run() -> None:
        with extracting(net) as extractor:
            feed(extractor, name, photo)
            for output in net.output_names():
                fetch(extractor, output)

    return {f"{path.stem}, ncnn": run}


def photo_of(bundle: Bundle) -> NDArray[np.uint8]:
    """uint8 RGB [1, H, W, 3] of the size that ``bundle`` takes."""
    return synthetic_photo(bundle.manifest.input.width, bundle.manifest.input.height)[None]


def subjects(bundles: Sequence[Bundle], peer: Path | None, threads: int) -> dict[str, Run]:
    """Name -> one pass over one photo; the first is the reference of the ratios.

    Raises OptionError unless all are of one size and, without a peer, of one network.
    """
    first = bundles[0].manifest
    for manifest in (bundle.manifest for bundle in bundles):
        same = (manifest.input.width, manifest.input.height) == (
            first.input.width,
            first.input.height,
        )
        if not same or (peer is None and manifest.architecture != first.architecture):
            raise OptionError(
                f"{manifest.folder_name} is not of the network and size of {first.folder_name}:"
                " compare Bundles of one network and size, or with --peer of one size"
            )
    found = peer_run(peer, bundles[0], threads) if peer else torch_runs(bundles[0], threads)
    named = {bundle.path.name: bundle for bundle in bundles}
    if len(named) < len(bundles):  # folders of the same name, such as of two versions
        named = {str(bundle.path): bundle for bundle in bundles}
    found.update((name, _pass(open_runner(b, threads), photo_of(b))) for name, b in named.items())
    return found


def _pass(runner: Runner, photo: NDArray[np.uint8]) -> Run:
    return lambda: runner.run(photo)


def measure(
    runs: dict[str, Run], rounds: int, seed: int, terminal: Terminal
) -> dict[str, list[Doubles]]:
    """Name -> ms of each pass, one array per round."""
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    order, draw = list(runs), random.Random(seed)
    samples: dict[str, list[Doubles]] = {name: [] for name in runs}
    for done in range(rounds):
        terminal.tick("rounds", done, rounds)
        draw.shuffle(order)
        for name in order:
            runs[name]()  # not timed: clock and caches settle on this subject
            samples[name].append(np.array([_timed(runs[name]) for _ in range(PER_ROUND)]))
    return samples


def _timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def rows_of(samples: dict[str, list[Doubles]]) -> list[dict[str, Any]]:
    """One row per subject, with the ratio of its time to that of the first subject."""
    reference = next(iter(samples.values()))
    return [
        {
            "name": name,
            **Summary.of(np.concatenate(rounds)).to_json(),
            "ratio": ratio(rounds, reference).to_json(),
        }
        for name, rounds in samples.items()
    ]


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    bundles: Annotated[tuple[Path, ...], Argument("BUNDLE...")]
    """folders of exported Bundles"""
    peer: Path | None = None
    """published .onnx network to compare with, instead of PyTorch"""
    threads: int = 1
    """CPU threads"""
    rounds: int = 30
    """number of rounds, each with a slice of every subject"""
    seed: int = 0
    """seed for the order within rounds"""

    def __post_init__(self) -> None:
        if self.threads < 1 or self.rounds < 2:
            raise OptionError(
                f"--threads {self.threads} --rounds {self.rounds}: give 1 thread and 2 rounds or"
                " more"
            )


def report(
    samples: dict[str, list[Doubles]], width: int, height: int, threads: int
) -> tuple[dict[str, Any], str]:
    """(Figures as JSON, without the environment; figures as a table)."""
    rows = rows_of(samples)
    lines = [
        (
            r["name"],
            f"{r['median']:.2f}",
            f"{r['min']:.2f}",
            f"{r['p90']:.2f}",
            f"{r['ratio']['value']:.3f}",
            f"{r['ratio']['low']:.3f} to {r['ratio']['high']:.3f}",
            r["ratio"]["verdict"],
        )
        for r in rows
    ]
    heading = f"{width}x{height}, {counted(threads, 'thread')}"
    text = table((heading, "median ms", "min", "p90", "ratio", "95 %", "verdict"), lines)
    return {"width": width, "height": height, "threads": threads, "rows": rows}, text


def _run(o: Options) -> None:
    bundles = [Bundle.open(zoo.bundle_folder(path)) for path in o.bundles]
    size = bundles[0].manifest.input
    with Terminal(steps=True) as terminal, pinned(o.threads):
        samples = measure(subjects(bundles, o.peer, o.threads), o.rounds, o.seed, terminal)
    result, text = report(samples, size.width, size.height, o.threads)
    result["environment"] = environment("torch", *installed_runtimes())
    emit(result, text, o.format, o.save)


main = program_of(Options, "python -m benchmarks.against", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
