"""The accuracy budget: keeps as many layers in INT8 as it allows, for any runtime and file format.

1. Quantise all layers and measure AP; if the budget holds, that is the result. Unless the user
   chose a range method, each method is tried before any layer is kept in float: float layers cost
   time on the device, other ranges cost none (:meth:`quantize.pipeline._Job.budget`).
2. Rank the layers by damage: how much less the best candidates' scores, boxes and landmarks change
   when that layer alone is kept in float. Changes of the background, most of a head, do not count.
3. Keep the worst 1, 2, 4, ... layers in float until the budget holds, then bisect to the smallest
   number that holds it. Every number accepted was measured.
4. If no number holds the budget, repeat step 3 with the layers ranked by the noise of whole heads:
   for EResFD, ONNX Runtime needs the first ranking and TensorFlow Lite the second.
5. If the budget does not hold with the allowed share of layers in float, raise an error that says
   which budget can be held.

The budget is in AP points: the largest drop of easy, medium and hard counts. AP ignores landmarks;
their shift is measured (:attr:`HeadNoise.landmark_shift`) but not limited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from edgeface.errors import QuantizeError, counted
from edgeface.types import Progress, unseen
from quantize.base import Quantized, Quantizer
from quantize.journal import QuantizeJournal

SETTINGS = ("easy", "medium", "hard")
RANKINGS = ("damage", "total")
"""attributes of :class:`HeadNoise` to rank layers by, tried in this order"""
ROUNDING = 1e-9
"""AP points of tolerance, so that a drop of exactly the budget holds it"""


@dataclass(frozen=True)
class FileAccuracy:
    """AP of one file, 0 to 1; None if no annotated face counts."""

    easy: float | None
    medium: float | None
    hard: float | None
    by_height: dict[str, float | None]
    images: int
    protocol: str

    @property
    def settings(self) -> dict[str, float | None]:
        """``easy``, ``medium`` and ``hard``."""
        return {name: getattr(self, name) for name in SETTINGS}


@dataclass(frozen=True)
class HeadNoise:
    """Differences between the heads of an INT8 file and those of the float file."""

    power: dict[str, float]
    """head -> mean squared difference / variance of the float head"""
    damage: float
    """mean squared change of the scores, boxes and landmarks of the best candidates; adds up over
    layers, as far as their errors are independent"""
    landmark_shift: float | None = None
    """mean distance that the landmarks of the best candidates moved, in sides of their boxes,
    weighted by score; None without landmarks"""

    @property
    def total(self) -> float:
        """Sum of ``power`` over the heads, background included."""
        return sum(self.power.values())

    @property
    def snr_db(self) -> dict[str, float]:
        """Head -> signal-to-noise ratio, at most 200 dB."""
        return {head: -10 * math.log10(max(power, 1e-20)) for head, power in self.power.items()}


def worst_drop(reference: FileAccuracy, found: FileAccuracy) -> float:
    """AP points lost in the worst of easy, medium and hard; negative if all three gained.

    Raises QuantizeError if no face counts in any of them.
    """
    pairs = [
        (a, b)
        for a, b in zip(reference.settings.values(), found.settings.values(), strict=True)
        if a is not None and b is not None
    ]
    if not pairs:
        raise QuantizeError(
            "no annotated face counts in these validation photos: accuracy cannot be measured on"
            " them"
        )
    return max(100 * (a - b) for a, b in pairs)


class Budget:
    """Measures candidates of one :class:`Quantizer`; ``journal`` keeps each measurement, so that
    none is repeated."""

    def __init__(
        self,
        quantizer: Quantizer,
        noise: Callable[[Quantized], HeadNoise],
        accuracy: Callable[[Quantized, str], FileAccuracy],
        journal: QuantizeJournal,
        progress: Progress = unseen,
        scale: str = "",
        untried: Sequence[str] = (),
    ) -> None:
        """``noise`` and ``accuracy`` measure a candidate; ``accuracy`` also takes the text that its
        progress shows.

        scale: how the quantizer chose its ranges. untried: other ways to choose them, which the
        error message suggests.
        """
        self.quantizer, self.journal, self.progress = quantizer, journal, progress
        self.scale, self.untried = scale, untried
        self._noise, self._accuracy = noise, accuracy
        self._last: tuple[frozenset[str], Quantized] | None = None

    def quantized(self, reverted: Collection[str]) -> Quantized:
        """The candidate with ``reverted`` in float."""
        key = frozenset(reverted)
        if self._last is None or self._last[0] != key:
            self._last = (
                key,
                self.quantizer.quantize(
                    tuple(name for name in self.quantizer.layers if name in key)
                ),
            )
        return self._last[1]

    def noise(self, reverted: Collection[str]) -> HeadNoise:
        """Noise of the candidate with ``reverted`` in float."""
        return self.journal.remember(
            self._name("noise", reverted), HeadNoise, lambda: self._noise(self.quantized(reverted))
        )

    def accuracy(self, reverted: Collection[str]) -> FileAccuracy:
        """AP of the candidate with ``reverted`` in float."""
        what = "measuring INT8"
        if reverted:
            what += f" with {counted(len(reverted), 'layer')} in float"
        return self.journal.remember(
            self._name("accuracy", reverted),
            FileAccuracy,
            lambda: self._accuracy(self.quantized(reverted), what),
        )

    def _name(self, kind: str, reverted: Collection[str]) -> str:
        return json.dumps([self.scale, kind, *sorted(reverted)])

    def ranked(self, by: str = RANKINGS[0]) -> tuple[str, ...]:
        """All layers, the one that adds most to ``by`` (``damage`` or ``total``) first; ties in
        order of execution."""
        layers = self.quantizer.layers
        everything = getattr(self.noise(()), by)
        gain = {}
        for done, layer in enumerate(layers):
            self.progress("ranking the layers by damage", done, len(layers))
            gain[layer] = everything - getattr(self.noise((layer,)), by)
        self.progress("ranking the layers by damage", len(layers), len(layers))
        return tuple(sorted(layers, key=lambda layer: -gain[layer]))

    def hold(self, reference: FileAccuracy, max_drop: float, share: float = 0.5) -> tuple[str, ...]:
        """Layers to keep in float, the most damaging first, so that AP drops by at most
        ``max_drop`` points.

        share: largest share of the layers, 0 to 1, to keep in float. Raises QuantizeError, naming
        the budget that can be held, if that share is not enough.
        """
        lost = worst_drop(reference, self.accuracy(()))
        if lost <= max_drop + ROUNDING:
            return ()
        best = lost, 0
        most = int(round(share * len(self.quantizer.layers), 6))  # .58 * 50 is just below 29
        for by in RANKINGS if most else ():
            worst, drops = self.ranked(by), dict[int, float]()

            def holds(
                count: int, worst: tuple[str, ...] = worst, drops: dict[int, float] = drops
            ) -> bool:
                drops[count] = worst_drop(reference, self.accuracy(worst[:count]))
                return drops[count] <= max_drop + ROUNDING

            count = smallest(holds, most)
            if count is not None:
                return worst[:count]
            best = min(best, *((drop, count) for count, drop in drops.items()))
        error = QuantizeError(self._cannot(*best, max_drop))
        error.all_int8_drop = rounded_up(lost)
        raise error

    def _cannot(self, drop: float, count: int, max_drop: float) -> str:
        accepted = f"{rounded_up(drop):g}"
        others = ", ".join(self.untried)
        return (
            f"the budget of {max_drop:g} AP points cannot be held: best drop {accepted} points with"
            f" {count} of {len(self.quantizer.layers)} layers in float: accept it with --max-drop"
            f" {accepted}, or give more calibration photos (--images)"
            + (f", or another --scale ({others})" if others else "")
        )


def rounded_up(drop: float) -> float:
    """``drop`` rounded up to two decimals: a budget that the same measurements hold."""
    return math.ceil((drop - ROUNDING) * 100) / 100


def smallest(holds: Callable[[int], bool], most: int) -> int | None:
    """Smallest number from 1 to ``most`` for which ``holds`` is true, if ``holds`` is monotonic.

    Tries 1, 2, 4, ... and ``most``, then bisects; the number returned was tried. None if ``holds``
    is false for 1, 2, 4, ... and ``most``.
    """
    failed, tried = 0, 1
    while tried <= most and not holds(tried):
        failed, tried = tried, (min(2 * tried, most) if tried < most else most + 1)
    if tried > most:
        return None
    while tried - failed > 1:
        middle = (failed + tried) // 2
        if holds(middle):
            tried = middle
        else:
            failed = middle
    return tried
