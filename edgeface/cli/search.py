"""``edgeface search``."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeface.cli.failures import Failures
from edgeface.cli.flags import Format, given, is_given, with_options
from edgeface.cli.output import print_json, print_table, say
from edgeface.cli.program import Stopped, stoppable
from edgeface.cli.search_published import run_published
from edgeface.cli.terminal import Terminal
from edgeface.errors import DeviceError, OptionError
from edgeface.search.commands import export_command, train_command
from edgeface.search.options import (
    DETECTOR,
    FREE,
    FRONT,
    REPORT,
    SIZES,
    STUDY,
    StudyOptions,
    load_options,
)
from edgeface.training.options import MOST

FIGURES = ("measured ms", "95 %", "predicted", "MACs", "parameters")
ASKS_A_DEVICE = ("resume", "size", "table", "ray", "finish", "landmarks")
"""options, beside those of a study, that ``--published`` does not accept"""
TAKES = {"alpha", "data", "seed"}
"""options of a study that ``--published`` accepts"""
GIVEN_BY = {"sizes": "size", "weights": "data"}
"""option of a study -> name of the command's option that sets it"""
PHOTOS = ("data", "annotations", "weights")
"""options of a study that name photos or are computed from their annotations"""

if TYPE_CHECKING:
    from edgeface.search.results import FrontNet, Round

EPILOG = """Examples:

edgeface search --target openvino --precision int8 --budget-ms 6 --out runs/mine

edgeface search --device ssh://pi@raspberrypi.local --target tflite --out runs/pi

edgeface search --target tflite --budget-ms 8 --trials 40 --data wider --out runs/ap

edgeface search --resume runs/ap --finish 300000   # train, quantise and measure the best

edgeface search --resume runs/mine

edgeface search --published 0.5g --out runs/damofd   # DamoFD's own search, needs no device

Latency is measured on the device. Writes the Pareto front to front.json and a report to report.html
in --out; use runs/mine/front.json#3 to name network 3 of the front. Continue a stopped search with
--resume."""


Out = Annotated[Path | None, typer.Option(help="Folder for a new search.")]
Resume = Annotated[
    Path | None, typer.Option(help="Continue the search in this folder, with its options.")
]
Size = Annotated[
    list[str],
    typer.Option(
        help=(
            "Input size, WxH in px. Repeat it to let the search choose; scores ignore the size,"
            " so of two equal networks the smaller input wins."
        )
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Photos for --trials and --finish: WIDER FACE folder, or any with --annotations. Or"
            " just an annotation file, whose face sizes set the score's stage weights (default:"
            " as published)."
        )
    ),
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Face boxes for the photos below --data, WIDER FACE text or CSV; face sizes set the"
            " stage weights. One in five of your own photos is held out to measure AP."
        )
    ),
]
Table = Annotated[
    list[Path],
    typer.Option(
        help="Latency table to start from, such as latency-640x480.json of an earlier search."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        help=("HOST:PORT of a Ray cluster; machines with the resource edgeface_device measure.")
    ),
]
Published = Annotated[
    str | None,
    typer.Option(
        help=(
            "Run DamoFD's published search instead (0.5g, 2.5g, 10g or 34g): the best DDSAR"
            " score within a FLOPs budget. Accepts --alpha, --data, --seed and --out."
        )
    ),
]
Finish = Annotated[
    int,
    typer.Option(
        min=0,
        max=MOST,
        help=(
            "Afterwards train the best network with this many crops of --data (300000: a full"
            " training), export or quantise it, and measure the file; 0: off."
        ),
    ),
]
Landmarks = Annotated[
    Path | None,
    typer.Option(help="Five landmarks per face, for --finish; same formats as `edgeface train`."),
]


@with_options(StudyOptions, without=("sizes", "weights", "data", "annotations"))
def command(
    ctx: typer.Context,
    out: Out = None,
    resume: Resume = None,
    size: Size = list(SIZES),  # noqa: B006
    data: Data = None,
    annotations: Annotations = None,
    table: Table = [],  # noqa: B006
    ray: Ray = None,
    published: Published = None,
    finish: Finish = 0,
    landmarks: Landmarks = None,
    format: Format = "table",
    options: Any = None,
) -> int | None:
    if published:
        others = {*given(ctx, options), *(n for n in ASKS_A_DEVICE if is_given(ctx, n))} - TAKES
        if others:
            raise OptionError(f"--published asks no device: leave {_flags(others)} out")
        run_published(published, options, data, out, format)
        return None
    if landmarks and not finish:
        raise OptionError("--landmarks are for --finish: give it, too, or leave --landmarks out")
    photos = _photos(data, annotations)
    options = dataclasses.replace(options, sizes=tuple(size), **photos)
    if options.space.endswith(".json"):
        options = dataclasses.replace(options, space=str(Path(options.space).absolute()))
    named = {*given(ctx, options), *photos.keys() & {"weights"}}
    named |= {"sizes"} if is_given(ctx, "size") else set()
    chosen, folder = _chosen(options, out, resume, named, bool(finish))
    wanted = _Finish(finish, _with_photos(chosen, options), landmarks) if finish else None
    go_on = _go_on(chosen, folder, ray, wanted)
    with Terminal() as terminal:
        if wanted:
            from edgeface.search.finish import check

            check(wanted.options, landmarks, terminal.tick)
        failures = Failures(terminal)
        front = _run(chosen, folder, table, ray, go_on, failures)
        if format == "json":
            print_json([net.to_json() for net in front])
        else:
            _print_front(front, chosen, folder)
        if wanted:
            _finish(wanted, folder, front, go_on, failures)
        return failures.ended("could not be read and were left out of the trainings")


@dataclass(frozen=True)
class _Finish:
    """How to make a detector from the front."""

    samples: int
    options: StudyOptions
    """options of the search, except for photos that were given for the detector alone"""
    landmarks: Path | None


def _finish(
    wanted: _Finish, folder: Path, front: Sequence[FrontNet], go_on: str, failures: Failures
) -> None:
    from edgeface.search.finish import finish

    terminal, kept = failures.terminal, f"nothing is lost, continue with: {go_on}"
    terminal.steps = True  # the steps from here on are few, and some are long
    with stoppable(kept):
        made = finish(
            wanted.options,
            folder,
            front,
            wanted.samples,
            wanted.landmarks,
            terminal.tick,
            terminal.note,
            failures,
            terminal.stage,
        )
    if made is None:
        raise Stopped(kept)
    quoted = "" if made.valid else " (unreliable: the machine was not idle)"
    hard = "-" if made.ap["hard"] is None else f"{made.ap['hard']:.4f}"
    terminal.line(f"{folder / made.bundle}: AP {hard}, {made.network_ms:.2f} ms{quoted}")
    terminal.line(f"{folder / DETECTOR} holds its figures and the record of its search")


def _flags(names: Collection[str]) -> str:
    return ", ".join(sorted({f"--{GIVEN_BY.get(n, n).replace('_', '-')}" for n in names}))


def _chosen(
    options: StudyOptions,
    out: Path | None,
    resume: Path | None,
    named: Collection[str],
    finish: bool,
) -> tuple[StudyOptions, Path]:
    """Options and folder of the search. Raises OptionError.

    named: options that the command line names. finish: a detector is made, too."""
    folder = out or resume
    if folder is None or (out and resume):
        raise OptionError(
            "give either --out, the folder of a new search, or --resume, that of one to go on with"
        )
    if not resume:
        return options, folder
    known = load_options(resume, options.device)
    # A search without trials uses no photos, so these are for the detector.
    lent = PHOTOS if finish and options.data and not known.trials else ()
    searched = {*named}.difference(lent)
    changed = {n: v for n in searched if (v := getattr(options, n)) != getattr(known, n)}
    if others := changed.keys() - FREE:
        raise OptionError(
            f"--resume {resume} goes on with the options of that search, which are others: leave"
            f" {_flags(others)} out; {_flags(FREE)} may change"
        )
    return dataclasses.replace(known, **changed), folder


def _with_photos(chosen: StudyOptions, options: StudyOptions) -> StudyOptions:
    """``chosen`` with the photos of ``options``, if it names any.

    The stage weights stay those of the search."""
    if not options.data:
        return chosen
    same = chosen.annotations if options.data == chosen.data else ""
    found = options.annotations or same
    return dataclasses.replace(chosen, data=options.data, annotations=found)


def _go_on(options: StudyOptions, folder: Path, ray: str | None, wanted: _Finish | None) -> str:
    """The command that continues the search, with the options that its folder does not store."""
    words = ["edgeface", "search", "--resume", str(folder)]
    # Options of the device are not stored, because they may run commands.
    words += ["--device", options.device] if "?" in options.device else []
    words += ["--ray", ray] if ray else []
    if wanted:
        words += ["--finish", str(wanted.samples)]
        words += ["--landmarks", str(wanted.landmarks)] if wanted.landmarks else []
        lent = wanted.options
        if (lent.data, lent.annotations) != (options.data, options.annotations):
            words += ["--data", lent.data]
            words += ["--annotations", lent.annotations] if lent.annotations else []
    return shlex.join(words)


def _photos(data: Path | None, annotations: Path | None) -> dict[str, Any]:
    """Options of a study that ``data`` and ``annotations`` set. Raises OptionError, DataError."""
    if data is None and annotations is not None:
        raise OptionError("--annotations are of the photos below --data: name their folder")
    if annotations is not None and data is not None and not data.is_dir():
        raise OptionError(
            f"--data {data} is not a folder: name that of the photos of --annotations, or leave"
            " --annotations out and give them as --data, whose faces then weigh the stages"
        )
    if data is None:
        return {}
    found: dict[str, Any] = {}
    if faces := annotations or (None if data.is_dir() else data):
        from edgeface.search.scores.ddsar import weights_of_annotations

        found["weights"] = weights_of_annotations(faces)
    if data.is_dir():
        # absolute, so that the search can be continued from any folder
        own = str(annotations.absolute()) if annotations else ""
        found |= {"data": str(data.absolute()), "annotations": own}
    return found


def _run(
    options: StudyOptions,
    folder: Path,
    tables: Sequence[Path],
    ray: str | None,
    go_on: str,
    failures: Failures,
) -> list[FrontNet]:
    from edgeface.predict.table import LatencyTable
    from edgeface.search.study import Study

    terminal = failures.terminal
    try:
        study = Study(options, folder, terminal.tick, terminal.note, ray, failures)
        front = study.run(
            lambda done: terminal.line(_sentence(done)),
            [LatencyTable.load(path) for path in tables],
        )
    except (DeviceError, KeyboardInterrupt) as error:
        begun = (folder / STUDY).is_file()
        if isinstance(error, DeviceError):
            kept = f"; what was measured is kept, continue with: {go_on}" if begun else ""
            raise DeviceError(f"{error}{kept}") from None
        kept = f"nothing is lost, continue with: {go_on}"
        raise Stopped(kept if begun else "nothing was measured yet") from None
    terminal.line(f"{folder / FRONT}, {folder / REPORT}")
    return front


def _sentence(done: Round) -> str:
    errors = [
        abs(e.predicted_ms / ms - 1)
        for e, ms in zip(done.picked, done.measured_ms, strict=True)
        if e.predicted_ms
    ]
    fit = f", predicted within {max(errors):.1%}" if errors else ""
    return (
        f"round {done.number}: {done.evaluated} networks scored, best {done.best_score:.4f};"
        f" {len(done.picked)} measured{fit}"
    )


def _worth(net: FrontNet) -> str:
    """Score of ``net``, or its AP with the interval, marked if a trial has trained it."""
    if net.ap is None or net.ap_interval is None:
        return f"{net.score:.4f}"
    low, high = net.ap_interval
    return f"{net.ap:.3f} ({low:.3f}-{high:.3f}){' trained' if net.trained else ''}"


def _print_front(front: Sequence[FrontNet], options: StudyOptions, folder: Path) -> None:
    if not front:
        limits = options.limits or "none"
        say(
            f"no network that was measured keeps the limits ({limits}): search with a"
            " larger budget, or more --rounds"
        )
    figures = ("AP" if any(net.ap is not None for net in front) else "score", *FIGURES)
    print_table(
        ("#", "network", *figures, "structure"),
        [
            (
                rank,
                net.architecture.name,
                _worth(net),
                f"{net.measured_ms:.3f}",
                f"{net.interval_ms[0]:.3f}-{net.interval_ms[1]:.3f}",
                f"{net.predicted_ms:.3f}",
                f"{net.macs / 1e6:.0f} M",
                f"{net.params / 1e3:.0f} k",
                net.architecture.structure,
            )
            for rank, net in enumerate(front, 1)
        ],
        right=("#", *figures),
        fold=("structure",),
    )
    for rank, net in enumerate(front, 1):
        say(f"#{rank}  {train_command(f'{folder / FRONT}#{rank}', net.architecture)}")
        say(f"    {export_command(net, options)}")
