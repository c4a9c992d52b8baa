"""``edgeface models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeface.backends import BACKENDS
from edgeface.cli.flags import NETWORK_HELP, Format
from edgeface.cli.output import print_json, print_table, put
from edgeface.cli.terminal import Terminal
from edgeface.options import parse_size

if TYPE_CHECKING:
    from edgeface.architecture import Architecture
    from edgeface.zoo import ReadyFile
    from edgeface.zoo.counted import Counted

EPILOG = """Examples:

edgeface models

edgeface models runs/pi/front.json   # all networks of a search; append #3 for one

edgeface models --size 320x320 --format json

Parameters and multiply-accumulates (MACs) are those of the networks as trained. Ready files run
without torch; --model takes their names, or a network's name, which runs its first ready file that
works here (torch, if installed, is preferred to INT8)."""

VARIANTS = (
    "DamoFD and SCRFD networks come in two versions: as published, and with '-bn', whose head"
    " exports well.\n'-kps' networks find landmarks; SCRFD's export well as published."
)


def command(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NETWORK]...", help=f"{NETWORK_HELP} Default: all named networks."),
    ] = None,
    size: Annotated[
        str, typer.Option(help="Input size WIDTHxHEIGHT in px for counting MACs.")
    ] = "640x480",
    format: Format = "table",
) -> None:
    width, height = parse_size(size)
    from edgeface import zoo
    from edgeface.zoo.counted import counts

    named: list[Architecture] = []
    own: set[str] = set()  # networks of weights files, which do not use the shipped weights
    for text in networks or ():
        found_there = zoo.named_architectures(text)
        named += found_there
        own |= {one.name for one in found_there if zoo.is_weights_file(text)}
    with Terminal() as terminal:
        found = counts(width, height, terminal.tick, named or None)
    shipped = set(zoo.names()) - own
    ready = {name: zoo.ready_files(name) if name in shipped else () for name in found}
    if format == "json":
        print_json(
            [
                {
                    "name": name,
                    "params": network.params,
                    "macs": network.macs,
                    "weights": name in shipped or name in own,
                    "ready": [ready_json(file) for file in ready[name]],
                }
                for name, network in found.items()
            ]
        )
        return
    weights = dict.fromkeys(shipped, "shipped") | dict.fromkeys(own, "of the file")
    _print_networks(found, weights, size)
    if not named:
        put(VARIANTS)
    _print_ready([ready_json(file) for name in found for file in ready[name]])


def _print_networks(found: dict[str, Counted], weights: dict[str, str], size: str) -> None:
    figures = ("params", f"MACs at {size}")
    print_table(
        ("name", *figures, "weights"),
        [
            (
                name,
                f"{network.params / 1e6:.4f} M",
                f"{network.macs / 1e6:.1f} M",
                weights.get(name, "-"),
            )
            for name, network in found.items()
        ],
        right=figures,
    )


def ready_json(file: ReadyFile) -> dict[str, Any]:
    """A ready file, JSON-ready: what it is and whether it runs here."""
    return {
        "name": file.name,
        "runtime": BACKENDS[file.target].title,
        "precision": file.precision,
        "input": file.size,
        "bytes": file.bytes,
        "here": file.runs_here,
        "fix": None if file.runs_here else f"pip install 'edgeface[{BACKENDS[file.target].extra}]'",
    }


def _print_ready(files: list[dict[str, Any]]) -> None:
    if not files:
        return
    put("")
    print_table(
        ("ready file", "runtime", "input", "bytes", "here"),
        [
            (f["name"], f["runtime"], f["input"], f"{f['bytes']:,}", f["fix"] or "runs")
            for f in files
        ],
        right=("bytes",),
        fold=("here",),
    )
