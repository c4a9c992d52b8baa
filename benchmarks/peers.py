"""Published .onnx models timed beside one of ours: they have no manifest, so the protocol's workers
cannot open them.

All models run in this process and take turns, slice by slice, on the same pinned cores with the
same ONNX Runtime settings; the protocol's rules decide whether a timing is valid. Only the network
is timed, on noise. Quote only the ratios: the times are not measured as the protocol demands.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import PeerTiming
from edgeface.backends import get_backend, import_runtime
from edgeface.bundle import Bundle
from edgeface.errors import BundleError
from edgeface.latency import cores
from edgeface.latency.environment import Machine, Moment, other_load
from edgeface.latency.measurement import Environment, Relative, Stage, invalid_reasons, relative
from edgeface.latency.protocol import Protocol
from edgeface.latency.statistics import ratio
from edgeface.runners.files import to_tensor
from edgeface.runners.onnxruntime import session_options
from edgeface.types import Progress

Size = tuple[int, int]


def peers_of(folder: Path, sizes: Sequence[Size]) -> tuple[dict[Size, list[Path]], list[str]]:
    """({size: its files}, names of the other files), by the size at the end of a file's name."""
    found: dict[Size, list[Path]] = {size: [] for size in sizes}
    others = []
    for path in sorted(folder.glob("*.onnx")):
        size = next((s for s in sizes if path.stem.endswith(f"_{s[0]}x{s[1]}")), None)
        if size:
            found[size].append(path)
        else:
            others.append(path.name)
    return found, others


def time_peers(
    ours: Bundle, peers: Sequence[Path], threads: int, protocol: Protocol, progress: Progress
) -> list[PeerTiming]:
    """Time ``peers``, files that take float32 NCHW of the size of ``ours``, and ``ours``, which is
    the reference.

    Raises BundleError for a file that ONNX Runtime does not run.
    """
    size = (ours.manifest.input.width, ours.manifest.input.height)
    files = {ours.path.name: ours.read(), **{path.stem: path.read_bytes() for path in peers}}
    ort = import_runtime(get_backend("onnx"))
    with pinned(threads) as pins:
        calls = {
            name: _call(ort, name, content, size, threads, protocol.seed)
            for name, content in files.items()
        }
        samples, moments, load = _rounds(calls, protocol, pins, progress)
    environment = _environment(moments, load, ort.__version__, pins)
    own = samples[ours.path.name].rounds()
    timings = []
    for name, stage in samples.items():
        if name == ours.path.name:
            against = Relative(name, threads, 1.0, 1.0, 1.0, "reference")
        else:
            against = relative(ratio(stage.rounds(), own, protocol.seed), ours.path.name, threads)
        reasons = invalid_reasons(protocol, environment, {"network": stage}, threads)
        timings.append(
            PeerTiming(
                name,
                hashlib.sha256(files[name]).hexdigest(),
                *size,
                threads,
                f"onnxruntime {ort.__version__}",
                stage.summary(),
                stage.summary("cpu"),
                against,
                protocol,
                environment,
                not reasons,
                reasons,
            )
        )
    return timings


def _environment(
    moments: Sequence[Moment], load: float | None, version: str, pins: tuple[int, ...]
) -> Environment:
    return Environment(
        Machine.read(),
        moments[0],
        tuple(moments[1:-1]),
        moments[-1],
        load,
        {"onnxruntime": version, "numpy": np.__version__},
        pins,
        {},
        None,
    )


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Pin this thread, and those it starts, to the cores that a worker of ``threads`` threads would
    get; yields the cores."""
    before, chosen = cores.allowed(), cores.pick(threads)
    if not chosen:
        yield ()
        return
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)


def _call(
    ort: Any, name: str, content: bytes, size: Size, threads: int, seed: int
) -> Callable[[], object]:
    """A call that runs the file once, uint8 image to float32 outputs; it has run once already."""
    image = np.random.default_rng(seed).integers(0, 256, (1, size[1], size[0], 3), dtype=np.uint8)
    try:
        session = ort.InferenceSession(
            content, session_options(ort, threads), providers=["CPUExecutionProvider"]
        )
        (only,) = session.get_inputs()
        run = partial(_run, session, only.name, image)
        run()
    except Exception as error:  # its exceptions share no narrower base class
        raise BundleError(
            f"{name}.onnx is not a model that ONNX Runtime runs on one float image of "
            f"{size[0]}x{size[1]} px ({type(error).__name__})"
        ) from None
    return run


def _run(session: Any, name: str, image: Any) -> None:
    session.run(None, {name: to_tensor(image, "NCHW")})


def _rounds(
    calls: dict[str, Callable[[], object]],
    protocol: Protocol,
    pins: tuple[int, ...],
    progress: Progress,
) -> tuple[dict[str, Stage], list[Moment], float | None]:
    """(samples of each call, moments before, after each round and after all, cores kept busy by
    others)."""
    random = np.random.default_rng(protocol.seed)
    wall: dict[str, list[tuple[float, ...]]] = {name: [] for name in calls}
    cpu: dict[str, list[tuple[float, ...]]] = {name: [] for name in calls}
    for call in calls.values():
        _slice(call, protocol.per_round)
    moments, start, used = [Moment.read(pins)], time.perf_counter(), time.process_time()
    for number in range(protocol.rounds):
        for pick in random.permutation(len(calls)):
            name = list(calls)[pick]
            times = _slice(calls[name], protocol.per_round)
            wall[name].append(tuple(t[0] for t in times))
            cpu[name].append(tuple(t[1] for t in times))
        moments.append(Moment.read(pins))
        progress("timing peers", number + 1, protocol.rounds)
    load = other_load(
        moments[0], moments[-1], time.process_time() - used, time.perf_counter() - start
    )
    return (
        {name: Stage(tuple(wall[name]), tuple(cpu[name])) for name in calls},
        [*moments, Moment.read(pins)],
        load,
    )


def _slice(call: Callable[[], object], images: int) -> list[tuple[float, float]]:
    """(wall ms, CPU ms) of each run, after one that does not count."""
    call()
    times = []
    for _ in range(images):
        start, used = time.perf_counter(), time.process_time()
        call()
        times.append(
            (
                round((time.perf_counter() - start) * 1e3, 4),
                round((time.process_time() - used) * 1e3, 4),
            )
        )
    return times
