"""``edgeface autofem``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeface.backends import require_module
from edgeface.cli.failures import Failures
from edgeface.cli.flags import Annotations, Cache, Format, Photos, TorchDevice, with_options
from edgeface.cli.output import print_json, print_table
from edgeface.cli.program import stoppable
from edgeface.cli.terminal import Terminal
from edgeface.options import MAX_THREADS
from edgeface.search.autofem.options import AutoFEMOptions

if TYPE_CHECKING:
    from edgeface.architecture.genotype import Genotype

EPILOG = """Examples:

edgeface autofem --data wider --out runs/autofem

edgeface autofem --data photos --annotations faces.csv --out runs/autofem --steps 500

edgeface train --model asfd-d0 --genotype runs/autofem/genotype.json --data wider --out runs/mine

Operations are learned together with the weights (differentiable search). Writes genotype.json to
--out. If interrupted, run the same command again to resume."""


@with_options(AutoFEMOptions)
def command(
    data: Photos,
    out: Annotated[
        Path, typer.Option(help="Folder of this search; an existing search is resumed.")
    ],
    annotations: Annotations = None,
    cache: Cache = None,
    threads: Annotated[
        int,
        typer.Option(min=0, max=MAX_THREADS, help="CPU threads; 0: as torch chooses."),
    ] = 0,
    device: TorchDevice = "cpu",
    format: Format = "table",
    options: Any = None,
) -> int | None:
    require_module("torch", "train", "searching a neck")
    from edgeface.search.autofem.search import refuse_others_files, search
    from edgeface.training import open_photos, prepare_torch

    prepare_torch(threads, device)
    refuse_others_files(out)
    with (
        Terminal() as terminal,
        stoppable("run the same command again to continue from the last checkpoint"),
    ):
        failures = Failures(terminal)
        photos = open_photos(
            data,
            annotations,
            cache or out / "cache",
            progress=terminal.tick,
            on_error=failures,
        )
        found = search(options, photos, out, device, terminal.tick)
        terminal.line(str(out / "genotype.json"))
        if format == "json":
            print_json(dataclasses.asdict(found))
        else:
            _print_genotype(found)
        return failures.ended("could not be read and were left out of the search")


def _print_genotype(found: Genotype) -> None:
    rows = [
        (
            4 << level,
            *edges,
            "  ".join(f"{node.op}({', '.join(map(str, node.inputs))})" for node in cell),
        )
        for level, (*edges, cell) in enumerate(
            zip(
                (*found.top_down, None),
                (None, *found.bottom_up),
                found.same,
                found.context,
                strict=True,
            )
        )
    ]
    reads = "context: operation(what it reads)"
    print_table(
        ("stride", "from above", "from below", "same level", reads),
        rows,
        right=("stride",),
        fold=(reads,),
    )
