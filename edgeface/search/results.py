"""Networks that a search scores, measures and finds, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeface.architecture import Architecture
from edgeface.architecture.layers import layers_of, params_of
from edgeface.options import parse_size
from edgeface.predict.table import anonymous
from edgeface.schema import to_fields

Key = tuple[Architecture, str]


@dataclass(frozen=True)
class Candidate:
    """A network and its input size, which a search chooses together."""

    architecture: Architecture
    size: str
    """WxH in px"""

    @property
    def key(self) -> Key:
        """Equal for equal networks of equal input size, whatever their names."""
        return anonymous(self.architecture), self.size

    @property
    def memory(self) -> int:
        """Values that the largest layer reads and writes."""
        return max(
            layer.values_read + layer.values_written
            for layer in layers_of(self.architecture, *parse_size(self.size))
        )


@dataclass(frozen=True)
class ScoredNetwork:
    """One network that was scored, and what the latency model expects of it."""

    architecture: Architecture
    size: str
    """input size, WxH in px"""
    score: float
    cost: float
    """in the unit of the study's cost: ms, parameters, or values of the largest layer"""
    predicted_ms: float
    interval_ms: tuple[float, float]
    """95 % interval of the prediction"""

    @property
    def candidate(self) -> Candidate:
        """The network that was scored, with its input size."""
        return Candidate(self.architecture, self.size)


@dataclass(frozen=True)
class Round:
    """One round: what evolution saw, and which networks it sent to the device."""

    number: int
    """0: the networks measured before any evolution"""
    evaluated: int
    """networks scored in this round"""
    best_score: float
    """best score of the networks expected to keep the limits; 0: none"""
    picked: tuple[ScoredNetwork, ...]
    measured_ms: tuple[float, ...]
    """latency of each of :attr:`picked`; empty as long as they are not measured. Never NaN: once
    measured, a round lists only networks with a valid measurement."""


@dataclass(frozen=True)
class FrontNet:
    """A network of the final front."""

    architecture: Architecture
    size: str
    """input size, WxH in px"""
    score: float
    predicted_ms: float
    """predicted by a model fitted to all measured networks except this one"""
    predicted_interval_ms: tuple[float, float]
    """95 % interval of the prediction"""
    measured_ms: float
    interval_ms: tuple[float, float]
    """95 % interval of the measurement"""
    round: int
    params: int
    macs: int
    """multiply-accumulates at :attr:`size`"""
    memory: int
    """values that the largest layer reads and writes"""
    ap: float | None = None
    """0 to 1: reached in its trial, or predicted if it had no trial or one that ended early; None:
    a search without trials"""
    ap_interval: tuple[float, float] | None = None
    """95 % interval that the accuracy model predicts"""
    trained: int = 0
    """crops that its trial was trained on"""

    @property
    def candidate(self) -> Candidate:
        """The network that was measured, with its input size."""
        return Candidate(self.architecture, self.size)

    def cost(self, name: str) -> float:
        """The cost called ``name``, in the unit of that cost."""
        return float(getattr(self, COSTS[name].field))

    def to_json(self) -> dict[str, Any]:
        """Entry in front.json; in a search without trials, it lacks their fields."""
        found: dict[str, Any] = {**vars(self), "architecture": to_fields(self.architecture)}
        if self.ap is None:
            for name in ("ap", "ap_interval", "trained"):
                del found[name]
        return found


@dataclass(frozen=True)
class Cost:
    """A cost that the front can trade against the score."""

    unit: str
    field: str
    """attribute of :class:`FrontNet` that holds it"""
    of: Callable[[Candidate, float], float]
    """(candidate, its latency in ms) -> cost"""


COSTS = {
    "latency": Cost("measured ms", "measured_ms", lambda candidate, ms: ms),
    "size": Cost(
        "parameters", "params", lambda candidate, ms: float(params_of(candidate.architecture))
    ),
    "memory": Cost(
        "values of the largest layer", "memory", lambda candidate, ms: float(candidate.memory)
    ),
}
