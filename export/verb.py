"""``edgeface export``, in a checkout."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeface.backends import BACKENDS, export_targets
from edgeface.cli.flags import DEFAULT_MODEL, Format, Network, Weights
from edgeface.cli.output import print_json, print_table, say
from edgeface.cli.terminal import Terminal
from edgeface.files import check_writable
from edgeface.options import parse_size
from export.pipeline import Exported, export_model
from export.request import ExportRequest, require

if TYPE_CHECKING:
    from export.parity import Parity

DYNAMIC = ", ".join(row.target for row in BACKENDS.values() if row.dynamic)
EPILOG = """Examples:

edgeface export --target tflite

edgeface export --target onnx --size 320x320 --dynamic

edgeface export --target tflite --precision fp16 --model runs/mine/weights.safetensors

The Bundle lands in OUT/MODEL-TARGET-PRECISION-WxH/: the model file and manifest.json, which holds
the input contract, SHA-256, tool versions and the parity figures. A file that differs from torch is
not written. A network that ships without weights gets random ones, and the output says so."""


Target = Annotated[str, typer.Option(help=f"Runtime to export for: {', '.join(export_targets())}.")]
Precision = Annotated[
    str,
    typer.Option(
        help=(
            "What weights are stored as: fp32 or fp16 (int8: edgeface quantize). fp16 halves"
            " the file; input, outputs and arithmetic stay float32."
        )
    ),
]
Size = Annotated[str, typer.Option(help="Input WIDTHxHEIGHT in px, multiples of 32.")]
Dynamic = Annotated[
    bool,
    typer.Option(
        "--dynamic",
        help=f"Accept any size in multiples of 32 ({DYNAMIC}); --size is then checked.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Use random weights drawn from this number: for latency and graph checks only."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder that the Bundle's folder is written to.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what the converters print.")]


def export(
    target: Target,
    model: Network = DEFAULT_MODEL,
    precision: Precision = "fp32",
    size: Size = "640x480",
    dynamic: Dynamic = False,
    weights: Weights = None,
    seed: Seed = None,
    out: Out = Path("dist"),
    format: Format = "table",
    verbose: Verbose = False,
) -> None:
    request = ExportRequest(target, precision, *parse_size(size), dynamic)
    check_writable(out)
    require("exporting", "torch", "safetensors")
    with Terminal(steps=True) as terminal:
        with terminal.stage(f"loading {model}"):
            from export.source import load_source

            source = load_source(model, weights, seed)
        if source.seed is not None:
            terminal.note(
                f"{model} gets random weights (seed {source.seed}): the file is good for latency"
                " and graph checks, not for finding faces"
            )
        exported = export_model(source, request, out, stage=terminal.stage, verbose=verbose)
    if format == "json":
        print_json(exported.to_json())
    else:
        _print_exported(exported)


def _print_exported(exported: Exported) -> None:
    result = exported.to_json()
    operators = ", ".join(
        f"{count} {name}"
        for name, count in sorted(result["operators"].items(), key=lambda item: (-item[1], item[0]))
    )
    size = f"{result['width']}x{result['height']}" + (
        " or any multiples of 32" if result["dynamic"] else ""
    )
    lines = {
        "bundle": result["path"],
        "file": (
            f"{' + '.join(result['files'])}, {result['bytes']:,} bytes, sha256"
            f" {result['sha256'][:12]}"
        ),
        "input": f"RGB 0-255, float32 {exported.bundle.manifest.input.layout}, {size}",
        "operators": f"{sum(result['operators'].values())}: {operators}",
        "weights": (
            f"sha256 {result['weights']['sha256'][:12]}, licence {result['weights']['licence']}"
        ),
    }
    for label, text in lines.items():
        say(f"{label:<10} {text}")
    _print_parity(exported.parity)
    say(f"next       edgeface detect photo.jpg --model {shlex.quote(result['path'])}")


def _print_parity(parity: Parity) -> None:
    print(
        f"parity     max abs difference from torch, at most {parity.tolerance:g} (cls in logits,"
        " others in strides)"
    )
    columns = dict(parity.cases)
    if parity.rounded is not None:
        columns |= {f"{case}, rounded weights": figures for case, figures in parity.rounded.items()}
    titles = [title.replace("_", " ") for title in columns]
    print_table(
        ("head", *titles),
        [
            (head, *(f"{figures[head]:.1e}" for figures in columns.values()))
            for head in parity.max_abs
        ],
        right=titles,
        indent=11,
    )
