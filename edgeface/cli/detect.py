"""``edgeface detect``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeface.cli.flags import DEFAULT_MODEL, Fast, Model, Threads, Weights, known_format, tell_fast
from edgeface.cli.program import stoppable_by_signals
from edgeface.cli.rows import ROW_FORMATS, open_rows
from edgeface.cli.terminal import Terminal
from edgeface.errors import OptionError
from edgeface.options import whole_number

if TYPE_CHECKING:
    from edgeface.detector import Detector
    from edgeface.images.inputs import Input

EPILOG = """Examples:

edgeface detect photo.jpg --save out.jpg

edgeface detect holiday/ --save marked/ --format json > faces.json

edgeface detect clip.mp4 --save marked.mp4 --model dist/edgeface-n-tflite-fp32-640x480

edgeface detect camera:0 --show --track --format jsonl

edgeface detect party/ --blur --save shareable/"""


Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...",
        help=(
            "Photos, folders or videos; a camera (camera:0, /dev/video0); or a stream (rtsp://,"
            " http:// and the like)."
        ),
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(help="Save the photo or video with boxes drawn; give a folder for several."),
]
ScoreThreshold = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Lowest score to report; `edgeface eval` shows what each threshold finds.",
    ),
]
NmsThreshold = Annotated[
    float,
    typer.Option(min=0, max=1, help="Above this IoU, two boxes are one face; keep the better."),
]
Size = Annotated[
    str | None,
    typer.Option(
        help=(
            "Long side in px to scale images to, or 'original'; a Bundle of fixed size takes"
            " only its own."
        )
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        min=1,
        max=1 << 30,
        help="Refuse photos with more px, judged by the header before decoding.",
    ),
]
MaxFrames = Annotated[
    int | None,
    typer.Option(min=1, max=10**9, help="Stop after this many images and frames in total."),
]
Show = Annotated[
    bool, typer.Option("--show", help="Show every frame in a window; q or Esc closes it.")
]
Track = Annotated[
    bool,
    typer.Option("--track", help="Follow faces from frame to frame; each face keeps its id."),
]
Blur = Annotated[
    bool,
    typer.Option("--blur", help="Blur faces in what is saved or shown, instead of drawing boxes."),
]
Crop = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Save each face here, aligned by its landmarks, 112x112 px, for recognition.",
    ),
]
Format = Annotated[
    str,
    typer.Option(
        callback=lambda format: known_format(format, ROW_FORMATS),
        help="Output format: table, json, or jsonl (one line per image, as it is processed).",
    ),
]


def command(
    images: Images,
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    save: Save = None,
    show: Show = False,
    crop: Crop = None,
    track: Track = False,
    blur: Blur = False,
    score_threshold: ScoreThreshold = 0.5,
    nms_threshold: NmsThreshold = 0.45,
    size: Size = None,
    threads: Threads = 1,
    fast: Fast = False,
    max_frames: MaxFrames = None,
    max_pixels: MaxPixels = 1 << 27,
    format: Format = "table",
) -> int | None:
    _refuse_contradictions(blur, crop, save, show)
    from edgeface.cli.looking import Look
    from edgeface.detector import Detector
    from edgeface.images.inputs import expand
    from edgeface.images.outputs import Outputs
    from edgeface.quiet import quiet

    with stoppable_by_signals(), Terminal() as terminal:
        look = Look(terminal, max_frames, max_pixels)
        inputs = expand(images, look.failed, terminal.note)
        if track:
            _refuse_photos(inputs)
        outputs = Outputs(inputs, save, show, crop, blur)
        with quiet():
            number = whole_number(size or "")
            long_side = size if number is None else number
            opened = Detector.open(
                model, threads, score_threshold, nms_threshold, long_side, fast, weights
            )
        names = [(source.name, source.kind != "image") for source in inputs]
        rows = open_rows(format, names, track)
        with opened as detector, outputs:
            _tell(terminal, detector, model, fast, blur)
            _tell_choice(terminal, detector, model, None if weights else long_side)
            if crop:
                _refuse_pointless(detector, model)
            try:
                look.at(inputs, detector, rows, outputs, track)
            finally:  # whatever ends the loop, the faces found so far are printed
                rows.end()
        return look.ended()


def _refuse_contradictions(blur: bool, crop: Path | None, save: Path | None, show: bool) -> None:
    if blur and crop:
        raise OptionError("--crop writes the faces that --blur hides: leave one of them out")
    if blur and not (save or show):
        raise OptionError("--blur changes what is saved or shown: add --save or --show")


def _refuse_photos(inputs: Sequence[Input]) -> None:
    if inputs and all(source.kind == "image" for source in inputs):
        raise OptionError(
            "--track follows faces from frame to frame, and these are photos; accepted: videos,"
            " cameras and streams; leave it out"
        )


def _refuse_pointless(detector: Detector, model: str) -> None:
    if not detector.runner.layout.landmarks:
        raise OptionError(
            f"--crop turns faces upright by their landmarks, and {model} finds none: take a model"
            f" that does, such as {DEFAULT_MODEL}"
        )


def _tell(terminal: Terminal, detector: Detector, model: str, fast: bool, blur: bool) -> None:
    tell_fast(terminal, detector.runner.runtime, fast)
    if not detector.runner.trained:
        terminal.note(f"{model} has random weights: the boxes mean nothing")
    if blur:
        terminal.note(
            "a face that is not found is not blurred: look at the result; a lower"
            " --score-threshold hides more"
        )


def _tell_choice(
    terminal: Terminal, detector: Detector, model: str, size: int | str | None
) -> None:
    """Tell the user which file and runtime run for a network name, and at which size."""
    from edgeface import zoo
    from edgeface.bundle import MANIFEST

    if model not in zoo.names() or (Path(model) / MANIFEST).is_file():
        return
    runner = detector.runner
    ready = None if runner.runtime.startswith("torch") else zoo.find_ready(model, size)
    width, height = runner.input_size or (0, 0)
    where = f"input {width}x{height} px" if width else f"long side {detector.size} px"
    file = f"{ready.name}, " if ready else ""
    terminal.note(f"{model}: {file}{runner.runtime}, {where}")
