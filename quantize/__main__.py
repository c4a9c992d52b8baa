"""``python -m quantize``: the command line of the quantising room."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgeface.backends import BACKENDS
from edgeface.cli import run
from edgeface.errors import OptionError
from edgeface.options import parse_size
from edgeface.quiet import quiet_stage
from export.request import require
from export.terminal import Terminal
from quantize.ranges import SCALES
from quantize.request import QuantizeRequest

FORMATS = ("table", "json")
MODEL, SIZE = "edgeface-n", "640x480"
TARGETS = tuple(row.target for row in BACKENDS.values() if "int8" in row.precisions)
EPILOG = """Examples:

python -m quantize --target tflite --data wider

python -m quantize --target ncnn --data wider --calibration my-photos --images 200 --max-drop 0.3

python -m quantize --target openvino --bundle dist/mine-openvino-fp32-320x320 --data wider --plot report.png

python -m quantize --target onnx --calibration my-photos --no-accuracy

The Bundle lands in OUT/MODEL-TARGET-int8-WxH/ beside the fp32 one that it was made from. Its manifest holds AP before
and after, the layers kept in float, and the SHA-256 of every calibration photo. A model that cannot hold the budget is
not written. Stopped at any moment, the same command goes on where it was: until a Bundle is written, what was measured
is kept in a hidden file in OUT.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(help="Make an INT8 file whose accuracy is at most so many AP points below the float one's.", epilog=EPILOG)
def quantize(
    target: Annotated[str, typer.Option(help=f"Runtime to quantise for: {', '.join(TARGETS)}.")],
    model: Annotated[str | None, typer.Option(
        help=f"Network, as `edgeface models` lists them, or a .safetensors file that edgeface wrote. Default: "
             f"{MODEL}.")] = None,
    weights: Annotated[Path | None, typer.Option(
        help="Your own weights for the network that --model names, a .safetensors file. Default: those shipped with "
             "edgeface; random ones for a network that ships without.")] = None,
    seed: Annotated[int | None, typer.Option(
        help="Use random weights drawn from this number: for latency and noise; accuracy is not measured.")] = None,
    size: Annotated[str | None, typer.Option(
        help=f"Input WIDTHxHEIGHT in px, multiples of 32. Default: {SIZE}.")] = None,
    bundle: Annotated[Path | None, typer.Option(
        help="Quantise this fp32 Bundle of the same target, instead of exporting --model anew.")] = None,
    max_drop: Annotated[float, typer.Option(
        help="Accuracy budget: AP points (0 to 100) that the worst of easy, medium and hard may lose. Layers that do "
             "most damage are kept in float until it holds.")] = 0.5,
    max_reverted: Annotated[float, typer.Option(
        help="Share of the layers, 0 to 1, that may be kept in float for it.")] = 0.5,
    calibration: Annotated[Path | None, typer.Option(
        help="Folder of photos, at any depth, that activation ranges are taken from. Default: the training photos of "
             "--data.")] = None,
    images: Annotated[int, typer.Option(help="Calibration photos taken from it.")] = 64,
    calibration_seed: Annotated[int, typer.Option(help="Another number takes other photos.")] = 0,
    scale: Annotated[str | None, typer.Option(
        help=f"How a range is chosen, of {', '.join(SCALES)}, as far as the target takes it. Default: what suits the "
             "target best.")] = None,
    data: Annotated[Path | None, typer.Option(
        help="WIDER FACE folder with WIDER_val/images and eval_tools/ground_truth, which AP is measured on.")] = None,
    no_accuracy: Annotated[bool, typer.Option(
        "--no-accuracy", help="Do without WIDER FACE: no AP, no budget, and the manifest says so.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads while AP is measured.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder that the Bundles' folders are written to.")] = Path("dist"),
    plot: Annotated[Path | None, typer.Option(
        help="Draw AP by face height and the noise of the heads into this PNG.")] = None,
    format: Annotated[str, typer.Option(help="How the result is printed: table or json.")] = "table",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what converters and runtimes print.")] = False,
) -> None:
    if bundle is not None and (model is not None or size is not None):
        raise OptionError("--bundle excludes --model and --size: a Bundle has its network and size inside")
    width, height = parse_size(size or SIZE)
    request = QuantizeRequest(
        target, model or MODEL, width, height, weights, seed, bundle, max_drop, max_reverted, images, calibration_seed,
        scale, not no_accuracy, threads)
    if format not in FORMATS:
        raise OptionError(f"unknown format {format!r} (known: {', '.join(FORMATS)})")
    if plot is not None:
        require("drawing the report", "matplotlib")
    with Terminal() as terminal:
        try:
            _run(request, out, data, calibration, plot, format, verbose, terminal)
        except KeyboardInterrupt:
            terminal.line("stopped: the same command goes on from here")
            raise typer.Exit(130) from None


def _run(request: QuantizeRequest, out: Path, data: Path | None, calibration: Path | None, plot: Path | None,
         format: str, verbose: bool, terminal: Terminal) -> None:
    from quantize import report
    from quantize.pipeline import quantize_model

    done = quantize_model(request, out, data=data, calibration=calibration, stage=terminal.stage,
                          progress=terminal.tick, note=terminal.note, verbose=verbose)
    with quiet_stage("measuring latency", verbose):
        latency = report.measure_latency(done, terminal.tick)
    if plot:
        report.plot(plot, done)
    if format == "json":
        print(json.dumps(report.as_json(done, latency), indent=1))
    else:
        report.print_report(done, latency)


def main() -> int:
    """Run the command."""
    return run(app, "python -m quantize")


if __name__ == "__main__":
    sys.exit(main())
