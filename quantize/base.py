"""What a quantizer is asked for and what it hands back: everything else in this room is the same
for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgeface.bundle import Bundle
from edgeface.errors import QuantizeError
from edgeface.images import Image
from edgeface.types import Progress, unseen


@dataclass(frozen=True)
class Quantized:
    """INT8 model files before anything is known of their accuracy."""

    files: dict[str, bytes]
    """suffix -> content, for every suffix of the backend"""
    input_dtype: str = "float32"
    """of the file's input: float32, or int8 (pixel - 128)"""
    output_quantization: dict[str, tuple[float, float]] | None = None
    """where outputs are int8: our output name -> (scale, zero point)"""
    outputs: dict[str, str] | None = None
    """our output name -> name in the file, where quantising changed the names"""


class Quantizer(ABC):
    """One float Bundle of one target, observed once on the calibration photos, quantised as often
    as is asked."""

    target: ClassVar[str]
    scales: ClassVar[tuple[str, ...]]
    """how activation ranges may be chosen (of ``max mse percentile kl``); the first is the
    default"""
    distributions: ClassVar[tuple[str, ...]]
    """pip names of the packages that take part, for the manifest's ``tools``"""

    @abstractmethod
    def __init__(
        self, bundle: Bundle, images: Sequence[Image], scale: str, progress: Progress = unseen
    ) -> None:
        """``bundle``: fp32, fixed size, of :attr:`target`. ``images``: uint8 RGB [H, W, 3] of
        exactly its input size.

        Observing the activations happens here and reports to ``progress``. All of this was checked
        by the caller.
        """

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are quantised and can be kept in float, in order of
        execution."""

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Names of the layers that INT8 cannot carry in this runtime: they stay in float in any
        case."""
        return ()

    @abstractmethod
    def quantize(self, reverted: Collection[str] = ()) -> Quantized:
        """INT8 files in which the layers ``reverted`` compute in float. Same arguments, same
        bytes."""

    def require_known(self, reverted: Collection[str]) -> None:
        """Raise QuantizeError for a name that is not one of :attr:`layers`."""
        unknown = sorted(set(reverted) - set(self.layers))
        if unknown:
            raise QuantizeError(
                f"no layer {unknown[0]!r} can be kept in float (known: {', '.join(self.layers)})"
            )
