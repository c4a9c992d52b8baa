"""Decides which operators between layers are quantised when some layers stay in float.

A layer has weights (a convolution); all other operators lie between layers. An operator is INT8 if
at least one layer before it and at least one layer after it is INT8. The image and the outputs of
the network count as INT8::

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
    """names of the activations that it reads, without weights"""
    outputs: tuple[str, ...]
    layer: bool
    """True if it has weights: INT8 or float is chosen for layers only"""
    carried: bool = True
    """True if INT8 can compute it"""


def int8_before(operators: Sequence[Operator], reverted: Collection[str]) -> set[str]:
    """Names of the operators behind the image or a layer that is not ``reverted``, directly or
    through other INT8 operators.

    ``operators``: in order of execution.
    """
    made = {name for op in operators for name in op.outputs}
    int8 = {name for op in operators for name in op.inputs} - made
    return _reached([(op, op.inputs, op.outputs) for op in operators], int8, reverted)


def int8_after(
    operators: Sequence[Operator], outputs: Collection[str], reverted: Collection[str]
) -> set[str]:
    """Names of the operators whose result reaches a layer that is not ``reverted``, or one of the
    ``outputs``."""
    return _reached(
        [(op, op.outputs, op.inputs) for op in reversed(operators)], set(outputs), reverted
    )


def _reached(
    steps: Sequence[tuple[Operator, tuple[str, ...], tuple[str, ...]]],
    int8: set[str],
    reverted: Collection[str],
) -> set[str]:
    """Names of the operators that INT8 reaches along ``steps`` (operator, from, to). ``int8``, the
    tensors in INT8 at the start, is extended in place."""
    found = set()
    for op, sources, targets in steps:
        reached = not int8.isdisjoint(sources)
        if reached:
            found.add(op.name)
        if op.carried and (op.name not in reverted if op.layer else reached):
            int8.update(targets)
    return found
