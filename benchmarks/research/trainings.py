"""Short trainings of many networks, and the table of what they came to: one row a network."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.research.short_training import Plan, Trained, prepare, train_item
from edgeface.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError
from edgeface.files import atomic_write
from edgeface.schema import from_fields
from edgeface.workers import Workers

SETTINGS = ("easy", "medium", "hard")
RESULTS = (*SETTINGS, "cls_loss", "box_loss")
NETWORK_FIELDS = ("name", "structure", "neck", "head", "params", "macs")
COLUMNS = (*NETWORK_FIELDS, *RESULTS, "samples", "seed")


def train(
    networks: Sequence[Architecture],
    plan: Plan,
    path: Path,
    command: str,
    workers: Workers,
    terminal: Terminal,
) -> None:
    """Train all networks that ``path`` has no row of, and write each one's row as soon as it is
    there.

    Raises KeyboardInterrupt where one was stopped before its end, DataError for a table of other
    networks or another recipe.
    """
    rows = matching(read_rows(path), networks, path) if path.is_file() else {}
    for name, row in rows.items():
        if (row["samples"], row["seed"]) != (str(plan.options.samples), str(plan.options.seed)):
            raise DataError(
                f"{path} has a row of {name} with other samples or another seed: choose another"
                " --csv or delete it"
            )
    left = [a for a in networks if a.name not in rows]
    recipe_text = json.dumps(dataclasses.asdict(plan.options))

    def finished(index: int, data: dict[str, Any] | None) -> None:
        if data is None:
            raise KeyboardInterrupt
        result = from_fields(Trained, data, "training")
        rows[result.name] = _row(left[index], plan, result)
        comments = (
            f"command: {command}",
            f"recipe: {recipe_text}",
            f"evaluation: {result.protocol}",
        )
        write_rows(path, [rows[a.name] for a in networks if a.name in rows], comments)
        terminal.line(
            f"{result.name}: AP easy {result.easy:.4f}, medium {result.medium:.4f}, hard"
            f" {result.hard:.4f} ({len(rows)} of {len(networks)})"
        )

    prepare(plan)
    workers.run(train_item, [plan.item(a) for a in left], finished)


def _row(architecture: Architecture, plan: Plan, result: Trained) -> dict[str, str]:
    row = network_fields(architecture) | {name: f"{getattr(result, name):.5f}" for name in RESULTS}
    return {**row, "samples": str(plan.options.samples), "seed": str(plan.options.seed)}


def network_fields(architecture: Architecture) -> dict[str, str]:
    """The columns that say which network a row is of."""
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


def matching(
    rows: Sequence[Mapping[str, str]], networks: Sequence[Architecture], path: Path
) -> dict[str, Mapping[str, str]]:
    """The rows by name. Raises DataError for one that is of none of the networks."""
    fields = {a.name: network_fields(a) for a in networks}
    for row in rows:
        if {name: row[name] for name in NETWORK_FIELDS} != fields.get(row["name"]):
            raise DataError(
                f"{path} has a row of {row['name']} that is none of the networks, or has another "
                "structure: choose another --csv or --networks, or delete it"
            )
    return {row["name"]: row for row in rows}


def write_rows(path: Path, rows: Sequence[Mapping[str, str]], comments: Sequence[str]) -> None:
    """A CSV whose first lines say how it was made."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {comment}\n" for comment in comments)
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of what :func:`write_rows` wrote. Raises DataError."""
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
