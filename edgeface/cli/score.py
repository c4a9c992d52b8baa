"""``edgeface score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeface.cli.flags import NETWORK_HELP, Format
from edgeface.cli.output import print_json, print_table, say

EPILOG = """DDSAR, DamoFD's zero-cost score, as published and corrected. Examples:

edgeface score damofd-0.5g

edgeface score 'SuperConvK3BNRELU(3,16,2,1)SuperResK3K3(16,24,2,16,1)...' --alpha 0.05

edgeface score damofd-0.5g --data my_annotations.csv   # stages weighted for your faces

A higher score promises a better detector at the same cost; it does not measure the cost."""


def command(
    architecture: Annotated[
        str,
        typer.Argument(
            metavar="ARCHITECTURE_OR_STRING",
            help=f"{NETWORK_HELP} Or a structure string.",
        ),
    ],
    alpha: Annotated[
        float, typer.Option(help="Weight of the kernel sizes in the score, 0 to 1000.")
    ] = 0.25,
    data: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Annotations (WIDER FACE text or CSV) whose face sizes set the stage weights."
                " Default: as published."
            )
        ),
    ] = None,
    format: Format = "table",
) -> None:
    from edgeface.search.scores import ddsar

    backbone = ddsar.read_backbone(architecture)
    weights = ddsar.weights_of_annotations(data) if data else ddsar.WEIGHTS
    found = ddsar.score(backbone, alpha, weights)
    if format == "json":
        print_json(
            {
                **found.to_json(),
                "alpha": alpha,
                "weights": dict(zip(ddsar.STAGES, weights, strict=True)),
            }
        )
        return
    print_table(
        ("stage", "weight", "SES", "FSS"),
        [
            (name, f"{weight:.3f}", f"{ses:.4f}", fss)
            for name, weight, ses, fss in zip(
                ddsar.STAGES, weights, found.ses, found.fss, strict=True
            )
        ],
        right=("weight", "SES", "FSS"),
    )
    say(
        f"DDSAR {found.ddsar:.6f} as published, {found.corrected:.6f} corrected (true widths,"
        f" without the stem), alpha {alpha:g}"
    )
