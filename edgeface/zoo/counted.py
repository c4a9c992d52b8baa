"""Parameters and multiply-accumulates of every listed network, counted once because building all
networks takes long.

``python -m edgeface.zoo.counted`` writes ``complexity.json``: figures at 640x480, each with a hash
of its Architecture, so that the figures of a network that has changed since are not used.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.registry import get_architecture, listed
from edgeface.backends import require_module
from edgeface.files import write_text
from edgeface.schema import from_fields, read_packaged
from edgeface.types import Progress, unseen

PATH = Path(__file__).with_name("complexity.json")
COUNTED_AT = (640, 480)


@dataclass(frozen=True)
class Counted:
    """Figures of one network."""

    content: str
    """hash of its Architecture without the name: 12 hex digits"""
    params: int
    macs: int
    """multiply-accumulates at the requested input size"""


def content_of(architecture: Architecture) -> str:
    """Hash of ``architecture`` without its name: 12 hex digits."""
    return architecture.named_by_content("").name.removeprefix("-")


def counts(
    width: int,
    height: int,
    progress: Progress = unseen,
    networks: Sequence[Architecture] | None = None,
) -> list[Counted]:
    """Figures of each of ``networks`` (default: all listed ones) at one input size in px.

    At 640x480 they come from the file, if it has them; others are counted with torch. Raises
    MissingExtraError if something must be counted and torch is not installed.
    """
    kept = read_counts() if (width, height) == COUNTED_AT else {}
    found: list[Counted] = []
    wanted = [get_architecture(name) for name in listed()] if networks is None else networks
    for done, network in enumerate(wanted):
        known = kept.get(network.name)
        if known is None or known.content != content_of(network):
            progress("counting", done, len(wanted), network.name)
            known = _count(network, width, height)
        found.append(known)
    return found


def read_counts(path: Path = PATH) -> dict[str, Counted]:
    """Name -> figures. Raises ModelError for a damaged file."""
    entries: dict[str, object] = read_packaged(path, dict)
    return {name: from_fields(Counted, entry, f"{path}: {name}") for name, entry in entries.items()}


def write_counts(path: Path = PATH) -> None:
    """Count all listed networks and write the file."""
    found = {
        name: dataclasses.asdict(_count(get_architecture(name), *COUNTED_AT)) for name in listed()
    }
    write_text(path, json.dumps(found, indent=1) + "\n")


def _count(network: Architecture, width: int, height: int) -> Counted:
    require_module("torch", "zoo", "counting parameters and MACs")
    from edgeface.models.complexity import count

    complexity = count(network, width, height)
    return Counted(content_of(network), complexity.params, complexity.macs)


if __name__ == "__main__":
    write_counts()
