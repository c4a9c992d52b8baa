"""``edgeface bench``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeface.cli.failures import Failures
from edgeface.cli.flags import DEVICE_HELP, Fast, Format, tell_fast, with_options
from edgeface.cli.output import print_json, print_table, say
from edgeface.cli.program import Stopped
from edgeface.cli.terminal import Terminal
from edgeface.errors import BundleError, DeviceError, EdgefaceError, OptionError
from edgeface.files import check_writable, refuse_input
from edgeface.latency.protocol import Job, Protocol
from edgeface.options import MAX_THREADS

if TYPE_CHECKING:
    from edgeface.latency.devices import Device
    from edgeface.latency.measurement import Measurement

EPILOG = """Examples:

edgeface bench dist/edgeface-n-tflite-int8-640x480

edgeface bench edgeface-n

edgeface bench dist/edgeface-n-* --threads 1 --threads 2 --save before.json

edgeface bench dist/edgeface-n-ncnn-fp32-640x480 --device ssh://pi@raspberrypi.local

A folder named 'compare' must be given as ./compare."""


Bundles = Annotated[
    list[str],
    typer.Argument(
        metavar="BUNDLE...",
        help="Folders of exported Bundles, or names: of a ready file, or of a network for all its"
        " ready files that run on the device.",
    ),
]
DeviceUrl = Annotated[str, typer.Option(help=DEVICE_HELP)]
ThreadCounts = Annotated[
    list[int],
    typer.Option(
        min=1,
        max=MAX_THREADS,
        help=("CPU threads for the runtime; repeat it to measure every Bundle with each count."),
    ),
]
Reference = Annotated[
    str | None, typer.Option(help="Bundle that latency ratios are relative to. Default: the first.")
]
Save = Annotated[
    Path | None,
    typer.Option(help="Save the records with all samples here, for `edgeface bench compare`."),
]
Samples = Annotated[
    bool, typer.Option("--samples", help="With --format json: include the raw samples.")
]


@with_options(Protocol)
def command(
    bundles: Bundles,
    device: DeviceUrl = "local",
    threads: ThreadCounts = [1],  # noqa: B006
    fast: Fast = False,
    reference: Reference = None,
    save: Save = None,
    samples: Samples = False,
    format: Format = "table",
    options: Any = None,
) -> int | None:
    from edgeface.latency.devices import open_device
    from edgeface.latency.measurement import save_measurements

    if save:
        check_writable(save, "--save", folder=False)
        refuse_input(
            save, (file for bundle in bundles for file in Path(bundle).glob("*")), "--save"
        )
    records: list[Measurement] = []
    with Terminal() as terminal, open_device(device) as opened:
        failures = Failures(terminal)
        jobs = _jobs(bundles, threads, fast, opened, failures)
        total = len(jobs) + len(failures.told)
        chosen = _reference(jobs, reference)
        stopped = _measured(opened, jobs, options, chosen, terminal, records, failures)
        for runtime in dict.fromkeys(record.runtime for record in records):
            tell_fast(terminal, runtime, fast)
        try:
            if format == "json":
                print_json([record.to_json(samples) for record in records])
            elif records:
                _print_measurements(records)
        finally:  # also if stdout is full
            if save and records:
                save_measurements(save, records)
        if stopped:
            raise Stopped(
                f"{len(records)} of {len(jobs)} models were measured, their figures are printed"
            )
        text = "could not be measured; the figures of the others are printed"
        return failures.ended(text, total, "model", total - len(records))


def _measured(
    device: Device,
    jobs: list[Job],
    protocol: Protocol,
    reference: int,
    terminal: Terminal,
    records: list[Measurement],
    failed: Callable[[object], None],
) -> bool:
    """Fill ``records``; measurements before an error or Ctrl-C stay. Returns True after Ctrl-C."""
    try:
        device.measure(
            jobs, protocol, reference, terminal.tick, records.append, lambda _, why: failed(why)
        )
    except KeyboardInterrupt:
        return True
    except EdgefaceError as error:
        if not records:
            raise
        failed(error)
    return False


def _jobs(
    bundles: Sequence[str],
    threads: Sequence[int],
    fast: bool,
    device: Device,
    failed: Callable[[object], None],
) -> list[Job]:
    """Jobs of every Bundle with every number of threads.

    Reports Bundles that cannot be opened. Raises BundleError if none is left."""
    from edgeface.bundle import Bundle

    folders: dict[Path, None] = {}
    for bundle in dict.fromkeys(
        folder for name in bundles for folder in ready_folders(name, device)
    ):
        try:
            folders[Bundle.open(bundle, verify=False).path.resolve()] = None
        except BundleError as error:  # noqa: PERF203 - a bad Bundle must not end the run
            if len(bundles) == 1:
                raise
            failed(error)
    if not folders:
        raise BundleError(f"none of the {len(bundles)} Bundles can be opened: nothing is measured")
    labels = _labels(folders)
    return [
        Job(str(folder), count, fast, label)
        for count in dict.fromkeys(threads)
        for folder, label in labels.items()
    ]


def ready_folders(name: str, device: Device) -> list[str]:
    """The folder of a ready file, or those of a network's ready files that ``device`` runs.

    Any other name is itself a folder. Raises DeviceError if ``device`` runs none of the files."""
    from edgeface import zoo

    if Path(name).exists():
        return [name]
    ready = [file for file in zoo.ready_files() if file.name == name]
    if not ready and (files := zoo.ready_files(name)):
        targets = device.targets()
        ready = [file for file in files if file.target in targets]
        if not ready:
            needed = ", ".join(dict.fromkeys(file.target for file in files))
            raise DeviceError(
                f"{device.url} has no runtime for the ready files of {name} ({needed}, any one of"
                f" them will do): run: {device.check_command}"
            )
    return [str(file.path) for file in ready] or [name]


def _labels(folders: Iterable[Path]) -> dict[Path, str]:
    """Folder -> label: empty, or the end of the path if several Bundles have the same name.

    The end is as long as is needed to tell them apart."""
    labels = dict.fromkeys(folders, "")
    for name in {folder.name for folder in labels}:
        alike = [folder for folder in labels if folder.name == name]
        depth = 1
        while len({folder.parts[-depth:] for folder in alike}) < len(alike):
            depth += 1
        if depth > 1:
            labels |= {folder: "/".join(folder.parts[-depth:]) for folder in alike}
    return labels


def _reference(jobs: Sequence[Job], name: str | None) -> int:
    """Index of the first job with the Bundle that is called ``name`` or lies there."""
    if name is None:
        return 0
    folder, known = str(Path(name).resolve()), ", ".join(dict.fromkeys(job.name for job in jobs))
    exact = [i for i, job in enumerate(jobs) if name == job.name or folder == job.bundle]
    alike = exact or [i for i, j in enumerate(jobs) if Path(j.bundle).name == Path(name).name]
    if not alike:
        raise OptionError(
            f"--reference {name!r} is none of the Bundles to measure (known: {known})"
        )
    if len({jobs[i].bundle for i in alike}) > 1:
        raise OptionError(f"--reference {name!r} is several of the Bundles: give one of {known}")
    return alike[0]


def _print_measurements(records: Sequence[Measurement]) -> None:
    rows = [
        (
            r.bundle,
            r.threads,
            f"{r.network_ms.median:.2f} [{r.network_ms.p90:.2f}]",
            f"{r.end_to_end_ms.median:.2f}",
            r.ratio,
            "yes" if r.valid else f"NO: {'; '.join(r.invalid_reasons)}",
        )
        for r in records
    ]
    ratios = [r.ratio for r in records if r.ratio]
    to = f"ratio to {ratios[0].to}, {ratios[0].threads}T" if ratios else "ratio"
    figures = ("threads", "network ms [p90]", "end to end ms", "ratio")
    print_table(("bundle", *figures, "valid"), rows, figures, fold=("valid",))
    say(
        f"{records[0].device}: {records[0].environment.machine.cpu}; medians of"
        f" {records[0].protocol.rounds * records[0].protocol.per_round} images; {to}, with 95 %"
        " interval"
    )
