"""``edgeface compare``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeface.cli.flags import Format
from edgeface.cli.output import print_json, print_table, say
from edgeface.cli.terminal import Terminal
from edgeface.errors import OptionError
from edgeface.pages.figures import check_plot

if TYPE_CHECKING:
    from edgeface.probes.compare import Comparison

EPILOG = """Examples:

edgeface compare edgeface-n dist/edgeface-n-ncnn-fp32-640x480 --image photo.jpg

edgeface compare dist/edgeface-n-tflite-fp32-640x480 dist/edgeface-n-tflite-int8-640x480 \
--image photo.jpg --plot p.png

Exit code: 0 if the two agree within the tolerance, 1 if they differ, 2 on an error."""


def command(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help=(
                "Reference: folder of an exported Bundle, name of a ready file (see edgeface"
                " models), or, for the network in torch, its name or a .safetensors file that"
                " edgeface wrote."
            ),
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="The same, for the same network and size."),
    ],
    image: Annotated[
        Path | None, typer.Option(help="Photo to run both on, best with faces. Required.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help=(
                "Relative RMS error, rms(A - B) / std(A), above which two tensors differ, 0 to"
                " 1000. Default: 0.001 for fp32 files, 0.01 if one is fp16, 0.3 if one is int8."
            )
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Plot the relative RMS error of every tensor to this .png or .svg."),
    ] = None,
    format: Format = "table",
) -> int:
    if image is None:
        raise OptionError(
            "--image is missing: both files need a photo to compute on, best one with faces: run: "
            f"edgeface compare {shlex.quote(a)} {shlex.quote(b)} --image photo.jpg"
        )
    if plot:
        check_plot(plot, [image])
    from edgeface.images import read_image
    from edgeface.probes.compare import Subject, compare, plot_comparison

    subjects = Subject.find(a), Subject.find(b)
    done = compare(*subjects, read_image(image), tolerance)
    if plot:
        plot_comparison(plot, done)
    if format == "json":
        print_json(done.to_json())
    else:
        _print_comparison(done)
    of_a, of_b = (subject.weights for subject in subjects)
    if done.parting is not None and of_a and of_b and of_a != of_b:
        Terminal().note(
            f"A and B have different weights, SHA-256 {of_a[:8]} and {of_b[:8]}: that they part"
            " says nothing of an export; compare a file with the weights that it was made of"
        )
    return 0 if done.parting is None else 1


def _print_comparison(done: Comparison) -> None:
    marks = {done.jump: "largest jump", done.parting: "they part"}
    rows = [
        (
            i,
            pair.a.layer,
            pair.b.layer,
            "x".join(map(str, pair.shape)),
            f"{pair.max_abs:.3g}",
            f"{pair.rel_rms:.3g}",
            f"{pair.snr_db:.1f}",
            marks.get(i, ""),
        )
        for i, pair in enumerate(done.pairs)
    ]
    say(f"A: {done.a}")
    say(f"B: {done.b}")
    figures = ("#", "shape", "max abs", "rel. RMS", "SNR dB")
    print_table(("#", "layer of A", "layer of B", *figures[1:], ""), rows, right=figures)
    for line in done.sentences():
        say(line)
