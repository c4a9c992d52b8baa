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
from edgeface.errors import EdgefaceError, ImageError, OutputError

if TYPE_CHECKING:
    from edgeface.detections import Detections
    from edgeface.detector import Detector
    from edgeface.images.inputs import Input
    from edgeface.images.marked import Saver
    from edgeface.images.scaling import Image

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
MaxPixels = Annotated[
    int,
    typer.Option(
        min=1,
        max=1 << 30,
        help="Refuse photos that claim more px, before memory is taken for them.",
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
    max_pixels: MaxPixels = 1 << 27,
    format: Format = "table",
) -> int | None:
    from edgeface.detector import Detector
    from edgeface.images.inputs import expand
    from edgeface.images.marked import Saver
    from edgeface.quiet import quiet

    with Terminal() as terminal:
        run = _Run(terminal, max_frames, max_pixels)
        inputs = expand(images, run.failed, terminal.note)
        saver = Saver(save, inputs) if save and inputs else contextlib.nullcontext()
        with quiet():
            long_side = int(size) if size is not None and size.isdigit() else size
            opened = Detector.open(
                model, threads, score_threshold, nms_threshold, long_side, fast, weights
            )
        try:
            with opened as detector, saver as keep:
                tell_fast(terminal, detector.runner.runtime, fast)
                _tell_choice(terminal, detector, model, None if weights else long_side)
                if not detector.runner.trained:
                    terminal.note(f"{model} has random weights: the boxes mean nothing")
                run.look(detector, inputs, keep)
        finally:  # whatever ends it, what was found is printed
            if format == "json":
                print_json(run.found)
            else:
                _print_faces(run.found)
        return run.ended()


class _Run:
    """What is found in the inputs, and which of them went wrong."""

    def __init__(self, terminal: Terminal, most: int | None, max_pixels: int) -> None:
        self.terminal, self.most, self.max_pixels = terminal, most, max_pixels
        self.found: list[Found] = []
        self.inputs = self.failures = self.total = 0
        self.stopped = False

    def failed(self, error: EdgefaceError) -> None:
        """An input is none: say so and go on."""
        self.inputs += 1
        self.failures += 1
        self.terminal.line(f"error: {error}")

    def look(self, detector: Detector, inputs: Sequence[Input], saver: Saver | None) -> None:
        """Look at every frame, until Ctrl-C."""
        counts = [source.count for source in inputs]
        self.total = min(sum(counts), self.most or sum(counts)) if all(counts) else 0
        self.inputs += len(inputs)
        try:
            for source in inputs:
                errors = self._look_at(detector, source, saver)
                self.failures += bool(errors)
                for error in errors:
                    self.terminal.line(f"error: {error}")
                if len(self.found) == self.most:
                    return
        except KeyboardInterrupt:
            self.stopped = True

    def _look_at(
        self, detector: Detector, source: Input, saver: Saver | None
    ) -> list[EdgefaceError]:
        """Returns why it could not be read to its end, and why not written."""
        errors: list[EdgefaceError] = []
        try:
            for name, image in source.frames(self.max_pixels):
                faces = detector.detect(image)
                self.found.append({"image": name, "faces": faces.to_json()})
                self.terminal.tick("detecting", len(self.found), self.total, name)
                saver = _saved(saver, name, image, faces, errors)
                if len(self.found) == self.most:
                    break
        except ImageError as error:
            errors.append(error)
        if saver:
            try:
                saver.finish()
            except OutputError as error:
                errors.append(error)
        return errors

    def ended(self) -> int | None:
        """The exit code. Raises Stopped after Ctrl-C."""
        if self.stopped:
            raise Stopped(
                f"{len(self.found)} images were looked at, what was found in them is printed"
            )
        if self.failures and self.inputs > 1:
            self.terminal.line(
                f"error: {self.failures} of {self.inputs} inputs could not be read whole, or not"
                " saved; what was found in the others is printed"
            )
        return FAILED if self.failures else None


def _tell_choice(
    terminal: Terminal, detector: Detector, model: str, size: int | str | None
) -> None:
    """What runs for a name, and at which size."""
    from edgeface import zoo

    if model not in zoo.names():
        return
    runner = detector.runner
    ready = None if runner.runtime.startswith("torch") else zoo.find_ready(model, size)
    width, height = runner.input_size or (0, 0)
    where = f"input {width}x{height} px" if width else f"long side {detector.size} px"
    file = f"{ready.name}, " if ready else ""
    terminal.note(f"{model}: {file}{runner.runtime}, {where}")


def _saved(
    saver: Saver | None, name: str, image: Image, faces: Detections, errors: list[EdgefaceError]
) -> Saver | None:
    """Save one frame; returns None where that cannot be, and more frames need not be tried."""
    try:
        if saver:
            saver.add(name, image, faces)
    except OutputError as error:
        errors.append(error)
        return None
    return saver


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
