"""Which operators between the layers are worth quantising when some of the layers stay in float.

A layer has weights (a convolution); everything else lies between layers. What lies between two INT8
layers is INT8 too, what lies between two float ones is float, and where it has both on one side,
one INT8 neighbour is enough::

    Conv int8 --.                               Conv float --.
                Add int8 --> Conv int8                       Add float --> Conv int8
    Conv float -'                               Conv float -'
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Operator:
    """One node of a graph."""

    name: str
    inputs: tuple[str, ...]
    """names of the activations it reads; weights left out"""
    outputs: tuple[str, ...]
    layer: bool
    """has weights: the choice between INT8 and float is made for it"""
    carried: bool = True
    """INT8 can compute it"""


def int8_before(operators: Sequence[Operator], reverted: Collection[str]) -> set[str]:
    """Names of the operators that INT8 reaches from before: from the image, or from a layer that is
    not ``reverted``.

    ``operators``: in order of execution.
    """
    made = {name for op in operators for name in op.outputs}
    int8 = {name for op in operators for name in op.inputs} - made
    return _reached([(op, op.inputs, op.outputs) for op in operators], int8, reverted)


def int8_after(
    operators: Sequence[Operator], outputs: Collection[str], reverted: Collection[str]
) -> set[str]:
    """Names of the operators whose result goes to a layer that is not ``reverted``, or is one of
    ``outputs``."""
    return _reached(
        [(op, op.outputs, op.inputs) for op in reversed(operators)], set(outputs), reverted
    )


def _reached(
    steps: Sequence[tuple[Operator, tuple[str, ...], tuple[str, ...]]],
    int8: set[str],
    reverted: Collection[str],
) -> set[str]:
    """Walk along the arrows of ``steps`` (operator, from, to); ``int8`` grows by the tensors that
    INT8 reaches."""
    found = set()
    for op, sources, targets in steps:
        reached = not int8.isdisjoint(sources)
        if reached:
            found.add(op.name)
        if op.carried and (op.name not in reverted if op.layer else reached):
            int8.update(targets)
    return found
