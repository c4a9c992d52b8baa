"""``edgeface quantize``, in a checkout."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgeface.backends import BACKENDS
from edgeface.cli.failures import Failures
from edgeface.cli.flags import DEFAULT_MODEL, NETWORK_HELP, Format, Threads, Weights
from edgeface.cli.output import print_json
from edgeface.cli.program import stoppable
from edgeface.cli.terminal import Terminal
from edgeface.errors import EdgefaceError, OptionError
from edgeface.latency.measurement import Measurement
from edgeface.options import MAX_SEED, parse_size
from edgeface.pages.figures import check_plot
from edgeface.quiet import quiet_stage
from quantize.ranges import SCALES
from quantize.request import QuantizeRequest

SIZE = "640x480"
TARGETS = tuple(row.target for row in BACKENDS.values() if "int8" in row.precisions)
EPILOG = """Examples:

edgeface quantize --target tflite --data wider

edgeface quantize --target ncnn --data wider --calibration my-photos --images 200 --max-drop 0.3

edgeface quantize --target openvino --bundle dist/mine-openvino-fp32-320x320 --data wider \
--plot report.png

edgeface quantize --target tflite --model runs/mine/weights.safetensors --data photos \
--annotations kept.csv

edgeface quantize --target onnx --calibration my-photos --no-accuracy

The Bundle is written to OUT/MODEL-TARGET-int8-WxH/ (for a weights file:
OUT/MODEL-<8 digits of its SHA-256>-TARGET-int8-WxH/), and without --bundle also the fp32 one that
it is made from. Its manifest holds AP before and after, the layers kept in float, and the SHA-256
of every calibration photo. A model that misses the budget is not written. If stopped, run the same
command again to continue: measurements are kept in a hidden file in OUT until the Bundle is
written."""


Target = Annotated[str, typer.Option(help=f"Runtime to quantise for: {', '.join(TARGETS)}.")]
Network = Annotated[
    str | None,
    typer.Option(help=f"{NETWORK_HELP} Default: {DEFAULT_MODEL}."),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_SEED,
        help=(
            "Use random weights with this seed: for latency and quantisation noise; accuracy is"
            " not measured."
        ),
    ),
]
Size = Annotated[
    str | None,
    typer.Option(help=f"Input size WIDTHxHEIGHT in px, multiples of 32. Default: {SIZE}."),
]
BundleFolder = Annotated[
    Path | None,
    typer.Option(help="Quantise this fp32 Bundle of the same target instead of exporting --model."),
]
MaxDrop = Annotated[
    float,
    typer.Option(
        help=(
            "Accuracy budget: largest loss allowed in easy, medium or hard AP, in AP points (0"
            " to 100). The most damaging layers are kept in float until it holds."
        )
    ),
]
MaxReverted = Annotated[
    float,
    typer.Option(help="Largest share of the layers, 0 to 1, that --max-drop may keep in float."),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Folder of calibration photos, searched at any depth, for the activation ranges."
            " Default: the training photos of --data, or those not in --annotations."
        )
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        help="Number of calibration photos, 1 to 4096. Default: 64, or most of a smaller folder."
    ),
]
CalibrationSeed = Annotated[
    int,
    typer.Option(min=0, max=MAX_SEED, help="Seed for choosing them; another takes other photos."),
]
Scale = Annotated[
    str | None,
    typer.Option(
        help=(
            f"How activation ranges are chosen: {', '.join(SCALES)} (not all on every target)."
            " Default: the target's best; if that misses the budget, the others are tried before"
            " any layer is kept in float."
        )
    ),
]
Wider = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Photos to measure AP on: a WIDER FACE folder with WIDER_val/images and"
            " eval_tools/ground_truth, or the folder of the photos in --annotations."
        )
    ),
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Face boxes for your own photos below --data, as for edgeface eval: AP is measured on"
            " these photos (reported as hard), and they are not used for calibration."
        )
    ),
]
NoAccuracy = Annotated[
    bool,
    typer.Option(
        "--no-accuracy",
        help="Measure no AP and hold no budget, so that no annotated photos are needed.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder in which the Bundles' folders are created.")]
Plot = Annotated[
    Path | None,
    typer.Option(help="Plot AP by face height and output noise to this .png or .svg."),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show the output of converters and runtimes.")
]


def quantize(
    target: Target,
    model: Network = None,
    weights: Weights = None,
    seed: Seed = None,
    size: Size = None,
    bundle: BundleFolder = None,
    max_drop: MaxDrop = 0.5,
    max_reverted: MaxReverted = 0.5,
    calibration: Calibration = None,
    images: Images = None,
    calibration_seed: CalibrationSeed = 0,
    scale: Scale = None,
    data: Wider = None,
    annotations: Annotations = None,
    no_accuracy: NoAccuracy = False,
    threads: Threads = 1,
    out: Out = Path("dist"),
    plot: Plot = None,
    format: Format = "table",
    verbose: Verbose = False,
) -> int | None:
    if bundle is not None and (model is not None or size is not None):
        raise OptionError(
            "--bundle excludes --model and --size: a Bundle has its network and size inside"
        )
    if annotations is not None and no_accuracy:
        raise OptionError(
            "--annotations are of photos that accuracy is measured on: leave --no-accuracy out"
        )
    width, height = parse_size(size or SIZE)
    request = QuantizeRequest(
        target,
        model or DEFAULT_MODEL,
        width,
        height,
        weights,
        seed,
        bundle,
        max_drop,
        max_reverted,
        images,
        calibration_seed,
        scale,
        not no_accuracy,
        threads,
    )
    if plot is not None:
        folders = [folder for folder in (data, calibration) if folder] if plot.exists() else []
        check_plot(plot, (file for folder in folders for file in folder.rglob("*")))
    with Terminal(steps=True) as terminal, stoppable("run the same command again to continue"):
        photos = (data, annotations, calibration)
        return _run(request, out, photos, plot, format, verbose, terminal)


def _run(
    request: QuantizeRequest,
    out: Path,
    photos: tuple[Path | None, Path | None, Path | None],
    plot: Path | None,
    format: str,
    verbose: bool,
    terminal: Terminal,
) -> int | None:
    from quantize import report
    from quantize.pipeline import quantize_model

    failures = Failures(terminal)
    data, annotations, calibration = photos
    done = quantize_model(
        request,
        out,
        data=data,
        annotations=annotations,
        calibration=calibration,
        stage=terminal.stage,
        progress=terminal.tick,
        note=terminal.note,
        verbose=verbose,
        on_error=failures,
    )
    path = done.bundle.path
    written = f"{path} is written; what it takes: edgeface bench {shlex.quote(str(path))}"
    latency: dict[str, Measurement] = {}
    with stoppable(written):
        try:
            with quiet_stage("measuring latency", verbose):
                latency = report.measure_latency(done, terminal.tick)
        except EdgefaceError as error:
            terminal.note(f"latency is not measured: {error}")
    try:
        if format == "json":
            print_json(report.as_json(done, latency))
        else:
            report.print_report(done, latency)
    finally:  # also if stdout is full
        if plot:
            report.plot(plot, done)
    return failures.ended("could not be read and were left out")
