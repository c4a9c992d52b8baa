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

The Bundle lands in OUT/MODEL-TARGET-int8-WxH/, of a weights file in
OUT/MODEL-<8 digits of its SHA-256>-TARGET-int8-WxH/, beside the fp32 one that it was made from. Its
manifest holds AP before and after, the layers kept in float, and the SHA-256 of every calibration
photo. A model that cannot hold the budget is not written. Stopped at any moment, the same command
goes on where it was: until a Bundle is written, what was measured is kept in a hidden file in
OUT."""


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
            "Use random weights drawn from this number: for latency and noise; accuracy is"
            " not measured."
        ),
    ),
]
Size = Annotated[
    str | None,
    typer.Option(help=f"Input WIDTHxHEIGHT in px, multiples of 32. Default: {SIZE}."),
]
BundleFolder = Annotated[
    Path | None,
    typer.Option(
        help="Quantise this fp32 Bundle of the same target, instead of exporting --model anew."
    ),
]
MaxDrop = Annotated[
    float,
    typer.Option(
        help=(
            "Accuracy budget: AP points (0 to 100) that the worst of easy, medium and hard"
            " may lose. Layers that do most damage are kept in float until it holds."
        )
    ),
]
MaxReverted = Annotated[
    float, typer.Option(help="Share of the layers, 0 to 1, that may be kept in float for it.")
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Folder of photos, at any depth, that activation ranges are taken from. Default:"
            " the training photos of --data, or those that --annotations do not name."
        )
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        help=("Calibration photos taken from it, 1 to 4096. Default: 64, or most of what there is.")
    ),
]
CalibrationSeed = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, help="Another number takes other photos.")
]
Scale = Annotated[
    str | None,
    typer.Option(
        help=(
            f"How a range is chosen, of {', '.join(SCALES)}, as far as the target takes it."
            " Default: what suits the target best, and if the budget does not hold, the others"
            " before any layer is kept in float."
        )
    ),
]
Wider = Annotated[
    Path | None,
    typer.Option(
        help=(
            "WIDER FACE folder with WIDER_val/images and eval_tools/ground_truth, which AP is"
            " measured on; or the folder of the photos of --annotations."
        )
    ),
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Faces of photos of your own below --data, as edgeface eval takes them: AP, under hard,"
            " is measured on these photos, and no range is taken from them."
        )
    ),
]
NoAccuracy = Annotated[
    bool,
    typer.Option(
        "--no-accuracy",
        help="Do without annotated photos: no AP, no budget, and the manifest says so.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder that the Bundles' folders are written to.")]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw AP by face height and the noise of the heads into this .png or .svg."),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show what converters and runtimes print.")
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
    with Terminal(steps=True) as terminal, stoppable("the same command goes on from here"):
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
    if format == "json":
        print_json(report.as_json(done, latency))
    else:
        report.print_report(done, latency)
    if plot:
        report.plot(plot, done)
    return failures.ended("could not be read and were left out")
