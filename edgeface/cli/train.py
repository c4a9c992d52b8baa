"""``edgeface train``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeface.backends import require_module
from edgeface.cli.flags import DEFAULT_MODEL, Annotations, Cache, Photos, TorchDevice, given, with_options
from edgeface.cli.program import Stopped
from edgeface.cli.terminal import Terminal
from edgeface.training.options import TrainOptions, get_recipe

EPILOG = """Examples:

edgeface train --data wider --out runs/mine

edgeface train --data photos --annotations faces.csv --out runs/mine --samples 100000

torchrun --nproc-per-node 2 -m edgeface train --data wider --out runs/mine

Writes weights, checkpoints, log and curves into --out. Killed at any moment, the same command goes on where the run
was."""


@with_options(TrainOptions)
def command(
    ctx: typer.Context,
    data: Photos,
    out: Annotated[Path, typer.Option(help="Folder of this run; a run that is there is resumed.")],
    model: Annotated[str, typer.Option(help="Network, as `edgeface models` lists them.")] = DEFAULT_MODEL,
    genotype: Annotated[Path | None, typer.Option(
        help="Of the neck of an ASFD network: the genotype.json of `edgeface autofem`; the network is then called "
             "MODEL-<12 digits>. Default: the model's own.")] = None,
    recipe: Annotated[str | None, typer.Option(
        help="Options to begin with: edgeface (the defaults below), extd, eresfd or asfd. Default: that of the "
             "network's family.")] = None,
    annotations: Annotations = None,
    cache: Cache = None,
    in_memory: Annotated[bool, typer.Option(
        help="Hold the decoded photos in memory instead of mapping the file.")] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads per process; 0 leaves torch's own choice.")] = 0,
    device: TorchDevice = "cpu",
    options: Any = None,
) -> None:
    from edgeface.models.genotype import read_genotype
    from edgeface.models.registry import get_architecture, with_genotype

    architecture = get_architecture(model)
    if genotype:
        architecture = with_genotype(architecture, read_genotype(genotype))
    options = dataclasses.replace(get_recipe(recipe, architecture), **given(ctx, options))
    require_module("torch", "train", "training")
    from edgeface.training import train_model

    with Terminal(shown=os.environ.get("RANK", "0") == "0") as terminal:
        finished = train_model(architecture, options, data, out, annotations, cache or out / "cache", in_memory,
                               threads, device, progress=terminal.tick)
    if not finished:
        raise Stopped("the state is saved, the same command goes on from here")
