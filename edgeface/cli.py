"""The ``edgeface`` command: one thin function per verb.

Results go to stdout as a table or as JSON, everything else to stderr. A user's mistake is one line on stderr and exit
code 2. Heavy imports happen inside the verb that needs them, so that a device needs no more than it uses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

from edgeface.backends import BACKENDS, has_module
from edgeface.errors import DeviceError, EdgefaceError, ImageError, MissingExtraError, OptionError, OutputError
from edgeface.hush import hushed
from edgeface.latency.jobs import Protocol
from edgeface.options import field_help, parse_size
from edgeface.search.autofem_options import AutoFEMOptions
from edgeface.search.record import SIZES, StudyOptions
from edgeface.training.options import TrainOptions, get_recipe

try:
    import typer
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from typer.core import TyperGroup
except ImportError:  # a device that only embeds the library
    print(f"error: {MissingExtraError('typer', 'cli', 'the command line')}", file=sys.stderr)
    raise SystemExit(2) from None

if TYPE_CHECKING:
    from edgeface.compare import Comparison
    from edgeface.latency.devices import Finding
    from edgeface.latency.jobs import Job
    from edgeface.latency.measurement import Measurement
    from edgeface.latency.regression import Regression
    from edgeface.models.genotype import Genotype
    from edgeface.search.record import FrontNet, Round

DEFAULT_MODEL = "edgeface-n"


class _Verbs(TyperGroup):
    """Knows verbs of two words, such as ``bench compare`` beside ``bench``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        pair = " ".join(args[:2])
        return super().resolve_command(ctx, [pair, *args[2:]] if pair in self.commands else args)


DEVICE_HELP = "local, ssh://[user@]host[:port] or adb://serial; add ?python=PATH for a Python of your choice there."
app = typer.Typer(cls=_Verbs, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  rich_markup_mode=None,
                  help="Tiny face detectors for ARM and x86 CPUs: detect, evaluate, train, measure.")

Model = Annotated[str, typer.Option(
    help="Zoo name (see `edgeface models`), a .safetensors file that `edgeface train` or `edgeface weights import` "
         "wrote, or the folder of an exported Bundle.")]
Weights = Annotated[Path | None, typer.Option(
    help="Your own weights for the network that --model names, a .safetensors file. Default: those that ship.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of the runtime.")]
Fast = Annotated[bool, typer.Option("--fast", help="Let the runtime compute in lower precision where the CPU has it; "
                                    "says what that changes. Default: float32, the same boxes everywhere.")]
Format = Annotated[str, typer.Option(help="How the result is printed: table or json.")]
F = TypeVar("F", bound=Callable[..., Any])


def _check_format(format: str) -> None:
    if format not in ("table", "json"):
        raise OptionError(f"unknown format {format!r} (known: table, json)")


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=1))


def _print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], right: Iterable[str] = (),
                 wrap: Iterable[str] = ()) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column not in wrap)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row))
    width = None if sys.stdout.isatty() else 200  # piped output is for a file or a tool: nothing is cut
    Console(highlight=False, markup=False, width=width).print(table)


@app.command(epilog="Examples:\n\nedgeface detect photo.jpg --save out.jpg\n\n"
                    "edgeface detect holiday/ --save marked/ --format json > faces.json\n\n"
                    "edgeface detect clip.mp4 --save marked.mp4 --model dist/edgeface-n-tflite-fp32-640x480")
def detect(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Photos, folders, video files, or camera:0.")],
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    save: Annotated[Path | None, typer.Option(
        help="Write the photo or video with boxes here; a folder for several.")] = None,
    score_threshold: Annotated[float, typer.Option(help="Report faces that score at least this, 0 to 1.")] = 0.5,
    nms_threshold: Annotated[float, typer.Option(help="Of two boxes with a higher IoU keep the better one.")] = 0.45,
    size: Annotated[str | None, typer.Option(
        help="Long side in px that photos are scaled to, or 'original'; exported files have their own.")] = None,
    threads: Threads = 1,
    fast: Fast = False,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames in all.")] = None,
    format: Format = "table",
) -> None:
    """Find the faces in photos, folders, videos or a camera."""
    from edgeface.detector import Detector
    from edgeface.images import sources
    from edgeface.saving import Saver

    _check_format(format)
    saver = Saver(save, images) if save else contextlib.nullcontext()
    failures: list[ImageError] = []

    def failed(error: ImageError) -> None:
        failures.append(error)
        print(f"error: {error}", file=sys.stderr)

    found: list[dict[str, Any]] = []
    with hushed():
        opened = Detector.open(model, threads, score_threshold, nms_threshold, _long_side(size), fast, weights)
    _tell_fast(opened.runner.runtime, fast)
    with opened as detector, _Ticker() as tick, saver as keep:
        try:
            for name, image in sources(images, failed):
                faces = detector.detect(image)
                found.append({"image": name, "faces": faces.to_json()})
                tick(name)
                if keep:
                    keep.add(name, image, faces)
                if len(found) == max_frames:
                    break
        except KeyboardInterrupt:
            print("stopped: what follows is what was found so far", file=sys.stderr)
    if format == "json":
        _print_json(found)
    else:
        _print_faces(found)
    if failures:
        raise typer.Exit(2)


def _tell_fast(runtime: str, fast: bool) -> None:
    """On stderr, what fast mode does in this runtime."""
    if fast:
        package = runtime.partition(" ")[0]
        change = next((row.fast for row in BACKENDS.values() if package in row.distributions), "")
        print(f"note: fast mode: {change or f'{package} has none, nothing changes'}", file=sys.stderr)


def _require_torch(extra: str, purpose: str) -> None:
    if not has_module("torch"):
        raise MissingExtraError("torch", extra, purpose)


def _long_side(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


def _print_faces(found: list[dict[str, Any]]) -> None:
    rows: list[tuple[Any, ...]] = []
    for item in found:
        rows += [(item["image"], f"{face['score']:.3f}", *(f"{v:.1f}" for v in face["box"])) for face in item["faces"]]
        if not item["faces"]:
            rows.append((item["image"], "no face", "", "", "", ""))
    if rows:
        _print_table(("image", "score", "x1", "y1", "x2", "y2"), rows, right=("score", "x1", "y1", "x2", "y2"))


class _Ticker:
    """A line on a terminal's stderr that says how many frames are done; silent elsewhere."""

    def __enter__(self) -> Callable[[str], None]:
        self.count = 0
        self.status = Console(stderr=True).status("starting")
        self.status.start()
        return self.tick

    def tick(self, name: str) -> None:
        self.count += 1
        self.status.update(f"{self.count} done: {name}")

    def __exit__(self, *error: object) -> None:
        self.status.stop()


@app.command("eval", epilog="Examples:\n\nedgeface eval --data wider\n\n"
                            "edgeface eval --data wider --model dist/edgeface-n-onnx-fp32-640x480 --plot pr.png\n\n"
                            "edgeface eval --data wider --model eresfd-16.safetensors --scale multi")
def evaluate(
    data: Annotated[Path, typer.Option(
        help="WIDER FACE folder with WIDER_val/images and eval_tools/ground_truth.")],
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    scale: Annotated[str, typer.Option(
        help="640 (long side, the 'VGA' protocol), original, or multi: several sizes and a flip with the boxes put to "
             "a vote, as EXTD and EResFD are published; about five times as slow as original.")] = "640",
    agreed_only: Annotated[bool, typer.Option(
        "--agreed-only", help="With --scale multi: only faces that two or more boxes agree on, as EXTD tests. Default: "
                              "all, as EResFD tests.")] = False,
    heights: Annotated[str, typer.Option(
        help="Bins of face height: annotated (px of the photo) or evaluated (px at --scale).")] = "annotated",
    plot: Annotated[Path | None, typer.Option(help="Draw the precision-recall curves into this PNG.")] = None,
    predictions: Annotated[Path | None, typer.Option(
        help="Also write the boxes here, in the folders of text files that the official tool reads.")] = None,
    threads: Threads = 1,
    fast: Fast = False,
    format: Format = "table",
) -> None:
    """Official WIDER FACE figures of any model on the validation photos that are there."""
    from edgeface.evaluation import evaluate_model, plot_curves, save_predictions

    _check_format(format)
    done = evaluate_model(model, data, scale, threads, heights=heights, progress=True, fast=fast, weights=weights,
                          agreed_only=agreed_only)
    _tell_fast(done.report.protocol.runtime, fast)
    if plot:
        plot_curves(plot, done.report, done.result)
    if predictions:
        save_predictions(predictions, done.predictions.detections)
    report = done.report.to_json()
    if format == "json":
        _print_json(report)
        return
    names = ("easy", "medium", "hard", *report["by_height"])
    values = (report["easy"], report["medium"], report["hard"], *report["by_height"].values())
    _print_table(("", *names), [("AP", *(None if v is None else f"{v:.4f}" for v in values)),
                                ("faces", *(report["faces"].get(name) for name in names))], right=names)
    print(f"{report['model']}, {report['images']} images, heights in {heights} px; {done.report.protocol}")


@app.command(epilog="Examples:\n\nedgeface compare edgeface-n dist/edgeface-n-ncnn-fp32-640x480 --image photo.jpg\n\n"
                    "edgeface compare dist/edgeface-n-tflite-fp32-640x480 dist/edgeface-n-tflite-int8-640x480 "
                    "--image photo.jpg --plot parting.png\n\n"
                    "Exit code: 0 when the two agree within the tolerance, 1 when they part, 2 on a mistake.")
def compare(
    a: Annotated[str, typer.Argument(
        metavar="A", help="Folder of an exported Bundle; or, for the network in torch, a zoo name or a .safetensors "
                          "file that edgeface wrote: the reference.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, of the same network and size.")],
    image: Annotated[Path | None, typer.Option(help="Photo that both see, best one with faces. Needed.")] = None,
    tolerance: Annotated[float | None, typer.Option(
        help="Relative RMS, rms(A - B) / std(A), beyond which two tensors differ. Default: 0.001 between fp32 files, "
             "0.01 if one is fp16, 0.3 if one is int8.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the relative RMS of every tensor into this PNG.")] = None,
    format: Format = "table",
) -> None:
    """Name the first tensor where two exports of one network part."""
    from edgeface.compare import Subject, plot_comparison
    from edgeface.compare import compare as compare_tensors
    from edgeface.images import read_image

    _check_format(format)
    if image is None:
        raise OptionError("--image is missing: both files need a photo to compute on, best one with faces: run: "
                          f"edgeface compare {a} {b} --image photo.jpg")
    done = compare_tensors(Subject.find(a), Subject.find(b), read_image(image), tolerance)
    if plot:
        plot_comparison(plot, done)
    if format == "json":
        _print_json(done.to_json())
    else:
        _print_comparison(done)
    if done.parting is not None:
        raise typer.Exit(1)


def _print_comparison(done: Comparison) -> None:
    marks = {done.jump: "largest jump", done.parting: "they part"}
    rows = [(i, pair.a.layer, pair.b.layer, "x".join(map(str, pair.shape)), f"{pair.max_abs:.3g}",
             f"{pair.rel_rms:.3g}", f"{pair.snr_db:.1f}", marks.get(i, "")) for i, pair in enumerate(done.pairs)]
    print(f"A: {done.a}\nB: {done.b}")
    right = ("#", "max abs", "rel. RMS", "SNR dB")
    _print_table(("#", "layer of A", "layer of B", "shape", *right[1:], ""), rows, right=right)
    for line in done.sentences():
        print(line)


@app.command()
def models(
    size: Annotated[str, typer.Option(help="Input WIDTHxHEIGHT in px that MACs are counted at.")] = "640x480",
    format: Format = "table",
) -> None:
    """List the networks with parameters and multiply-accumulates."""
    from edgeface import zoo
    from edgeface.models.registry import listed

    _check_format(format)
    width, height = parse_size(size)
    _require_torch("zoo", "counting parameters and MACs")
    from edgeface.models.complexity import count

    rows: list[dict[str, Any]] = []
    with _Bar() as tick:
        for done, name in enumerate(names := listed()):
            tick(f"counting {name}", done, len(names))
            complexity = count(name, width, height)
            rows.append({"name": name, "params": complexity.params, "macs": complexity.macs,
                         "weights": name in zoo.names()})
    if format == "json":
        _print_json(rows)
        return
    _print_table(("name", "params", f"MACs at {size}", "weights"),
                 [(r["name"], f"{r['params'] / 1e6:.4f} M", f"{r['macs'] / 1e6:.1f} M",
                   "shipped" if r["weights"] else "-") for r in rows], right=("params", f"MACs at {size}"))
    print("Those of DamoFD and SCRFD exist twice: as published, and with '-bn' appended for a head "
          "that exports well.\n'-kps' are those with landmarks; SCRFD's export well as published.")


@app.command(epilog="Examples:\n\nedgeface score damofd-0.5g\n\n"
                    "edgeface score 'SuperConvK3BNRELU(3,16,2,1)SuperResK3K3(16,24,2,16,1)...' --alpha 0.05\n\n"
                    "edgeface score damofd-0.5g --data my_annotations.csv   # stages weighted for your faces\n\n"
                    "A higher score promises a better detector of the same cost; it says nothing of the cost.")
def score(
    architecture: Annotated[str, typer.Argument(
        metavar="ARCHITECTURE_OR_STRING",
        help="Zoo name, structure string, or a .json file of an Architecture.")],
    alpha: Annotated[float, typer.Option(help="Weight of the kernel sizes.")] = 0.25,
    data: Annotated[Path | None, typer.Option(
        help="Annotations (WIDER FACE text or CSV) whose faces weigh the stages; default: as published.")] = None,
    format: Format = "table",
) -> None:
    """Score a backbone without training it: DDSAR, as DamoFD published it and mended."""
    from edgeface.search import ddsar

    _check_format(format)
    backbone = ddsar.read_backbone(architecture)
    weights = ddsar.weights_of_annotations(data) if data else ddsar.WEIGHTS
    found = ddsar.score(backbone, alpha, weights)
    if format == "json":
        _print_json({**found.to_json(), "alpha": alpha, "weights": dict(zip(ddsar.STAGES, weights, strict=True))})
        return
    _print_table(("stage", "weight", "SES", "FSS"), [
        (name, f"{weight:.3f}", f"{ses:.4f}", fss)
        for name, weight, ses, fss in zip(ddsar.STAGES, weights, found.ses, found.fss, strict=True)],
        right=("weight", "SES", "FSS"))
    print(f"DDSAR {found.ddsar:.6f} as published, {found.mended:.6f} mended (true widths, without the stem), "
          f"alpha {alpha:g}")


@app.command()
def doctor(format: Format = "table") -> None:
    """Say what is installed, what is missing and how to get it."""
    from edgeface.doctor import diagnose

    _check_format(format)
    report = diagnose()
    if format == "json":
        _print_json(report)
        return
    print(f"edgeface {report['edgeface']}, Python {report['python']}, {report['platform']}")
    _print_table(("package", "version", "for", "get it with"),
                 [(t["package"], t["version"] or "missing", t["for"], t["fix"] or "") for t in report["tools"]])
    _print_table(("target", "runtime", "version", *report["backends"][0]["precisions"], "get it with"),
                 [(b["target"], b["runtime"], b["version"] or "missing",
                   *("on" if state == "on" else "off" for state in b["precisions"].values()), b["fix"] or "")
                  for b in report["backends"]])
    for reason, where in _reasons(report["backends"]).items():
        print(f"off: {', '.join(where)}: {reason}")
    print("models with weights:", ", ".join(report["models_with_weights"]) or "none")


def _reasons(backends: list[dict[str, Any]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for row in backends:
        for precision, state in row["precisions"].items():
            if state != "on":
                reasons.setdefault(state, []).append(f"{row['target']} {precision}")
    return reasons


def _with_options(cls: type) -> Callable[[F], F]:
    """Give a command one flag per plain field of a dataclass, with the field's own text as help.

    The command receives them together, as one instance, in its last parameter.
    """
    hints, texts = get_type_hints(cls), field_help(cls)
    plain = [f for f in dataclasses.fields(cls) if hints[f.name] in (int, float, str, bool)]

    def decorate(command: F) -> F:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
        flags = [inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default,
                                   annotation=Annotated[hints[f.name], typer.Option(help=texts.get(f.name, ""))])
                 for f in plain]

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            options = cls(**{f.name: values.pop(f.name) for f in plain})
            command(**values, options=options)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped  # type: ignore[return-value]

    return decorate


def _given(ctx: typer.Context, options: Any) -> dict[str, Any]:
    """Those of the options that the command line names."""
    sources = {f.name: ctx.get_parameter_source(f.name) for f in dataclasses.fields(options)}
    return {name: getattr(options, name) for name, source in sources.items() if source and source.name == "COMMANDLINE"}


@app.command(epilog="Examples:\n\nedgeface train --data wider --out runs/mine\n\n"
                    "edgeface train --data photos --annotations faces.csv --out runs/mine --samples 100000\n\n"
                    "torchrun --nproc-per-node 2 -m edgeface train --data wider --out runs/mine\n\n"
                    "Killed at any moment, the same command goes on where the run was.")
@_with_options(TrainOptions)
def train(
    ctx: typer.Context,
    data: Annotated[Path, typer.Option(help="WIDER FACE folder, or with --annotations a folder of photos.")],
    out: Annotated[Path, typer.Option(help="Folder of this run; a run that is there is resumed.")],
    model: Annotated[str, typer.Option(help="Network, as `edgeface models` lists them.")] = DEFAULT_MODEL,
    genotype: Annotated[Path | None, typer.Option(
        help="Of the neck of an ASFD network: the genotype.json of `edgeface autofem`; the network is then called "
             "MODEL-<12 digits>. Default: the model's own.")] = None,
    recipe: Annotated[str | None, typer.Option(
        help="Options to begin with: edgeface (the defaults below), extd, eresfd or asfd. Default: that of the "
             "network's family.")] = None,
    annotations: Annotated[Path | None, typer.Option(
        help="Boxes: WIDER FACE text, or CSV with image,x1,y1,x2,y2. Default: WIDER FACE's own training list.")] = None,
    cache: Annotated[Path | None, typer.Option(
        help="Folder for the decoded photos, about 1.5 MB each. Default: OUT/cache.")] = None,
    in_memory: Annotated[bool, typer.Option(
        help="Hold the decoded photos in memory instead of mapping the file.")] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads per process; 0 leaves torch's own choice.")] = 0,
    device: Annotated[str, typer.Option(help="torch device: cpu or cuda.")] = "cpu",
    options: Any = None,
) -> None:
    """Train a network; writes weights, checkpoints, log and curves into --out."""
    from edgeface.models.genotype import read_genotype
    from edgeface.models.registry import get_architecture, with_genotype

    architecture = get_architecture(model)
    if genotype:
        architecture = with_genotype(architecture, read_genotype(genotype))
    options = dataclasses.replace(get_recipe(recipe, architecture), **_given(ctx, options))
    _require_torch("train", "training")
    from edgeface.training import train_model

    cache = cache or out / "cache"
    if not train_model(architecture, options, data, out, annotations, cache, in_memory, threads, device):
        print("stopped: the state is saved, the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130)


@app.command(epilog="Examples:\n\nedgeface search --target openvino --precision int8 --budget-ms 6 --out runs/mine\n\n"
                    "edgeface search --device ssh://pi@raspberrypi.local --target tflite --out runs/pi\n\n"
                    "edgeface search --resume runs/mine\n\n"
                    "Writes front.json and report.html into --out. Stopped at any moment, --resume goes on.")
@_with_options(StudyOptions)
def search(
    out: Annotated[Path | None, typer.Option(help="Folder of this search.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the search in this folder, with its options.")] = None,
    size: Annotated[list[str], typer.Option(
        help="Input size, WxH in px. Given several times, the search chooses among them; scores do not see the "
             "size, so that of two equal ones the smaller wins.")] = list(SIZES),  # noqa: B006
    data: Annotated[Path | None, typer.Option(
        help="Annotations (WIDER FACE text or CSV) whose faces weigh the stages; default: as published.")] = None,
    table: Annotated[list[Path], typer.Option(
        help="Latency table to begin with, such as an earlier search's latency-640x480.json.")] = [],  # noqa: B006
    ray: Annotated[str | None, typer.Option(
        help="HOST:PORT of a Ray cluster whose machines with the resource edgeface_device measure.")] = None,
    format: Format = "table",
    options: Any = None,
) -> None:
    """Search for the best detector that is fast enough on a device, by measuring there."""
    from edgeface.search.ddsar import weights_of_annotations
    from edgeface.search.latency_table import LatencyTable
    from edgeface.search.study import Study, load_options

    _check_format(format)
    if (out is None) == (resume is None):
        raise OptionError("give either --out, the folder of a new search, or --resume, that of one to go on with")
    options = dataclasses.replace(options, sizes=tuple(size))
    if data:
        options = dataclasses.replace(options, weights=weights_of_annotations(data))
    if resume:
        if options not in (StudyOptions(), load_options(resume)):
            raise OptionError(f"--resume {resume} goes on with the options of that search: leave the others out")
        options = load_options(resume)
    folder = resume or out
    assert folder is not None
    try:
        with _Bar() as tick:
            study = Study(options, folder, tick, lambda text: print(f"note: {text}", file=sys.stderr), ray)
            front = study.run(_tell_round, [LatencyTable.load(path) for path in table])
    except KeyboardInterrupt:
        print(f"stopped: nothing is lost, edgeface search --resume {folder} goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    except DeviceError as error:
        raise DeviceError(f"{error}; what was measured is kept: edgeface search --resume {folder}") from None
    if format == "json":
        _print_json([net.to_json() for net in front])
    else:
        _print_front(front, options)
    print(f"{folder / 'front.json'}, {folder / 'report.html'}", file=sys.stderr)


@app.command(epilog="Examples:\n\nedgeface autofem --data wider --out runs/autofem\n\n"
                    "edgeface autofem --data photos --annotations faces.csv --out runs/autofem --steps 500\n\n"
                    "edgeface train --model asfd-d0 --genotype runs/autofem/genotype.json --data wider --out runs/mine"
                    "\n\nWrites genotype.json into --out. Killed at any moment, the same command goes on where it was.")
@_with_options(AutoFEMOptions)
def autofem(
    data: Annotated[Path, typer.Option(help="WIDER FACE folder, or with --annotations a folder of photos.")],
    out: Annotated[Path, typer.Option(help="Folder of this search; a search that is there is resumed.")],
    annotations: Annotated[Path | None, typer.Option(
        help="Boxes: WIDER FACE text, or CSV with image,x1,y1,x2,y2. Default: WIDER FACE's own training list.")] = None,
    cache: Annotated[Path | None, typer.Option(
        help="Folder for the decoded photos, about 1.5 MB each. Default: OUT/cache.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
    device: Annotated[str, typer.Option(help="torch device: cpu or cuda.")] = "cpu",
    format: Format = "table",
    options: Any = None,
) -> None:
    """Search what operations the neck of an ASFD network is made of, while its weights learn (differentiable)."""
    _check_format(format)
    _require_torch("train", "searching a neck")
    from edgeface.search.autofem import search as search_genotype
    from edgeface.training import open_photos, prepare_torch

    prepare_torch(threads, device)
    photos = open_photos(data, annotations, cache or out / "cache")
    try:
        with _Bar() as tick:
            found = search_genotype(options, photos, out, device, tick)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from the last checkpoint", file=sys.stderr)
        raise typer.Exit(130) from None
    if format == "json":
        _print_json(dataclasses.asdict(found))
    else:
        _print_genotype(found)
    print(out / "genotype.json", file=sys.stderr)


def _print_genotype(found: Genotype) -> None:
    rows = [(4 << level, *edges, "  ".join(f"{node.op}({', '.join(map(str, node.inputs))})" for node in cell))
            for level, (*edges, cell) in enumerate(zip((*found.top_down, None), (None, *found.bottom_up), found.same,
                                                       found.context, strict=True))]
    _print_table(("stride", "from above", "from below", "same level", "context: operation(what it reads)"), rows,
                 right=("stride",), wrap=("context: operation(what it reads)",))


def _tell_round(done: Round) -> None:
    """One line on stderr for each round."""
    errors = [abs(e.predicted_ms / ms - 1) for e, ms in zip(done.picked, done.measured_ms, strict=True)
              if e.predicted_ms]
    fit = f", predicted within {max(errors):.1%}" if errors else ""
    print(f"round {done.number}: {done.evaluated} networks scored, best {done.best_score:.4f}; {len(done.picked)} "
          f"measured{fit}", file=sys.stderr)


def _print_front(front: list[FrontNet], options: StudyOptions) -> None:
    if not front:
        print(f"no network that was measured takes at most {options.budget_ms:g} ms: a larger --budget-ms, or more "
              "--rounds")
    _print_table(("network", "score", "measured ms", "95 %", "predicted", "MACs", "parameters", "structure"), [
        (net.architecture.name, f"{net.score:.4f}", f"{net.measured_ms:.3f}",
         f"{net.interval_ms[0]:.3f}-{net.interval_ms[1]:.3f}", f"{net.predicted_ms:.3f}", f"{net.macs / 1e6:.0f} M",
         f"{net.params / 1e3:.0f} k", net.architecture.backbone.structure) for net in front],
        right=("score", "measured ms", "predicted", "MACs", "parameters"), wrap=("structure",))


@app.command(epilog="Examples:\n\nedgeface bench dist/edgeface-n-tflite-int8-640x480\n\n"
                    "edgeface bench dist/edgeface-n-* --threads 1 --threads 2 --save before.json\n\n"
                    "edgeface bench dist/edgeface-n-ncnn-fp32-640x480 --device ssh://pi@raspberrypi.local\n\n"
                    "A folder that is called 'compare' is written ./compare.")
@_with_options(Protocol)
def bench(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Folders of exported Bundles.")],
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "local",
    threads: Annotated[list[int], typer.Option(
        min=1, help="CPU threads of the runtime; given several times, every Bundle is measured with each.")] = [1],  # noqa: B006
    fast: Fast = False,
    reference: Annotated[str | None, typer.Option(
        help="Name of the Bundle that ratios are to. Default: the first.")] = None,
    save: Annotated[Path | None, typer.Option(
        help="Write the records with all samples here, for `edgeface bench compare`.")] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Print the raw samples too, with --format json.")] = False,
    format: Format = "table",
    options: Any = None,
) -> None:
    """Measure how long models take, here or on another device."""
    from edgeface.latency.devices import open_device
    from edgeface.latency.measurement import save_measurements

    _check_format(format)
    jobs = _jobs(bundles, threads, fast)
    chosen = _reference(jobs, reference)
    records: list[Measurement] = []
    wrong: list[str] = []
    code = 0
    with open_device(device) as opened, _Bar() as tick:
        try:
            opened.measure(jobs, options, chosen, tick, records.append, lambda _, message: wrong.append(message))
        except KeyboardInterrupt:
            code = 130
    for runtime in dict.fromkeys(record.runtime for record in records):
        _tell_fast(runtime, fast)
    if save and records:
        save_measurements(save, records)
    if code:
        print("stopped: what follows is what was measured so far", file=sys.stderr)
    if format == "json":
        _print_json([record.to_json(samples) for record in records])
    elif records:
        _print_measurements(records)
    for message in wrong:
        print(f"error: {message}", file=sys.stderr)
    if code or wrong:
        raise typer.Exit(code or 2)


def _jobs(bundles: list[str], threads: list[int], fast: bool) -> list[Job]:
    """Every Bundle with every number of threads. Raises BundleError for a folder that is none."""
    from edgeface.bundle import Bundle
    from edgeface.latency.jobs import Job

    folders = [str(Bundle.open(bundle, verify=False).path.resolve()) for bundle in bundles]
    return [Job(folder, count, fast) for count in dict.fromkeys(threads) for folder in dict.fromkeys(folders)]


def _reference(jobs: list[Job], name: str | None) -> int:
    """Index of the first job with the Bundle ``name``."""
    wanted = jobs[0].name if name is None else Path(name).name
    for i, job in enumerate(jobs):
        if job.name == wanted:
            return i
    known = ", ".join(dict.fromkeys(job.name for job in jobs))
    raise OptionError(f"--reference {name!r} is none of the Bundles to measure (known: {known})")


def _print_measurements(records: list[Measurement]) -> None:
    rows = [(r.bundle, r.threads, f"{r.network_ms.median:.2f} [{r.network_ms.p90:.2f}]",
             f"{r.end_to_end_ms.median:.2f}", r.ratio, "yes" if r.valid else f"NO: {'; '.join(r.invalid_reasons)}")
            for r in records]
    ratios = [r.ratio for r in records if r.ratio]
    to = f"ratio to {ratios[0].to}, {ratios[0].threads}T" if ratios else "ratio"
    right = ("threads", "network ms [p90]", "end to end ms")
    _print_table(("bundle", *right, "ratio", "valid"), rows, right, wrap=("valid",))
    print(f"{records[0].device}: {records[0].environment.machine.cpu}; medians of "
          f"{records[0].protocol.rounds * records[0].protocol.per_round} images; {to}, with 95 % interval")


class _Bar:
    """A progress bar on a terminal's stderr; silent elsewhere."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        console = Console(stderr=True)
        self.progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self.progress.start()
        self.task = self.progress.add_task("starting", total=None)
        return self.tick

    def tick(self, what: str, done: int, total: int) -> None:
        self.progress.update(self.task, description=what, completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        self.progress.stop()


@app.command("bench compare", epilog="Examples:\n\nedgeface bench dist/edgeface-n-* --save new.json\n\n"
                                     "edgeface bench compare old.json new.json --fail-slower")
def bench_compare(
    old: Annotated[Path, typer.Argument(metavar="OLD.json", help="Records of `edgeface bench --save`.")],
    new: Annotated[Path, typer.Argument(metavar="NEW.json", help="The same, measured later.")],
    fail_slower: Annotated[bool, typer.Option(
        "--fail-slower", help="Exit with code 1 when a model became slower, for a build that must notice.")] = False,
    format: Format = "table",
) -> None:
    """Say which models became slower or faster between two measurements."""
    from edgeface.latency.measurement import load_measurements
    from edgeface.latency.regression import compare_records

    _check_format(format)
    found = compare_records(load_measurements(old), load_measurements(new))
    if format == "json":
        _print_json(found.to_json())
    else:
        _print_regression(found)
    if fail_slower and any(change.verdict == "slower" for change in found.changes):
        raise typer.Exit(1)


def _print_regression(found: Regression) -> None:
    rows = []
    for change in found.changes:
        bundle, device, threads, _ = change.new.key
        ratio = change.ratio
        against = "; ".join((*change.reasons(), *change.notes))
        rows.append((bundle, device, threads, f"{change.old.network_ms.median:.2f}",
                     f"{change.new.network_ms.median:.2f}", f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
                     change.verdict, against))
    right = ("threads", "old ms", "new ms")
    _print_table(("bundle", "device", *right, "new / old", "verdict", "beware"), rows, right, wrap=("beware",))
    for name, keys in (("old", found.only_old), ("new", found.only_new)):
        for bundle, device, threads, _ in keys:
            print(f"only in the {name} file: {bundle} on {device}, {threads} thread(s)")


@app.command("device check", epilog="Examples:\n\nedgeface device check local\n\n"
                                    "edgeface device check ssh://pi@raspberrypi.local\n\n"
                                    "Exit code: 0 when the device can measure, 1 when something is missing, 2 when it "
                                    "cannot be reached.")
def device_check(
    url: Annotated[str, typer.Argument(metavar="URL", help=DEVICE_HELP)],
    format: Format = "table",
) -> None:
    """Say what a device has, what must still be installed on it, and with which command."""
    from edgeface.latency.devices import open_device

    _check_format(format)
    with open_device(url) as device:
        found = device.check()
    if format == "json":
        _print_json([dataclasses.asdict(finding) for finding in found])
    else:
        _print_findings(found)
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)


def _print_findings(found: list[Finding]) -> None:
    for finding in found:
        print(f"{'ok' if finding.ok else 'MISSING':8}{finding.what}")
        if finding.fix:
            print(f"{'':8}{'get it with' if finding.ok else 'run'}: {finding.fix}")


@app.command("weights import",
             epilog="Examples:\n\nedgeface weights import EXTD_32.pth --model extd-fpn-32-prelu\n\n"
                    "edgeface weights import eresfd_16.pth.*.pth --model eresfd-16 --out mine.safetensors\n\n"
                    "edgeface detect photo.jpg --model mine.safetensors\n\n"
                    "Nothing in a file is run: one that holds anything but tensors is refused.")
def weights_import(
    files: Annotated[list[Path], typer.Argument(
        metavar="FILE...", help="Checkpoint of the authors: .pth, .pt or .safetensors; several files if it comes so.")],
    model: Annotated[str, typer.Option(help="Network that the weights are of, as `edgeface models` lists them.")],
    out: Annotated[Path | None, typer.Option(help="File to write. Default: MODEL.safetensors.")] = None,
    format: Format = "table",
) -> None:
    """Turn weights that others published into a file that --model takes."""
    _check_format(format)
    _require_torch("zoo", "importing weights")
    from edgeface.importing import import_weights

    done = import_weights(files, model, out or Path(f"{model}.safetensors"))
    if format == "json":
        _print_json(done.to_json())
    else:
        print(f"{done.weights}: {done.tensors} tensors, {done.parameters} parameters of {done.model}")


def main() -> int:
    """Run the command line; returns the exit code."""
    return run(app, "edgeface")


def run(commands: typer.Typer, name: str) -> int:
    """Run ``commands`` as the program ``name``: a user's mistake is one line on stderr and exit code 2."""
    try:
        commands(prog_name=name)
    except EdgefaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, such as head, has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  (kept open: the interpreter flushes it at exit)
    except OSError as error:
        print(f"error: {OutputError(str(error))}", file=sys.stderr)
        return 2
    return 0
