"""``python -m benchmarks.bench``: our model on every runtime, and peer models, on this machine or a
device.

Every target is measured in fp32 and int8, at each size and number of threads, with the latency
protocol; records go to latency.json and a report to report.html, in OUT/bench for this machine and
in OUT/bench/DEVICE for another. Existing Bundles in OUT are used if they hold the shipped weights.
INT8 files are made within the accuracy budget if --data is given, else from the photos of
--calibration, else left out. Results are saved after every step: a stopped run resumes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from benchmarks.common import MAX_DROP
from benchmarks.peers import Size, peers_of, time_peers
from benchmarks.report import write_report
from benchmarks.results import CONTEXT, LATENCY, REPORT, Results, find_accuracy
from edgeface import zoo
from edgeface.backends import BACKENDS, combinations
from edgeface.bundle import Bundle
from edgeface.cli.flags import DEFAULT_MODEL, RESUMES, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.errors import BundleError, EdgefaceError, ModelError, OptionError
from edgeface.files import read_file
from edgeface.latency.devices import Device, open_device
from edgeface.latency.protocol import LOCAL, Job, Protocol
from edgeface.options import Range, check_choice, parse_size
from edgeface.types import Progress

PRECISIONS = ("fp32", "int8")
MULTIPLE_PX = 32


@dataclass(frozen=True, kw_only=True)
class Options(Protocol):
    """Options of the command line, including those of the protocol."""

    model: str = DEFAULT_MODEL
    """network with weights, or a .safetensors file"""
    out: Path = Path("dist")
    """folder of Bundles and results"""
    device: str = LOCAL
    """local, ssh://[user@]host[:port] or adb://serial"""
    sizes: tuple[str, ...] = ("640x480", "320x240")
    """input sizes, WIDTHxHEIGHT in px"""
    threads: tuple[int, ...] = (1, 2)
    """CPU threads of the runtimes"""
    targets: tuple[str, ...] = tuple(BACKENDS)
    """runtimes to measure"""
    precisions: tuple[str, ...] = PRECISIONS
    """precisions to measure"""
    data: Path | None = None
    """WIDER FACE folder, to hold the accuracy budget of INT8"""
    calibration: Path | None = None
    """folder of calibration photos for INT8"""
    images: int = 64
    """number of calibration photos"""
    max_drop: float = 0.5
    """accuracy budget of INT8 in AP points"""
    peers: Path | None = None
    """folder of peer models NAME_WIDTHxHEIGHT.onnx, measured on this machine"""
    again: bool = False
    """repeat invalid measurements"""
    results: Path | None = None
    """folder for records and report; default: OUT/bench, per device"""
    format: str = "table"
    """how the result is printed: table or json, which has the records without samples"""
    save: Path | None = None
    """also save that JSON to this file"""
    ranges: ClassVar[dict[str, Range]] = Protocol.ranges | {"max_drop": MAX_DROP}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("targets", self.targets, BACKENDS)
        check_choice("precisions", self.precisions, PRECISIONS)
        if min(self.threads) < 1:
            raise OptionError(f"--threads must be 1 or more, got {min(self.threads)}")

    @property
    def protocol(self) -> Protocol:
        """How everything is timed."""
        return Protocol(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Protocol)})

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files that a later run reads, or that are the result."""
        folder = self.results or results_folder(self.out, open_device(self.device).url)
        return tuple(folder / name for name in (LATENCY, CONTEXT, REPORT))

    @cached_property
    def name(self) -> str:
        """Name of the network, with a digest of its weights if they are a file. Raises
        ModelError."""
        choice = zoo.resolve(self.model)
        if choice.weights is None:
            return choice.architecture.name
        sha256 = hashlib.sha256(read_file(choice.weights, ModelError, "weights")).hexdigest()
        return zoo.own_name(choice.architecture.name, sha256)


class NoPhotosError(OptionError):
    """INT8 without photos: left out, which is no failure."""


class Bundles:
    """Makes the files that are to be measured, or finds them in OUT."""

    def __init__(self, o: Options, terminal: Terminal) -> None:
        self.o, self.terminal = o, terminal

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights that an existing Bundle must hold to be used."""
        if self.o.model in zoo.names():
            return zoo.get_entry(self.o.model).sha256
        from export.source import load_source

        return load_source(self.o.model).weights.sha256

    def get(self, target: str, precision: str, size: Size) -> Bundle:
        """The Bundle of one combination. Raises EdgefaceError if it cannot be made."""
        path = self.o.out / f"{self.o.name}-{target}-{precision}-{size[0]}x{size[1]}"
        with contextlib.suppress(BundleError):  # not there, or damaged: made anew
            bundle = Bundle.open(path)
            if bundle.manifest.weights.sha256 == self.weights_sha256:
                return bundle
        return (
            self._quantised(target, size) if precision == "int8" else self._exported(target, size)
        )

    def _exported(self, target: str, size: Size) -> Bundle:
        from export import ExportRequest, export_model
        from export.source import load_source

        self.terminal.line(f"exporting {self.o.model} to {target}, {size[0]}x{size[1]}")
        request = ExportRequest(target, "fp32", *size)
        return export_model(
            load_source(self.o.model), request, self.o.out, stage=self.terminal.stage
        ).bundle

    def _quantised(self, target: str, size: Size) -> Bundle:
        from quantize.pipeline import QuantizeRequest, quantize_model

        data = self.o.data if self.o.data and self.o.data.is_dir() else None
        if data is None and self.o.calibration is None:
            wrong = f", {self.o.data} is not a folder" if self.o.data else ""
            raise NoPhotosError(
                f"INT8 needs photos{wrong}: give a WIDER FACE root with --data, or a folder of"
                " photos with --calibration"
            )
        base = self.get(target, "fp32", size)
        request = QuantizeRequest(
            target,
            bundle=base.path,
            max_drop=self.o.max_drop,
            accuracy=data is not None,
            images=self.o.images,
        )
        self.terminal.line(f"quantising {base.path.name}")
        return quantize_model(
            request,
            self.o.out,
            data=data,
            calibration=self.o.calibration,
            stage=self.terminal.stage,
            progress=self.terminal.tick,
            note=self.terminal.note,
        ).bundle


class Bench:
    """One run of the command."""

    def __init__(self, o: Options, protocol: Protocol, device: Device, terminal: Terminal) -> None:
        self.o, self.protocol, self.device, self.terminal = o, protocol, device, terminal
        self.results = Results(o.results or results_folder(o.out, device.url))
        self.left_out: list[str] = []
        self.failures = 0

    def run(self) -> None:
        """Make the files, measure them, write the report."""
        sizes = list(dict.fromkeys(self._size(text) for text in self.o.sizes))
        bundles = self._bundles(sizes)
        if not any(bundles.values()):
            raise BundleError("nothing to measure: " + "; ".join(self.left_out))
        every = [bundle for group in bundles.values() for bundle in group]
        known = self.results.context.accuracy | find_accuracy(
            every, self.o.out / "bench" / "exports.json"
        )
        self.results.note(accuracy=known)
        self._measure(bundles)
        self._peers(bundles)
        self.results.note(left_out=tuple(self.left_out))
        write_report(self.results.folder / REPORT, self.results.records, self.results.context)

    def leave_out(self, text: str) -> None:
        """Note in the terminal and in the report that something is left out, and why."""
        self.left_out.append(text)
        self.terminal.note(text)

    def _size(self, text: str) -> Size:
        size, wanted = fit_size(text)
        if size != wanted:
            self.leave_out(
                f"{wanted[0]}x{wanted[1]}: the networks take multiples of {MULTIPLE_PX}, measured"
                f" at {size[0]}x{size[1]} instead"
            )
        return size

    def _bundles(self, sizes: Sequence[Size]) -> dict[Size, list[Bundle]]:
        source = Bundles(self.o, self.terminal)
        found: dict[Size, list[Bundle]] = {}
        for size in sizes:
            found[size] = []
            for target, precision in combinations(*self.o.precisions):
                if target in self.o.targets:
                    with self._noting(f"{target} {precision} {size[0]}x{size[1]}"):
                        found[size].append(source.get(target, precision, size))
        return found

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """If the block raises EdgefaceError, note ``what`` as left out and go on."""
        try:
            yield
        except EdgefaceError as error:
            self.failures += not isinstance(error, NoPhotosError)
            self.leave_out(f"{what}: {error}")

    def _measure(self, bundles: dict[Size, list[Bundle]]) -> None:
        """Run one session for each size and number of threads, so that compared files are measured
        side by side."""
        for group in bundles.values():
            for threads in self.o.threads if group else ():
                missing = [b for b in group if not self._has(b, threads)]
                if not missing:
                    continue
                if group[0] not in missing:  # the ratios need their reference in the session
                    missing.insert(0, group[0])
                jobs = [Job(str(bundle.path), threads) for bundle in missing]

                def failed(index: int, why: str, jobs: list[Job] = jobs) -> None:
                    self.failures += 1
                    self.leave_out(
                        why if why.startswith(str(jobs[index])) else f"{jobs[index]}: {why}"
                    )

                self.device.measure(
                    jobs, self.protocol, 0, self._one_bar(jobs[0]), self.results.keep, failed
                )

    def _one_bar(self, first: Job) -> Progress:
        """Progress that shows all stages of a session as one step."""
        what = f"measuring beside {first}"
        return lambda _, done, total, note="": self.terminal.tick(what, done, total, note)

    def _has(self, bundle: Bundle, threads: int) -> bool:
        record = self.results.known(bundle, self.device.url, threads, self.protocol)
        return record is not None and (record.valid or not self.o.again)

    def _peers(self, bundles: dict[Size, list[Bundle]]) -> None:
        if self.o.peers is None:
            return
        if self.device.url != LOCAL or not self.o.peers.is_dir():
            remote = "they have no manifest, so they are timed on this machine only"
            missing = f"{self.o.peers} is not a folder"
            self.leave_out(f"the peers: {missing if self.device.url == LOCAL else remote}")
            return
        peers, others = peers_of(self.o.peers, list(bundles))
        if others:
            self.leave_out(f"peers of other sizes than ours: {', '.join(others)}")
        for size, group in bundles.items():
            ours = next(
                (b for b in group if (b.manifest.target, b.manifest.precision) == ("onnx", "fp32")),
                None,
            )
            if peers[size] and ours is None:
                self.leave_out(
                    f"peers at {size[0]}x{size[1]}: without our fp32 ONNX file there is nothing to"
                    " refer to"
                )
            elif peers[size] and ours:
                for threads in self.o.threads:
                    self._peer_group(ours, peers[size], threads)

    def _peer_group(self, ours: Bundle, paths: list[Path], threads: int) -> None:
        spec = (ours.manifest.input.width, ours.manifest.input.height, threads)
        wanted = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        wanted[ours.path.name] = ours.manifest.files[ours.manifest.primary]
        old = [p for p in self.results.context.peers if (p.width, p.height, p.threads) == spec]
        same = {p.model: p.sha256 for p in old} == wanted and all(
            p.protocol == self.protocol for p in old
        )
        if same and not (self.o.again and any(not p.valid for p in old)):
            return
        try:
            new = time_peers(ours, paths, threads, self.protocol, self.terminal.tick)
        except (EdgefaceError, OSError) as error:
            self.failures += 1
            self.leave_out(f"peers at {spec[0]}x{spec[1]}: {error}")
            return
        self.results.note(peers=(*(p for p in self.results.context.peers if p not in old), *new))


def results_folder(out: Path, device: str) -> Path:
    """Folder for the records of ``device``, spelled as in their field ``device``."""
    folder = out / "bench"
    return folder if device == LOCAL else folder / re.sub(r"[^A-Za-z0-9@.]+", "-", device)


def fit_size(text: str) -> tuple[Size, Size]:
    """(size with both sides rounded up to multiples of 32, size as written). Raises OptionError."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match:
        return (parsed := parse_size(text)), parsed
    wanted = (int(match[1]), int(match[2]))
    width, height = (-(-side // MULTIPLE_PX) * MULTIPLE_PX for side in wanted)
    return parse_size(f"{width}x{height}"), wanted


def as_table(results: Results) -> str:
    """Plain text: all figures, the invalid ones with their reasons."""
    records, peers = results.records, results.context.peers
    ratio = "ratio to its session's reference"
    text = _with_reasons(
        ("bundle", "threads", "network ms [p90]", "end to end ms", ratio),
        [
            (
                r.bundle,
                r.threads,
                f"{r.network_ms.median:.2f} [{r.network_ms.p90:.2f}]",
                f"{r.end_to_end_ms.median:.2f}",
                r.ratio or "-",
            )
            for r in records
        ],
        [r.invalid_reasons for r in records],
    )
    if peers:
        text += (
            "\n\npeers, network only, turn by turn in one process: only the ratios are worth"
            " quoting\n"
        )
        text += _with_reasons(
            ("model", "threads", "ratio to ours"),
            [(p.model, p.threads, p.ratio) for p in peers],
            [p.invalid_reasons for p in peers],
        )
    return text


def _with_reasons(
    columns: Sequence[str], rows: Sequence[Sequence[object]], reasons: Sequence[Sequence[str]]
) -> str:
    head, *lines = table(columns, rows).splitlines()
    said = ("valid" if not r else f"INVALID: {'; '.join(r)}" for r in reasons)
    return "\n".join([head, *(f"{line}  {words}" for line, words in zip(lines, said, strict=True))])


def _run(o: Options) -> int:
    """Returns 1 if a file could not be made or measured."""
    with open_device(o.device) as device, Terminal(steps=True) as terminal:
        bench = Bench(o, o.protocol, device, terminal)
        bench.run()
        results = bench.results
        valid = sum(record.valid for record in results.records)
        advice = (
            ": run it again with --again when the machine is quiet"
            if valid < len(results.records)
            else ""
        )
        terminal.line(
            f"{valid} of {len(results.records)} records are valid{advice};"
            f" {results.folder / LATENCY}, {results.folder / REPORT}"
        )
    emit(
        [record.to_json(samples=False) for record in results.records],
        as_table(results),
        o.format,
        o.save,
    )
    return int(bench.failures > 0)


main = program_of(Options, "python -m benchmarks.bench", __doc__, _run, RESUMES)


if __name__ == "__main__":
    sys.exit(main())
