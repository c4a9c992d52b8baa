"""``edgeface eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeface.cli.failures import Failures
from edgeface.cli.flags import DEFAULT_MODEL, Fast, Format, Model, Threads, Weights, tell_fast
from edgeface.cli.output import print_json, print_table, say
from edgeface.cli.program import stoppable
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError, counted
from edgeface.files import check_writable
from edgeface.options import EVALUATION_SCALES, check_choice
from edgeface.pages.figures import check_plot

if TYPE_CHECKING:
    from edgeface.evaluation import Evaluation

EPILOG = """Examples:

edgeface eval --data wider

edgeface eval --data wider --model dist/edgeface-n-onnx-fp32-640x480 --plot pr.png

edgeface eval --data wider --model eresfd-16.safetensors --scale multi

edgeface eval --data photos --annotations kept.csv --model runs/mine/weights.safetensors"""


GROUND_TRUTH = ("eval_tools/ground_truth", "wider_face_val.mat")
"""places below --data that may have the ground truth"""
Wider = Annotated[
    Path,
    typer.Option(
        help=(
            "WIDER FACE folder with WIDER_val/images and eval_tools/ground_truth; with"
            " --annotations, any folder of photos."
        )
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        help=(
            "640 (long side; the 'VGA' protocol), original, or multi (several sizes and a flip,"
            " merged by box voting, as published for EXTD and EResFD; about five times as slow as"
            " original)."
        )
    ),
]
AgreedOnly = Annotated[
    bool,
    typer.Option(
        "--agreed-only",
        help=(
            "With --scale multi: keep only faces that two or more boxes agree on, as EXTD does."
            " Default: all, as EResFD does."
        ),
    ),
]
Heights = Annotated[
    str,
    typer.Option(
        help="Bin faces by height as annotated (px of the photo) or evaluated (px at --scale)."
    ),
]
Plot = Annotated[
    Path | None, typer.Option(help="Plot the precision-recall curves to this .png or .svg.")
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Also write the boxes to this folder as text files that the official tool reads; with"
            " --annotations, in the folder structure of the photos."
        )
    ),
]
Landmarks = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Also measure landmark error on the photos below --data that this file labels:"
            " RetinaFace's labels, or CSV with ten more columns."
        )
    ),
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Face boxes for your own photos below --data, WIDER FACE text or CSV with"
            " image,x1,y1,x2,y2: one AP over all faces, reported as hard."
        )
    ),
]


def command(
    data: Wider,
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    scale: Scale = "640",
    agreed_only: AgreedOnly = False,
    heights: Heights = "annotated",
    plot: Plot = None,
    predictions: Predictions = None,
    landmarks: Landmarks = None,
    annotations: Annotations = None,
    threads: Threads = 1,
    fast: Fast = False,
    format: Format = "table",
) -> int | None:
    check_choice("scale", (scale,), EVALUATION_SCALES)
    if plot:
        check_plot(plot, _photos(data, annotations) if plot.exists() else ())
    if predictions:
        check_writable(predictions, "--predictions")
    if not data.is_dir():
        raise DataError(
            f"--data {data} is not a folder: give one as WIDER FACE is distributed, with ground"
            " truth, or one of photos with --annotations FILE"
        )
    if annotations is None and not any((data / place).exists() for place in GROUND_TRUTH):
        raise DataError(
            f"--data {data} has no eval_tools/ground_truth to measure AP with: give WIDER FACE's"
            " folder, or --annotations FILE for photos of your own"
        )
    from edgeface.evaluation import check_predictions, evaluate_model

    if predictions:
        check_predictions(predictions, _names(annotations))
    with Terminal() as terminal, stoppable("nothing was kept: the same command begins again"):
        failures = Failures(terminal)
        done = evaluate_model(
            model,
            data,
            scale,
            threads,
            heights=heights,
            progress=terminal.tick,
            fast=fast,
            weights=weights,
            agreed_only=agreed_only,
            landmarks=landmarks,
            annotations=annotations,
            on_error=failures,
        )
        tell_fast(terminal, done.report.protocol.runtime, fast)
        try:
            _print_report(done, heights, format)
        finally:  # also if stdout is full
            _save(done, plot, predictions)
        total = done.report.images + len(failures.told)
        others = f"the figures are those of the other {done.report.images}"
        return failures.ended(f"could not be read; {others}", total)


def _names(annotations: Path | None) -> list[str]:
    """Paths of the user's own photos, which no output may replace; empty for WIDER FACE.

    WIDER FACE's photos are .jpg, which no plot is, in folders of events."""
    from edgeface.images.annotations import read_annotations

    return [image.path for image in read_annotations(annotations)] if annotations else []


def _photos(data: Path, annotations: Path | None) -> list[Path]:
    """The user's own photos, in any of the folders below --data that they are read from."""
    from edgeface.evaluation.own import find_photo

    found = (find_photo(data, name) for name in _names(annotations))
    return [photo for photo in found if photo]


def _save(done: Evaluation, plot: Path | None, predictions: Path | None) -> None:
    from edgeface.evaluation import plot_curves, save_predictions

    if plot:
        plot_curves(plot, done.report, done.result)
    if predictions:
        save_predictions(predictions, done.predictions.detections)


def _print_report(done: Evaluation, heights: str, format: str) -> None:
    report = done.report.to_json() | (done.landmarks.to_json() if done.landmarks else {})
    if format == "json":
        print_json(report)
        return
    _print_accuracy(report)
    _print_points(report)
    images = f"{counted(report['images'], 'image')}, heights in {heights} px"
    say(f"{report['model']}, {images}; {done.report.protocol}")
    if done.landmarks:
        say(str(done.landmarks))


def _print_accuracy(report: dict[str, Any]) -> None:
    names = ("easy", "medium", "hard", *report["by_height"])
    values = (report["easy"], report["medium"], report["hard"], *report["by_height"].values())
    print_table(
        ("", *names),
        [
            ("AP", *(None if v is None else f"{v:.4f}" for v in values)),
            ("faces", *(report["faces"].get(name) for name in names)),
        ],
        right=names,
    )


def _print_points(report: dict[str, Any]) -> None:
    from edgeface.evaluation.report import POINT_COLUMNS, point_rows

    rows = point_rows(report["operating_points"])
    if rows:
        say("")
        say("what a score threshold gives (edgeface detect --score-threshold), faces of hard:")
        print_table(POINT_COLUMNS, rows, right=POINT_COLUMNS)
