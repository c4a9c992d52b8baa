"""Short trainings of many networks, and the table of their results: one row per network."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeface.architecture import Architecture
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError
from edgeface.files import atomic_write
from edgeface.schema import from_fields
from edgeface.search.trials.known import NETWORK_FIELDS, RESULTS, network_fields, read_rows
from edgeface.search.trials.training import Plan, Trained, prepare, train_item
from edgeface.workers import Workers

RECIPE = "recipe: "
SET = ("batch", "size")
"""options set by the command and kept in the recipe; samples and seed are in every row"""


def train(
    networks: Sequence[Architecture],
    plan: Plan,
    path: Path,
    command: str,
    workers: Workers,
    terminal: Terminal,
) -> None:
    """Train all networks without a row in ``path``, and write each row when its training ends.

    Raises KeyboardInterrupt if a training was stopped before its end, DataError for a table of
    other networks or another recipe.
    """
    rows = matching(read_rows(path), networks, path) if path.is_file() else {}
    recipe = dataclasses.asdict(plan.options)
    for name, before in _recipe_of(path).items() if rows else ():
        if name in SET and before != recipe[name]:
            raise DataError(
                f"{path} is of trainings with --{name} {before}, not {recipe[name]}: choose another"
                " --csv or delete it"
            )
    for name, row in rows.items():
        if (row["samples"], row["seed"]) != (str(plan.options.samples), str(plan.options.seed)):
            raise DataError(
                f"{path} has a row of {name} with other samples or another seed: choose another"
                " --csv or delete it"
            )
    left = [a for a in networks if a.name not in rows]

    def finished(index: int, data: dict[str, Any] | None) -> None:
        if data is None:
            raise KeyboardInterrupt
        result = from_fields(Trained, data, "training")
        rows[result.name] = _row(left[index], plan, result)
        comments = (
            f"command: {command}",
            f"{RECIPE}{json.dumps(recipe)}",
            f"evaluation: {result.protocol}",
        )
        write_rows(path, [rows[a.name] for a in networks if a.name in rows], comments)
        terminal.line(
            f"{result.name}: AP easy {result.easy:.4f}, medium {result.medium:.4f}, hard"
            f" {result.hard:.4f} ({len(rows)} of {len(networks)})"
        )

    prepare(plan)
    workers.run(train_item, [plan.item(a) for a in left], finished)


def _recipe_of(path: Path) -> dict[str, Any]:
    """The recipe in the comments of a table; empty if it has none."""
    with path.open(encoding="utf-8") as file:
        said = [line.partition(RECIPE)[2] for line in file if line.startswith(f"# {RECIPE}")]
    try:
        recipe = json.loads(said[0]) if said else {}
    except ValueError:
        recipe = None
    if not isinstance(recipe, dict):
        raise DataError(f"{path} has a recipe that is no JSON: choose another --csv or delete it")
    return recipe


def _row(architecture: Architecture, plan: Plan, result: Trained) -> dict[str, str]:
    row = network_fields(architecture) | {name: f"{getattr(result, name):.5f}" for name in RESULTS}
    return {**row, "samples": str(plan.options.samples), "seed": str(plan.options.seed)}


def matching(
    rows: Sequence[Mapping[str, str]], networks: Sequence[Architecture], path: Path
) -> dict[str, Mapping[str, str]]:
    """Name -> row. Raises DataError for a row that matches none of the networks."""
    fields = {a.name: network_fields(a) for a in networks}
    for row in rows:
        if {name: row[name] for name in NETWORK_FIELDS} != fields.get(row["name"]):
            raise DataError(
                f"{path} has a row of {row['name']} that is none of the networks, or has another "
                "structure: choose another --csv or --networks, or delete it"
            )
    return {row["name"]: row for row in rows}


def write_rows(path: Path, rows: Sequence[Mapping[str, str]], comments: Sequence[str]) -> None:
    """Write a CSV whose first lines, ``comments``, say how it was made."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {comment}\n" for comment in comments)
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
