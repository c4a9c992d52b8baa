"""Tables of earlier trainings, which an accuracy model starts from."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from edgeface.architecture import Architecture, PlainHeadSpec, PlainNetSpec, PyramidSpec
from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.backends import CHECKOUT
from edgeface.errors import DataError, ModelError
from edgeface.search.trials.model import Training

SETTINGS = ("easy", "medium", "hard")
RESULTS = (*SETTINGS, "cls_loss", "box_loss")
NETWORK_FIELDS = ("name", "structure", "neck", "head", "params", "macs")
COLUMNS = (*NETWORK_FIELDS, *RESULTS, "samples", "seed")


def checkout_tables() -> list[Path]:
    """Tables of the checkout that this package lies in; none if the package is installed."""
    return sorted((CHECKOUT / "benchmarks" / "evidence").glob("*.csv"))


def read_known(paths: Sequence[Path]) -> list[Training]:
    """Networks of the tables with their hard AP, each network once. Raises DataError."""
    found: dict[str, Training] = {}
    for path in paths:
        for row in read_rows(path):
            training = _training(row, path)
            found[training.architecture.dumps()] = training
    return list(found.values())


def _training(row: dict[str, str], path: Path) -> Training:
    try:
        return Training(network_of(row), float(row["hard"]))
    except (ModelError, ValueError) as error:
        raise DataError(f"{path}: the row of {row['name']}: {error}") from None


def network_fields(architecture: Architecture) -> dict[str, str]:
    """The columns that identify the network of a row."""
    neck, head = architecture.neck, architecture.head
    tower = f"{head.channels}x{head.stack}" + (" depthwise" if head.depthwise else "")
    return {
        "name": architecture.name,
        "structure": architecture.structure,
        "neck": f"{neck.kind} {neck.channels}",
        "head": f"{head.kind} {tower}",
        "params": str(params_of(architecture)),
        "macs": str(macs_of(architecture, *COUNTED_AT)),
    }


def network_of(row: dict[str, str]) -> Architecture:
    """Inverse of :func:`network_fields`, for networks that searches produce. Raises ModelError, and
    ValueError for other text."""
    kind, neck = row["neck"].split()
    head_kind, tower, *depthwise = row["head"].split()
    channels, _, stack = tower.partition("x")
    if (kind, head_kind) != ("fpn", "plain") or depthwise not in ([], ["depthwise"]):
        raise ValueError(f"neck {row['neck']!r}, head {row['head']!r}; accepted: fpn and plain")
    return Architecture(
        row["name"],
        PlainNetSpec(row["structure"]),
        PyramidSpec("fpn", int(neck)),
        PlainHeadSpec(int(channels), int(stack), depthwise=bool(depthwise)),
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"cannot read the trainings {path} ({type(error).__name__}): make them with "
            "python -m benchmarks.research.evidence train"
        ) from None
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing or any(row[name] is None for row in rows for name in COLUMNS):
        raise DataError(
            f"{path} is not a table of trainings: it lacks {', '.join(missing) or 'values'}"
        )
    return [{name: row[name] for name in COLUMNS} for row in rows]
