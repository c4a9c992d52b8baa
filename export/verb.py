"""``edgeface export``, in a checkout."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeface import zoo
from edgeface.backends import BACKENDS, export_targets
from edgeface.bundle import APIS, README, Bundle
from edgeface.cli.flags import DEFAULT_MODEL, Format, Network, Weights, is_given
from edgeface.cli.output import print_json, print_table, say
from edgeface.cli.terminal import Terminal
from edgeface.decode import head_layout
from edgeface.errors import OptionError
from edgeface.files import check_writable
from edgeface.options import MAX_SEED, parse_size
from export.apis import adapt, check_api, export_for
from export.pipeline import Exported, bundle_json, export_model
from export.request import ExportRequest, require

if TYPE_CHECKING:
    from export.parity import Parity
    from export.source import Source

DYNAMIC = ", ".join(row.target for row in BACKENDS.values() if row.dynamic)
EPILOG = """Examples:

edgeface export --target tflite

edgeface export --target onnx --size 320x320 --dynamic

edgeface export --target tflite --precision fp16 --model runs/mine/weights.safetensors

edgeface export --target onnx --for opencv

edgeface export --target tflite --for mediapipe --bundle dist/edgeface-n-tflite-int8-640x480

The Bundle is written to OUT/MODEL-TARGET-PRECISION-WxH/ (for a weights file:
OUT/MODEL-<8 digits of its SHA-256>-TARGET-PRECISION-WxH/), with -dynamic and the API of --for at
the end of its name. It holds the model file and manifest.json with the input contract, SHA-256,
tool versions and parity figures. A file whose outputs differ from torch is not written. A network
without shipped weights gets random ones, and the output says so."""


Target = Annotated[str, typer.Option(help=f"Runtime to export for: {', '.join(export_targets())}.")]
Precision = Annotated[
    str,
    typer.Option(
        help=(
            "Format of the stored weights: fp32 or fp16 (for int8: edgeface quantize). fp16"
            " halves the file; input, outputs and arithmetic stay float32."
        )
    ),
]
Size = Annotated[str, typer.Option(help="Input size WIDTHxHEIGHT in px, multiples of 32.")]
Dynamic = Annotated[
    bool,
    typer.Option(
        "--dynamic",
        help=f"Accept any size in multiples of 32 ({DYNAMIC}); --size is the one checked.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_SEED,
        help="Use random weights with this seed: for latency and graph checks only.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder in which the Bundle's folder is created.")]
For = Annotated[
    str | None,
    typer.Option(
        "--for",
        help=(
            "Make a file for another library's detector API: opencv (onnx; cv2.FaceDetectorYN),"
            " mediapipe (tflite), task-library (tflite, with NMS inside)."
        ),
    ),
]
Given = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        help=(
            "With --for: adapt this Bundle or ready file (INT8 works, too) instead of"
            " exporting --model."
        ),
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the converters' own output.")]


def export(
    ctx: typer.Context,
    target: Target,
    model: Network = DEFAULT_MODEL,
    precision: Precision = "fp32",
    size: Size = "640x480",
    dynamic: Dynamic = False,
    weights: Weights = None,
    seed: Seed = None,
    made_for: For = None,
    bundle: Given = None,
    out: Out = Path("dist"),
    format: Format = "table",
    verbose: Verbose = False,
) -> None:
    if bundle is not None:
        _print_adapted(_adapted(ctx, target, made_for, bundle, out, verbose), format)
        return
    request = ExportRequest(target, precision, *parse_size(size), dynamic)
    if made_for is not None:
        layout = head_layout(zoo.resolve(model, weights).architecture)
        check_api(made_for, target, layout, precision)
    check_writable(out)
    require("exporting", "torch", "safetensors")
    with Terminal(steps=True) as terminal:
        source = _source(model, weights, seed, terminal)
        how: dict[str, Any] = {"stage": terminal.stage, "verbose": verbose}
        if made_for is None:
            exported = export_model(source, request, out, **how)
        else:
            made = export_for(made_for, source, request, out, **how)
    if made_for is not None:
        _print_adapted(made, format)
    elif format == "json":
        print_json(exported.to_json())
    else:
        _print_exported(exported)


def _adapted(
    ctx: typer.Context, target: str, api: str | None, path: Path, out: Path, verbose: bool
) -> Bundle:
    """The Bundle at ``path`` adapted to an API."""
    if api is None:
        raise OptionError("--bundle is for making a file for the API of others: name it with --for")
    for name in ("model", "precision", "size", "dynamic", "weights", "seed"):
        if is_given(ctx, name):
            raise OptionError(f"--bundle excludes --{name}: a Bundle has its own inside")
    bundle = Bundle.open(zoo.bundle_folder(path))
    if bundle.manifest.target != target:
        raise OptionError(f"{path} is made for {bundle.manifest.target}, --target says {target}")
    with Terminal(steps=True) as terminal, terminal.stage(f"adapting {path}"):
        return adapt(bundle, api, out, verbose)


def _source(model: str, weights: Path | None, seed: int | None, terminal: Terminal) -> Source:
    with terminal.stage(f"loading {model}"):
        from export.source import load_source

        source = load_source(model, weights, seed)
    if source.seed is not None:
        terminal.note(
            f"{model} gets random weights (seed {source.seed}): the file is good for latency"
            " and graph checks, not for finding faces"
        )
    return source


def _print_adapted(bundle: Bundle, format: str) -> None:
    result = bundle_json(bundle) | {"for": bundle.manifest.api}
    if format == "json":
        print_json(result)
        return
    spec, parity = bundle.manifest.input, result["parity"]
    worst = max(parity["max_abs"].values())
    lines = {
        "bundle": result["path"],
        "for": APIS[str(result["for"])],
        "file": f"{result['file']}, {result['bytes']:,} bytes, sha256 {result['sha256'][:12]}",
        "input": f"{spec.colour} 0-255, float32 {spec.layout}, {_size(result)}",
        "parity": f"{worst:.1e} from the file it is made of, at most {parity['tolerance']:g}",
        "next": f"see {bundle.path / README}",
    }
    for label, text in lines.items():
        say(f"{label:<10} {text}")


def _size(result: dict[str, Any]) -> str:
    return f"{result['width']}x{result['height']}" + (
        " or any multiples of 32" if result["dynamic"] else ""
    )


def _print_exported(exported: Exported) -> None:
    result = exported.to_json()
    operators = ", ".join(
        f"{count} {name}"
        for name, count in sorted(result["operators"].items(), key=lambda item: (-item[1], item[0]))
    )
    lines = {
        "bundle": result["path"],
        "file": (
            f"{' + '.join(result['files'])}, {result['bytes']:,} bytes, sha256"
            f" {result['sha256'][:12]}"
        ),
        "input": f"RGB 0-255, float32 {exported.bundle.manifest.input.layout}, {_size(result)}",
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
    say(
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
