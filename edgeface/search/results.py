"""What a search scores, measures and finds."""

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
    """What a search chooses: a network and the size of its input."""

    architecture: Architecture
    size: str
    """WxH in px"""

    @property
    def key(self) -> Key:
        """Equal for equal networks, however they are called."""
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
    """of the input, WxH in px"""
    score: float
    cost: float
    """in the unit of the study's cost: ms, parameters, or values of the largest layer"""
    predicted_ms: float
    interval_ms: tuple[float, float]
    """95 %"""

    @property
    def candidate(self) -> Candidate:
        """What was scored."""
        return Candidate(self.architecture, self.size)


@dataclass(frozen=True)
class Round:
    """One round: what evolution saw, and which networks it sent to the device."""

    number: int
    """0: the networks measured before any evolution"""
    evaluated: int
    """networks scored in this round"""
    best_score: float
    """of those expected to keep the limits"""
    picked: tuple[ScoredNetwork, ...]
    measured_ms: tuple[float, ...]
    """of :attr:`picked`, in that order; NaN is never written: what could not be measured is not
    listed"""


@dataclass(frozen=True)
class FrontNet:
    """A network of the final front."""

    architecture: Architecture
    size: str
    """of the input, WxH in px"""
    score: float
    predicted_ms: float
    """by a model fitted to all that was measured but this network"""
    predicted_interval_ms: tuple[float, float]
    """95 %"""
    measured_ms: float
    interval_ms: tuple[float, float]
    """95 %, of what was measured"""
    round: int
    params: int
    macs: int
    """multiply-accumulates at :attr:`size`"""
    memory: int
    """values that the largest layer reads and writes"""
    ap: float | None = None
    """0 to 1, reached in a trial, or foreseen where it had none or one that ended early; None: a
    search without trials"""
    ap_interval: tuple[float, float] | None = None
    """95 %, by the accuracy model"""
    trained: int = 0
    """crops of its trial"""

    @property
    def candidate(self) -> Candidate:
        """What was measured."""
        return Candidate(self.architecture, self.size)

    def cost(self, name: str) -> float:
        """In the unit of the cost called ``name``."""
        return float(getattr(self, COSTS[name].field))

    def to_json(self) -> dict[str, Any]:
        """As front.json has it; nothing of trials where there were none."""
        found: dict[str, Any] = {**vars(self), "architecture": to_fields(self.architecture)}
        if self.ap is None:
            for name in ("ap", "ap_interval", "trained"):
                del found[name]
        return found


@dataclass(frozen=True)
class Cost:
    """What a front may be against."""

    unit: str
    field: str
    """of a FrontNet"""
    of: Callable[[Candidate, float], float]
    """(what is scored, its predicted ms)"""


COSTS = {
    "latency": Cost("measured ms", "measured_ms", lambda candidate, ms: ms),
    "size": Cost(
        "parameters", "params", lambda candidate, ms: float(params_of(candidate.architecture))
    ),
    "memory": Cost(
        "values of the largest layer", "memory", lambda candidate, ms: float(candidate.memory)
    ),
}
