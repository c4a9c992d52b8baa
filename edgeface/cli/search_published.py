"""``edgeface search --published``: DamoFD's own search."""

from __future__ import annotations

from pathlib import Path

from edgeface.cli.output import print_json, say
from edgeface.cli.program import stoppable
from edgeface.cli.terminal import Terminal
from edgeface.errors import EdgefaceError
from edgeface.files import check_writable, refuse_others, write_text
from edgeface.search.commands import train_command
from edgeface.search.options import StudyOptions
from edgeface.zoo.named import named_architecture

ARCHITECTURE = "architecture.json"
FAMILY = "damofd-"
"""prefix of the names of the networks that it finds"""


def run_published(
    name: str,
    options: StudyOptions,
    data: Path | None,
    out: Path | None,
    format: str,
) -> None:
    """Run DamoFD's own search ``name`` and print its best network. Raises OptionError.

    data: file of annotations that sets the stage weights. out: folder for the network."""
    from edgeface.search.published import detector_of, regime_of, search
    from edgeface.search.scores.ddsar import weights_of_annotations

    regime = regime_of(name)
    if out:
        check_writable(out / ARCHITECTURE, folder=False)
        if not _is_published(out / ARCHITECTURE):
            refuse_others(out, (ARCHITECTURE,), "a published search")
    weights = weights_of_annotations(data) if data else options.weights
    with stoppable("nothing was written"), Terminal() as terminal:
        best = search(
            regime, options.seed, alpha=options.alpha, weights=weights, progress=terminal.tick
        )[0]
    network = detector_of(name, best)
    if out:
        write_text(out / ARCHITECTURE, network.dumps() + "\n")
    if format == "json":
        found = {"ddsar": best.ddsar, "flops": best.flops, "architecture": network.to_json()}
        print_json(found)
        return
    say(f"{network.name}: DDSAR {best.ddsar:.4f}, {best.flops / 1e6:.1f} M FLOPs at 224x224")
    say(best.structure)
    if out:
        say(f"next: {train_command(str(out / ARCHITECTURE), network)}")


def _is_published(path: Path) -> bool:
    """Is ``path`` the result of a published search, which the same search finds again?"""
    try:
        return named_architecture(path).name.startswith(FAMILY)
    except EdgefaceError:
        return False
