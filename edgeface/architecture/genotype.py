"""Genotypes: the operations of the AutoFEM neck of ASFD and their places, as plain data.

Needs only the standard library.

A genotype has two parts. The fusion of neighbouring levels (AutoFEM-FPN) has a fixed wiring, so
one operation name per edge defines it. The context of each level (AutoFEM-CPM) is a small graph,
called a cell: a list of nodes, each an operation on the sum of its inputs, which are earlier nodes
or the cell's input. The output of a cell is the nodes that no other node reads.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from edgeface.errors import ModelError
from edgeface.files import read_regular, write_text
from edgeface.schema import from_fields

LEVELS = 6
"""number of maps of the pyramid, strides 4 to 128"""
OPERATIONS: dict[str, tuple[int, int]] = {
    "conv_1x1": (1, 1),
    "sep_conv_3x3": (3, 1),
    "sep_conv_5x5": (5, 1),
    "sep_conv_7x7": (7, 1),
    "dil_conv_3x3": (3, 2),
    "dil_conv_3x3_3": (3, 3),
    "dil_conv_5x5": (5, 2),
}
"""Kernel and dilation of the depthwise convolution before the 1x1; conv_1x1 has none."""


@dataclass(frozen=True)
class Node:
    """One operation of a context cell."""

    inputs: tuple[int, ...]
    """numbers of its inputs, which are summed: 0 is the cell's input, k (from 1) is node k"""
    op: str
    """a name of :data:`OPERATIONS`"""


@dataclass(frozen=True)
class Genotype:
    """One AutoFEM. Everything is listed from the finest level to the coarsest."""

    top_down: tuple[str, ...]
    """operation of each level but the coarsest, on the product of its map and the one from above"""
    bottom_up: tuple[str, ...]
    """operation of each level but the finest, on the product of its map and the one from below"""
    same: tuple[str, ...]
    """operation of each level on its own map"""
    context: tuple[tuple[Node, ...], ...]
    """nodes of each level's context cell"""

    def __post_init__(self) -> None:
        for name, length in (
            ("top_down", LEVELS - 1),
            ("bottom_up", LEVELS - 1),
            ("same", LEVELS),
            ("context", LEVELS),
        ):
            found = len(getattr(self, name))
            if found != length:
                raise ValueError(f"genotype: {name} has {found} entries, accepted: {length}")
        for name in (*self.top_down, *self.bottom_up, *self.same):
            _check_operation(name)
        for level, cell in enumerate(self.context):
            _check_cell(cell, f"genotype: context[{level}]")


def leaves(cell: tuple[Node, ...]) -> tuple[int, ...]:
    """Numbers, from 1, of the nodes of a context cell that no other node reads."""
    read = {number for node in cell for number in node.inputs}
    return tuple(number for number in range(1, len(cell) + 1) if number not in read)


def write_genotype(path: Path, genotype: Genotype) -> None:
    """Write a genotype as JSON: equal genotypes give equal bytes."""
    write_text(path, json.dumps(dataclasses.asdict(genotype), indent=1) + "\n")


def read_genotype(path: Path) -> Genotype:
    """Read what :func:`write_genotype` wrote. Raises ModelError if the file is no genotype."""
    try:
        data = json.loads(read_regular(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"cannot read the genotype {path} ({type(error).__name__}): give the genotype.json that"
            " edgeface autofem writes"
        ) from None
    return from_fields(Genotype, data, str(path))


def _check_operation(name: str) -> None:
    if name not in OPERATIONS:
        raise ValueError(f"genotype: unknown operation {name!r} (known: {', '.join(OPERATIONS)})")


def _check_cell(cell: tuple[Node, ...], where: str) -> None:
    if not cell:
        raise ValueError(f"{where} has no node, accepted: one or more")
    for number, node in enumerate(cell, 1):
        _check_operation(node.op)
        if not node.inputs or len(set(node.inputs)) != len(node.inputs):
            raise ValueError(
                f"{where}: node {number} reads {list(node.inputs)}, accepted: one or more, each"
                " once"
            )
        if not all(0 <= source < number for source in node.inputs):
            raise ValueError(
                f"{where}: node {number} reads {list(node.inputs)}, accepted: 0 (the cell's input)"
                f" to {number - 1} (the node before)"
            )


def branches(*chains: tuple[str, ...]) -> tuple[Node, ...]:
    """A context cell of parallel chains of operations, each starting from the cell's input."""
    nodes: list[Node] = []
    for chain in chains:
        for place, op in enumerate(chain):
            nodes.append(Node((len(nodes) if place else 0,), op))
    return tuple(nodes)


_WIDE = branches(
    ("sep_conv_5x5",),
    ("sep_conv_3x3", "dil_conv_5x5"),
    ("sep_conv_3x3", "sep_conv_3x3", "dil_conv_5x5"),
)
_NARROW = branches(
    ("sep_conv_3x3",),
    ("sep_conv_3x3", "dil_conv_3x3"),
    ("sep_conv_3x3", "sep_conv_3x3", "dil_conv_3x3"),
)

DEFAULT_GENOTYPE = Genotype(
    top_down=("sep_conv_3x3",) * (LEVELS - 1),
    bottom_up=("sep_conv_3x3",) * (LEVELS - 1),
    same=("conv_1x1",) * LEVELS,
    context=(_WIDE,) * 2 + (_NARROW,) * (LEVELS - 2),
)
"""The fusion is the one that the authors released ("AutoFPN"). Their context cells are not
published: each cell here has the three branches of one, two and three convolutions (six nodes) of
DSFD's context module (Li et al., CVPR 2019). The two finest levels have wider receptive fields."""
