"""``edgeface weights import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeface.backends import require_module
from edgeface.cli.flags import Format
from edgeface.cli.output import print_json, say
from edgeface.files import check_writable

EPILOG = """Examples:

edgeface weights import EXTD_32.pth --model extd-fpn-32-prelu

edgeface weights import eresfd_16.pth.*.pth --model eresfd-16 --out mine.safetensors

edgeface detect photo.jpg --model mine.safetensors

No code in a checkpoint is executed: a file that holds anything but tensors is refused."""


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help=(
                "Checkpoint published by the authors: .pth, .pt or .safetensors, in one or"
                " several files."
            ),
        ),
    ],
    model: Annotated[
        str, typer.Option(help="Network that the weights belong to (see `edgeface models`).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Output file. Default: MODEL.safetensors.")
    ] = None,
    format: Format = "table",
) -> None:
    from edgeface.architecture.registry import get_architecture

    get_architecture(model)
    require_module("torch", "zoo", "importing weights")
    from edgeface.zoo import check_weights_out
    from edgeface.zoo.importing import import_weights

    out = out or Path(f"{model}.safetensors")
    check_writable(out, folder=False)
    check_weights_out(out)
    done = import_weights(files, model, out)
    if format == "json":
        print_json(done.to_json())
    else:
        say(f"{done.weights}: {done.tensors} tensors, {done.parameters} parameters of {done.model}")
