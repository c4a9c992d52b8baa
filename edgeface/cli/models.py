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
    from edgeface.architecture.registry import get_architecture, listed
    from edgeface.zoo.counted import counts

    # each network, and whether its weights are those of a file; two may have one name
    named = dict.fromkeys(
        (network, zoo.is_weights_file(text))
        for text in networks or ()
        for network in zoo.named_architectures(text)
    )
    chosen = list(named) or [(get_architecture(name), False) for name in listed()]
    with Terminal() as terminal:
        figures = counts(width, height, terminal.tick, [network for network, _ in chosen])
    rows = [
        _row(network, of_file, counted)
        for (network, of_file), counted in zip(chosen, figures, strict=True)
    ]
    if format == "json":
        print_json([row | {"weights": row["weights"] is not None} for row in rows])
        return
    _print_networks(rows, size)
    if not named:
        put(VARIANTS)
    _print_ready([file for row in rows for file in row["ready"]])


def _row(network: Architecture, of_file: bool, counted: Counted) -> dict[str, Any]:
    """A row of the listing, JSON-ready. A network of a weights file does not use the shipped
    weights, nor the ready files made of them."""
    from edgeface import zoo

    shipped = not of_file and network.name in zoo.names()
    return {
        "name": network.name,
        "params": counted.params,
        "macs": counted.macs,
        "weights": "of the file" if of_file else "shipped" if shipped else None,
        "ready": [ready_json(file) for file in zoo.ready_files(network.name)] if shipped else [],
    }


def _print_networks(rows: list[dict[str, Any]], size: str) -> None:
    figures = ("params", f"MACs at {size}")
    print_table(
        ("name", *figures, "weights"),
        [
            (
                row["name"],
                f"{row['params'] / 1e6:.4f} M",
                f"{row['macs'] / 1e6:.1f} M",
                row["weights"] or "-",
            )
            for row in rows
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
