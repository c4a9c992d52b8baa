"""``python -m benchmarks.model_card RUN --data WIDER``: put the weights of a run into the zoo, with
their card.

Everything the card states is measured or read here: accuracy by the official protocol, parameters
and MACs, the data the run saw, and, from what make bench and benchmarks.learning_curve wrote,
latency and the curve.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.common import shown
from benchmarks.learning_curve import CURVE, config_of, rows_of
from benchmarks.results import CONTEXT, load_context
from edgeface import zoo
from edgeface.architecture import Architecture
from edgeface.cli.flags import Argument, program_of
from edgeface.cli.output import print_json, table
from edgeface.cli.terminal import Terminal
from edgeface.decode import head_layout
from edgeface.detector import Detector
from edgeface.errors import DataError
from edgeface.evaluation import evaluate_detector, load_ground_truth
from edgeface.evaluation.predict import present_images
from edgeface.evaluation.report import POINT_COLUMNS, point_rows
from edgeface.files import atomic_write, write_text
from edgeface.models.complexity import count
from edgeface.runners.torch import TorchRunner
from edgeface.schema import to_fields

LICENCE = "Apache-2.0"
DATA_TERMS = (
    "Trained on WIDER FACE, and on RetinaFace's landmarks of its faces, which are for research use;"
    " the images stay with their owners. Whether weights inherit such terms is not settled: ask"
    " your own counsel before commercial use."
)
SETTINGS = ("easy", "medium", "hard")
SIZE = (640, 480)


def publish(
    run: Path,
    weights: Path,
    data: Path,
    note: str,
    latency: Path | None,
    folder: Path = zoo.FOLDER,
) -> dict[str, Any]:
    """Evaluate ``weights``, which are those of the run or made from them, and write weights, card
    and index entry; returns the evaluation report."""
    config = config_of(run)
    architecture = Architecture.from_json(config["architecture"])
    name = architecture.name
    content = weights.read_bytes()
    report = _evaluate(architecture, weights, data)
    entry = zoo.ZooEntry(
        weights=f"{name}.safetensors",
        sha256=hashlib.sha256(content).hexdigest(),
        card=f"{name}.md",
        licence=LICENCE,
        data_terms=DATA_TERMS,
        architecture=architecture,
        accuracy=report,
    )
    index = to_fields(zoo.read_index(folder) | {name: entry})
    curve = rows_of(run / CURVE, data)
    card = _card(entry, config, curve, len(content), note, latency)
    for file, text in ((entry.card, card), ("index.json", json.dumps(index, indent=1) + "\n")):
        write_text(folder / file, text)
    with atomic_write(folder / entry.weights) as temporary:
        temporary.write_bytes(content)
    return report


def _evaluate(architecture: Architecture, weights: Path, data: Path) -> dict[str, Any]:
    network = zoo.network_with(architecture, zoo.load_weights_file(weights))
    ground_truth = load_ground_truth(data)
    with Detector(TorchRunner(network), score_threshold=0.02) as detector, Terminal() as terminal:
        return evaluate_detector(
            detector,
            architecture.name,
            ground_truth,
            present_images(data, ground_truth),
            progress=terminal.tick,
        ).report.to_json()


def _card(
    entry: zoo.ZooEntry,
    config: dict[str, Any],
    curve: list[dict[str, Any]],
    size_bytes: int,
    note: str,
    latency: Path | None,
) -> str:
    architecture, report = entry.architecture, entry.accuracy
    assert report is not None
    size, layout = count(architecture, *SIZE), head_layout(architecture)
    parts = [
        f"# {architecture.name}",
        "A face detector for CPUs, built from standard convolutions and ReLU. It finds a box"
        + (" and five landmarks for each face." if layout.landmarks else " for each face."),
        "## Size",
        (
            f"{size.params:,} parameters, {size.macs / 1e6:.1f} M multiply-accumulates at"
            f" {SIZE[0]}x{SIZE[1]} (convolutions only),"
            f" {size_bytes:,} bytes of float32 weights."
        ),
        "## Accuracy",
        *_accuracy(report),
        note,
        "## Latency",
        _latency(latency),
        "## Input and output",
        "The input is raw 0-255 RGB, its width and height multiples of 32; photos are scaled to fit"
        " at the top left of a black canvas. The outputs are"
        f" {', '.join(f'`{name}`' for name in layout.output_names)}: one logit per cell, and the"
        " distances left, top, right and bottom from the middle of the cell to the sides of the"
        " box, in strides"
        + (
            "; then x and y of the left eye in the image, the right eye, the nose, and the left and"
            " right corner of the mouth, from the middle of the cell, in strides."
            if layout.landmarks
            else "."
        ),
        "## Training",
        _training(config),
        _block(json.dumps(config["options"], indent=1), "json"),
        *_curve(curve),
        "## Licence and data",
        f"Weights: {entry.licence}. {entry.data_terms}",
        f"SHA-256 of {entry.weights}: `{entry.sha256}`",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _accuracy(report: dict[str, Any]) -> list[str]:
    settings = [
        ("AP", *(shown(report[s]) for s in SETTINGS)),
        ("faces", *(report["faces"][s] for s in SETTINGS)),
    ]
    heights = [
        (f"{name} px", shown(ap, 3), report["faces"][name])
        for name, ap in report["by_height"].items()
    ]
    return [
        _block(table(("", *SETTINGS), settings)),
        f"{report['images']} validation images of WIDER FACE. Long side {report['scale']} px,"
        f" {report['input']}, score >= {report['score_threshold']:g}, NMS IoU"
        f" {report['nms']:g}, {report['runtime']}. {report['evaluator']}.",
        "By face height in px of the photo as annotated (faces of the hard setting):",
        _block(table(("height", "AP", "faces"), heights)),
        "By score threshold, on the faces of the hard setting:",
        _block(table(POINT_COLUMNS, point_rows(report["operating_points"]), POINT_COLUMNS)),
    ]


def _training(config: dict[str, Any]) -> str:
    options, share = config["options"], config["options"]["late_share"]
    late = f" the last {share:.0%} at {options['late_size']} px," if share else ""
    return (
        f"{options['samples']:,} crops ({options['samples'] / config['images']:.1f} epochs of"
        f" {config['images']:,} images with {config['faces']:,} faces), {options['size']} px,{late}"
        f" batch {options['batch']}, {options['optimizer']}, seed {options['seed']},"
        f" {_start(config)}, no teacher. The whole configuration:"
    )


def _start(config: dict[str, Any]) -> str:
    """What the training began with; earlier versions do not say, and had random weights alone."""
    if branch := config.get("branch"):
        return (
            f"begun with the state of another training after {branch['step']:,} steps (SHA-256"
            f" `{branch['sha256']}`)"
        )
    init = config.get("init")
    return f"begun with the weights of SHA-256 `{init}`" if init else "no pre-training"


def _block(text: str, kind: str = "text") -> str:
    return f"```{kind}\n{text}\n```"


def _latency(results: Path | None) -> str:
    timings = (
        [
            p
            for p in load_context(results / CONTEXT).peers
            if (p.width, p.height, p.threads) == (*SIZE, 1)
        ]
        if results
        else []
    )
    if not timings:
        return (
            "All runtimes and precisions: [every file](../../docs/exports.md). Comparison with"
            " other detectors: [README](../../README.md#beside-others)."
        )
    rows = [
        (
            p.model,
            f"{p.network_ms.median:.2f}",
            f"{p.network_ms.p90:.2f}",
            p.ratio,
            "; ".join(p.invalid_reasons),
        )
        for p in sorted(timings, key=lambda p: p.network_ms.median)
    ]
    first = timings[0]
    return (
        f"{first.runtime}, {SIZE[0]}x{SIZE[1]}, one thread, {first.environment.machine.cpu}, in"
        " turn in one process, with published networks (`make bench`):\n\n"
        + _block(table(("model", "median ms", "90 %", "ratio", "not valid"), rows))
    )


def _curve(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    fields = ("epoch", "samples", *SETTINGS)
    return [
        "AP of the averaged weights as the training went (`python -m benchmarks.learning_curve`):",
        _block(table(fields, [[r[f] for f in fields] for r in rows])),
    ]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the command line."""

    run: Annotated[Path, Argument("RUN")]
    """folder of a finished training run"""
    data: Path
    """WIDER FACE folder with the validation images"""
    weights: Path | None = None
    """weights adjusted by benchmarks.research.level_bias; default: those of RUN"""
    latency: Path | None = None
    """folder written by make bench, with peers"""
    note: str = ""
    """a sentence on which images the figures may be compared on"""
    zoo: Path = zoo.FOLDER
    """folder of index.json; default: the package's own"""


def _run(o: Options) -> None:
    weights = o.weights or o.run / "weights.safetensors"
    if not weights.exists():
        raise DataError(f"no weights at {weights}: train some with edgeface train --out {o.run}")
    print_json(publish(o.run, weights, o.data, o.note, o.latency, o.zoo))


main = program_of(Options, "python -m benchmarks.model_card", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
