"""``edgeface train``."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeface.backends import require_module
from edgeface.cli.failures import Failures
from edgeface.cli.flags import (
    DEFAULT_MODEL,
    Annotations,
    Cache,
    Network,
    Photos,
    TorchDevice,
    given,
    is_given,
    with_options,
)
from edgeface.cli.output import say
from edgeface.cli.program import Stopped, stoppable_by_signals
from edgeface.cli.terminal import Terminal
from edgeface.errors import OptionError
from edgeface.options import MAX_THREADS
from edgeface.training.options import TrainOptions, get_recipe

if TYPE_CHECKING:
    from edgeface.architecture import Architecture

EPILOG = """Examples:

edgeface train --data wider --out runs/mine

edgeface train --data photos --annotations faces.csv --init edgeface-n --out runs/mine \
--samples 20000 --lr 0.0005

edgeface train --data wider --out runs/long --decay-share 0   # can be extended; \
final weights from it:

edgeface train --data wider --from runs/long --out runs/weights --samples 300000 \
--late-share 1

torchrun --nproc-per-node 2 -m edgeface train --data wider --out runs/mine

Writes weights, checkpoints, log and curves to --out. If interrupted, run the same command again
to resume."""


Out = Annotated[Path, typer.Option(help="Folder of this run; an existing run is resumed.")]
GenotypeFile = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Neck for an ASFD network: a genotype.json from `edgeface autofem`; the network is"
            " then named MODEL-<12 digits>. Default: the model's own."
        )
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        help=(
            "Preset for the options: edgeface (the defaults below), extd, eresfd or asfd."
            " Default: the preset of the network's family."
        )
    ),
]
Landmarks = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Five landmarks per face, if --annotations has none: RetinaFace's labels, or CSV"
            " with image,x1,y1,x2,y2 and x,y of each landmark."
        )
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        help=(
            "Start from these weights (network name or .safetensors file): tensors that fit by name"
            " and shape are used, at least half of the backbone's; those of a narrower network"
            " fit, too (not of EXTD, EResFD or ASFD), so a network that is wider or has more"
            " residual blocks begins where it ended."
        )
    ),
]
Branch = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help=(
            "Branch off the run in this folder, with its full state, network and options;"
            " the learning rate falls to 0 over --samples, which must be given."
        ),
    ),
]
InMemory = Annotated[
    bool, typer.Option(help="Hold the decoded photos in memory instead of memory-mapping them.")
]
TorchThreads = Annotated[
    int,
    typer.Option(min=0, max=MAX_THREADS, help="CPU threads per process; 0: as torch chooses."),
]


@with_options(TrainOptions)
def command(
    ctx: typer.Context,
    data: Photos,
    out: Out,
    model: Network = DEFAULT_MODEL,
    genotype: GenotypeFile = None,
    recipe: RecipeName = None,
    annotations: Annotations = None,
    landmarks: Landmarks = None,
    init: Init = None,
    branch: Branch = None,
    cache: Cache = None,
    in_memory: InMemory = False,
    threads: TorchThreads = 0,
    device: TorchDevice = "cpu",
    options: Any = None,
) -> int | None:
    named = given(ctx, options)
    if branch:
        others = [name for name in ("model", "genotype", "recipe", "init") if is_given(ctx, name)]
        architecture, options = _branched(branch, out, others, named)
    else:
        architecture, options = _chosen(model, genotype, recipe, named)
    require_module("torch", "train", "training")
    from edgeface.training import train_model

    shows = os.environ.get("RANK", "0") == "0"
    with stoppable_by_signals(), Terminal(shows, steps=True) as terminal:
        failures = Failures(terminal)
        finished = train_model(
            architecture,
            options,
            data,
            out,
            annotations,
            cache or out / "cache",
            in_memory,
            threads,
            device,
            landmarks=landmarks,
            init=init,
            branch=branch,
            progress=terminal.tick,
            note=terminal.note,
            on_error=failures,
        )
        if not finished:
            raise Stopped("the state is saved: run the same command again to continue")
        if terminal.shown:
            weights = shlex.quote(str(out / "weights.safetensors"))
            say(f"weights    {weights}")
            say(f"next       edgeface export --target tflite --model {weights}")
        return failures.ended("could not be read and were left out of the training")


def _chosen(
    model: str, genotype: Path | None, recipe: str | None, named: dict[str, Any]
) -> tuple[Architecture, TrainOptions]:
    """Network and options of a new run."""
    from edgeface.architecture.genotype import read_genotype
    from edgeface.architecture.registry import with_genotype
    from edgeface.zoo.named import named_architecture

    architecture = named_architecture(model)
    if genotype:
        architecture = with_genotype(architecture, read_genotype(genotype))
    return architecture, dataclasses.replace(get_recipe(recipe, architecture), **named)


def _branched(
    run: Path, out: Path, others: list[str], named: dict[str, Any]
) -> tuple[Architecture, TrainOptions]:
    """Network and options of a run that branches off ``run``.

    Raises OptionError for options that such a run cannot have."""
    if others:
        raise OptionError(
            "--from goes on with the network and the options of that run: leave"
            f" {', '.join(f'--{name}' for name in others)} out"
        )
    if "samples" not in named:
        raise OptionError(
            "--from needs --samples: over how many crops the learning rate falls to 0"
        )
    require_module("torch", "train", "training")
    from edgeface.training.start import branch_options

    architecture, options = branch_options(run, out)
    return architecture, dataclasses.replace(options, **named)
