"""``edgeface bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeface.cli.flags import Format
from edgeface.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from edgeface.latency.regression import Regression

EPILOG = """Examples:

edgeface bench dist/edgeface-n-* --save new.json

edgeface bench compare old.json new.json --fail-slower"""


def command(
    old: Annotated[
        Path, typer.Argument(metavar="OLD.json", help="Records saved by `edgeface bench --save`.")
    ],
    new: Annotated[
        Path, typer.Argument(metavar="NEW.json", help="Records of a later measurement.")
    ],
    fail_slower: Annotated[
        bool,
        typer.Option(
            "--fail-slower",
            help="Exit with code 1 if a model became slower, so that a CI build fails.",
        ),
    ] = False,
    format: Format = "table",
) -> int:
    from edgeface.latency.measurement import load_measurements
    from edgeface.latency.regression import compare_records

    found = compare_records(load_measurements(old), load_measurements(new))
    if format == "json":
        print_json(found.to_json())
    else:
        _print_regression(found)
    return int(fail_slower and any(change.verdict == "slower" for change in found.changes))


def _print_regression(found: Regression) -> None:
    rows = []
    for change in found.changes:
        bundle, device, threads, _ = change.new.key
        ratio = change.ratio
        rows.append(
            (
                bundle,
                device,
                threads,
                f"{change.old.network_ms.median:.2f}",
                f"{change.new.network_ms.median:.2f}",
                f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
                change.verdict,
                "; ".join((*change.reasons(), *change.notes)),
            )
        )
    figures = ("threads", "old ms", "new ms", "new / old")
    print_table(
        ("bundle", "device", *figures, "verdict", "beware"), rows, figures, fold=("beware",)
    )
    for name, keys in (("old", found.only_old), ("new", found.only_new)):
        for bundle, device, threads, _ in keys:
            say(f"only in the {name} file: {bundle} on {device}, {threads} thread(s)")
