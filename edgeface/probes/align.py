"""Pairs the tensors of two files of one network, by name or else by value in order of execution."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.probes.base import Probe, TensorInfo, Tensors
from edgeface.types import Doubles, Floats

STRONG = 0.9
"""lowest similarity of tensors that are surely the same"""
WEAK = 0.5
"""similarity below which two tensors pair up only because nothing else is left"""
PAIR_BONUS = 0.05
"""added to the score of each pair: tensors behind a broken layer, with no similarity, still pair"""
SAMPLES = 4096
"""about so many values of a tensor are compared for the similarity"""


class Side:
    """The tensors of one file and their values on the photo, without later copies of a tensor.

    Outputs are always kept, and so are constant tensors and those with NaN: behind a broken layer,
    many of these are equal without being copies.
    """

    @classmethod
    def look(cls, probe: Probe, batch: NDArray[np.uint8], outputs: Mapping[str, str]) -> Side:
        """Run one image [1, H, W, 3] and take the tensors of ``probe``."""
        return cls(probe.tensors, probe.run(batch), outputs)

    def __init__(
        self, tensors: Sequence[TensorInfo], values: Tensors, outputs: Mapping[str, str]
    ) -> None:
        self.values = values
        self.tensors: list[TensorInfo] = []
        seen: set[tuple[tuple[int, ...], bytes]] = set()
        for tensor in tensors:
            value = values[tensor.name]
            key = (value.shape, value.tobytes())
            if key not in seen or tensor.name in outputs.values() or _sign(value) is None:
                seen.add(key)
                self.tensors.append(tensor)
        self.outputs = {
            ours: i
            for ours, theirs in outputs.items()
            for i, tensor in enumerate(self.tensors)
            if theirs in (tensor.name, tensor.layer)
        }
        """edgeface's name of an output -> index in ``tensors``"""
        self.shapes = [_shape(values[tensor.name]) for tensor in self.tensors]
        self.signs = [_sign(values[tensor.name]) for tensor in self.tensors]
        self.samples = [_sample(values[tensor.name]) for tensor in self.tensors]


def align(a: Side, b: Side, tolerance: float) -> list[tuple[int, int]]:
    """(index in A, index in B) of tensors that are the same, in order of A.

    Tensors pair up by name if at least half of those of the smaller side have a namesake of equal
    shape. Otherwise the inputs and the outputs of equal names are pairs, and :func:`monotone` finds
    the rest:

    1. Tensors that are surely the same. The first pass gives the spine, further ones the branches
      that one runtime executes earlier than the other.
    2. Similar tensors anywhere; if an output is beyond the tolerance, also dissimilar ones between
      the same two pairs of the spine.
    3. In that case also tensors left over on branches out of order (:func:`_pair_rest`).
    """
    places = {tensor.name: j for j, tensor in enumerate(b.tensors)}
    named = [
        (i, places[tensor.name]) for i, tensor in enumerate(a.tensors) if tensor.name in places
    ]
    named = [(i, j) for i, j in named if a.shapes[i] == b.shapes[j]]
    if 2 * len(named) >= min(len(a.tensors), len(b.tensors)):
        return named
    pairs = {0: 0} | {i: b.outputs[name] for name, i in a.outputs.items() if name in b.outputs}
    scores = _similarities(a, b)
    sound = all(scores.get(pair, 0.0) >= 1 - tolerance for pair in pairs.items())
    spine = monotone(
        {pair: score for pair, score in scores.items() if score >= STRONG}, *_left(a, b, pairs)
    )
    pairs |= dict(spine)
    rows, columns = [i for i, _ in spine], [j for _, j in spine]
    for least in (
        STRONG,
        WEAK if sound else 0.0,
    ):  # where the outputs agree, a dissimilar pair is a wrong pair, not an error
        allowed = {
            (i, j): score
            for (i, j), score in scores.items()
            if score >= least
            and (score >= WEAK or bisect.bisect(rows, i) == bisect.bisect(columns, j))
        }
        while more := monotone(allowed, *_left(a, b, pairs)):
            pairs |= dict(more)
    return sorted((pairs if sound else pairs | _pair_rest(a, b, pairs)).items())


def _left(a: Side, b: Side, pairs: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Indices in A and in B that are in no pair."""
    taken = set(pairs.values())
    return (
        [i for i in range(len(a.tensors)) if i not in pairs],
        [j for j in range(len(b.tensors)) if j not in taken],
    )


def _pair_rest(a: Side, b: Side, pairs: Mapping[int, int]) -> dict[int, int]:
    """Pair the tensors left of one shape and sign in order, if both sides have equally many."""
    kinds: dict[Any, tuple[list[int], list[int]]] = {}
    for place, (side, indices) in enumerate(zip((a, b), _left(a, b, pairs), strict=True)):
        for i in indices:
            kinds.setdefault((side.shapes[i], bool(side.signs[i])), ([], []))[place].append(i)
    return {
        i: j
        for rows, columns in kinds.values()
        if len(rows) == len(columns)
        for i, j in zip(rows, columns, strict=True)
    }


def monotone(
    scores: Mapping[tuple[int, int], float],
    rows: Sequence[int],
    columns: Sequence[int],
) -> list[tuple[int, int]]:
    """Pairs (row, column), both increasing, with the largest sum of scores.

    scores: of the pairs that are allowed; each also adds :data:`PAIR_BONUS`. Algorithm of Needleman
    and Wunsch, 1970.
    """
    best = np.zeros((len(rows) + 1, len(columns) + 1))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            score = scores.get((row, column))
            together = -math.inf if score is None else best[i, j] + score + PAIR_BONUS
            best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], together)
    pairs = []
    i, j = len(rows), len(columns)
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((rows[i], columns[j]))
    return pairs[::-1]


def _shape(value: Floats) -> tuple[int, ...]:
    """Shape without sides of 1, which runtimes add and drop."""
    return tuple(side for side in value.shape if side != 1)


def _sign(value: Floats) -> bool | None:
    """Are there negative values? None for a constant tensor or one with NaN.

    Tells a convolution from the ReLU behind it."""
    low, high = float(value.min()), float(value.max())
    return low < 0 if math.isfinite(low) and low != high else None


def _sample(value: Floats) -> Doubles:
    """Evenly spread values, at the same places in tensors of equal shape."""
    flat = value.ravel()
    return flat[:: max(1, flat.size // SAMPLES)].astype(np.float64)


def _similarities(a: Side, b: Side) -> dict[tuple[int, int], float]:
    """(i, j) -> similarity, for pairs of equal shape whose signs agree or that are outputs."""
    found: dict[tuple[int, int], float] = {}
    outputs = {(i, b.outputs[name]) for name, i in a.outputs.items() if name in b.outputs}
    for i, (shape, sign) in enumerate(zip(a.shapes, a.signs, strict=True)):
        for j, (other_shape, other_sign) in enumerate(zip(b.shapes, b.signs, strict=True)):
            agree = sign == other_sign or None in (sign, other_sign) or (i, j) in outputs
            if shape == other_shape and agree:
                found[i, j] = _similarity(a.samples[i], b.samples[j])
    return found


def _similarity(x: Doubles, y: Doubles) -> float:
    """1 - rms(x - y) / std, clipped to 0 ... 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        scale, error = max(float(x.std()), float(y.std())), float(np.sqrt(np.mean((x - y) ** 2)))
    if error == 0:
        return 1.0
    return (
        float(np.clip(1 - error / scale, 0, 1))
        if scale > 0 and math.isfinite(error / scale)
        else 0.0
    )
