"""Networks of equal multiply-accumulates, spread over a score; their trainings show how well scores
rank networks."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path

from edgeface.architecture import Architecture
from edgeface.errors import DataError, OptionError
from edgeface.files import write_text
from edgeface.schema import from_fields
from edgeface.search.scores.registry import proxy
from edgeface.search.space import Space

SPREAD_OVER, SPREAD_ALPHA = "detector", 0.05
"""the score whose quantiles are selected"""
DRAWN = 600
"""networks drawn to select from, and as many mutants of them"""


def select(
    space: Space, count: int, macs: float, tolerance: float, seed: int, drawn: int = DRAWN
) -> list[Architecture]:
    """``count`` networks of ``macs`` multiply-accumulates at 640x480, to within ``tolerance`` (a
    share), at evenly spaced quantiles of the detector score (alpha .05), lowest first.

    They come from a pool of ``drawn`` samples and up to as many mutants of earlier ones, all
    different. Raises OptionError if a number is out of range.
    """
    if not (0 < tolerance < 1 and macs > 0 and 2 <= count <= drawn):
        raise OptionError(
            f"--macs {macs:g} --tolerance {tolerance:g} --count {count}: give more than 0 "
            f"multiply-accumulates, a share between 0 and 1, and 2 to {drawn} networks"
        )
    narrow = dataclasses.replace(space, macs=(macs * (1 - tolerance), macs * (1 + tolerance)))
    draw = random.Random(f"evidence {seed}")
    found = {_content(a): a for a in (narrow.sample(seed * drawn + i) for i in range(drawn))}
    pool = list(found.values())
    for _ in range(drawn):
        child = narrow.mutate(draw.choice(pool), draw)
        if _content(child) not in found:
            found[_content(child)] = child
            pool.append(child)
    pool.sort(key=lambda a: (proxy(SPREAD_OVER, a, SPREAD_ALPHA), _content(a)))
    picked = [pool[round(i * (len(pool) - 1) / (count - 1))] for i in range(count)]
    return [
        dataclasses.replace(a, name=f"{space.name}-{macs / 1e6:.0f}m-{i:02d}")
        for i, a in enumerate(picked)
    ]


def _content(architecture: Architecture) -> str:
    return dataclasses.replace(architecture, name="").dumps()


def save_networks(path: Path, networks: Sequence[Architecture]) -> None:
    """Write ``networks`` as a JSON list."""
    write_text(path, json.dumps([a.to_json() for a in networks], indent=1) + "\n")


def load_networks(path: Path) -> list[Architecture]:
    """Read what :func:`save_networks` wrote. Raises DataError, ModelError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"cannot read the networks {path} ({type(error).__name__}): make them with "
            "python -m benchmarks.research.evidence select"
        ) from None
    if not isinstance(data, list) or not data:
        raise DataError(f"{path}: expected a list of Architectures")
    networks = [
        from_fields(Architecture, item, f"{path}: network {i}") for i, item in enumerate(data)
    ]
    if len({a.name for a in networks}) < len(networks):
        raise DataError(f"{path}: every network needs a name of its own")
    return networks
