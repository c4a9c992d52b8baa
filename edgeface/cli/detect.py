"""``edgeface detect``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeface.cli.flags import DEFAULT_MODEL, Fast, Format, Model, Threads, Weights, tell_fast
from edgeface.cli.output import print_json, print_table, printable
from edgeface.cli.program import FAILED, Stopped
from edgeface.cli.terminal import Terminal
from edgeface.errors import ImageError

if TYPE_CHECKING:
    from edgeface.detector import Detector
    from edgeface.images.marked import Saver

Found = dict[str, Any]
"""name and faces of one image, as JSON has them"""
EPILOG = """Examples:

edgeface detect photo.jpg --save out.jpg

edgeface detect holiday/ --save marked/ --format json > faces.json

edgeface detect clip.mp4 --save marked.mp4 --model dist/edgeface-n-tflite-fp32-640x480"""


Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="Photos, folders, video files, or camera:0."),
]
Save = Annotated[
    Path | None,
    typer.Option(help="Write the photo or video with boxes here; a folder for several."),
]
ScoreThreshold = Annotated[
    float, typer.Option(help="Report faces that score at least this, 0 to 1.")
]
NmsThreshold = Annotated[
    float, typer.Option(help="Of two boxes with a higher IoU keep the better one.")
]
Size = Annotated[
    str | None,
    typer.Option(
        help=(
            "Long side in px that photos are scaled to, or 'original'; exported files have"
            " their own."
        )
    ),
]
MaxFrames = Annotated[int | None, typer.Option(min=1, help="Stop after this many frames in all.")]


def command(
    images: Images,
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    save: Save = None,
    score_threshold: ScoreThreshold = 0.5,
    nms_threshold: NmsThreshold = 0.45,
    size: Size = None,
    threads: Threads = 1,
    fast: Fast = False,
    max_frames: MaxFrames = None,
    format: Format = "table",
) -> int | None:
    from edgeface.detector import Detector
    from edgeface.images.marked import Saver
    from edgeface.quiet import quiet

    saver = Saver(save, images) if save else contextlib.nullcontext()
    found: list[Found] = []
    with quiet():
        long_side = int(size) if size is not None and size.isdigit() else size
        opened = Detector.open(
            model, threads, score_threshold, nms_threshold, long_side, fast, weights
        )
    with Terminal() as terminal, opened as detector, saver as keep:
        tell_fast(terminal, detector.runner.runtime, fast)
        try:
            failures = _detect(detector, images, keep, max_frames, found, terminal)
        except KeyboardInterrupt:
            failures = None
    if format == "json":
        print_json(found)
    else:
        _print_faces(found)
    if failures is None:
        raise Stopped(f"{len(found)} images were looked at, what was found in them is printed")
    return FAILED if failures else None


def _detect(
    detector: Detector,
    images: Sequence[str],
    saver: Saver | None,
    most: int | None,
    found: list[Found],
    terminal: Terminal,
) -> int:
    """Append what is found in each image to ``found``; returns how many could not be read."""
    from edgeface.images import sources

    failures: list[ImageError] = []

    def failed(error: ImageError) -> None:
        failures.append(error)
        terminal.line(f"error: {error}")

    for name, image in sources(images, failed):
        faces = detector.detect(image)
        found.append({"image": name, "faces": faces.to_json()})
        terminal.tick("detecting", len(found), 0, name)
        if saver:
            saver.add(name, image, faces)
        if len(found) == most:
            break
    return len(failures)


def _print_faces(found: list[Found]) -> None:
    rows: list[tuple[Any, ...]] = []
    for item in found:
        name = printable(item["image"])
        rows += [
            (name, f"{face['score']:.3f}", *(f"{v:.1f}" for v in face["box"]))
            for face in item["faces"]
        ]
        if not item["faces"]:
            rows.append((name, "no face", "", "", "", ""))
    figures = ("score", "x1", "y1", "x2", "y2")
    if rows:
        print_table(("image", *figures), rows, right=figures)
