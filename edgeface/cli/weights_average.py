"""``edgeface weights average``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeface.backends import require_module
from edgeface.cli.flags import Format
from edgeface.cli.output import print_json, say
from edgeface.errors import counted
from edgeface.files import check_writable

EPILOG = """Examples:

edgeface train --data wider --from runs/long --out runs/a --samples 200000 --seed 1

edgeface train --data wider --from runs/long --out runs/b --samples 200000 --seed 2

edgeface weights average runs/[ab]/weights.safetensors --out mean.safetensors

edgeface eval --data wider --model mean.safetensors

Averaging helps only for runs that share one starting point, and not always: evaluate the mean
beside its parts."""


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Two or more .safetensors files of the same network, from `edgeface train`.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output .safetensors file.")],
    format: Format = "table",
) -> None:
    require_module("torch", "zoo", "averaging weights")
    from edgeface.zoo import check_weights_out
    from edgeface.zoo.averaging import average_weights

    check_writable(out, folder=False)
    check_weights_out(out)
    done = average_weights(files, out)
    if format == "json":
        print_json(done.to_json())
    else:
        say(f"{done.weights}: {done.model}, mean of {counted(len(done.files), 'file')}")
