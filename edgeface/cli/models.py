"""``edgeface models``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeface.cli.flags import NETWORK_HELP, Format
from edgeface.cli.output import print_json, print_table
from edgeface.cli.terminal import Terminal
from edgeface.options import parse_size

EPILOG = """Examples:

edgeface models

edgeface models runs/pi/front.json   # every network of a search; #3 for one

edgeface models --size 320x320 --format json

Parameters and multiply-accumulates (MACs) of the networks as they are trained."""

VARIANTS = (
    "Those of DamoFD and SCRFD exist twice: as published, and with '-bn' appended for a head that"
    " exports well.\n'-kps' are those with landmarks; SCRFD's export well as published."
)


def command(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NETWORK]...", help=f"{NETWORK_HELP} Default: all that have a name."
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(help="Input WIDTHxHEIGHT in px that MACs are counted at.")
    ] = "640x480",
    format: Format = "table",
) -> None:
    width, height = parse_size(size)
    from edgeface import zoo
    from edgeface.zoo.counted import counts

    named = [one for text in networks or () for one in zoo.named_architectures(text)]
    with Terminal() as terminal:
        found = counts(width, height, terminal.tick, named or None)
    shipped = zoo.names()
    if format == "json":
        print_json(
            [
                {
                    "name": name,
                    "params": network.params,
                    "macs": network.macs,
                    "weights": name in shipped,
                }
                for name, network in found.items()
            ]
        )
        return
    figures = ("params", f"MACs at {size}")
    print_table(
        ("name", *figures, "weights"),
        [
            (
                name,
                f"{network.params / 1e6:.4f} M",
                f"{network.macs / 1e6:.1f} M",
                "shipped" if name in shipped else "-",
            )
            for name, network in found.items()
        ],
        right=figures,
    )
    if not named:
        print(VARIANTS)
