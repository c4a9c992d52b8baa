"""The interface of a quantizer, the only part of this package that differs between targets."""

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
    """INT8 model files whose accuracy has not been measured yet."""

    files: dict[str, bytes]
    """suffix -> content, for every suffix of the backend"""
    input_dtype: str = "float32"
    """dtype of the file's input: float32, or int8 (pixel - 128)"""
    output_quantization: dict[str, tuple[float, float]] | None = None
    """our output name -> (scale, zero point), if outputs are int8"""
    outputs: dict[str, str] | None = None
    """our output name -> name in the file, if quantising changed the names"""


class Quantizer(ABC):
    """Observes one float Bundle once on the calibration photos, then quantises it any number of
    times, with different layers kept in float."""

    target: ClassVar[str]
    scales: ClassVar[tuple[str, ...]]
    """supported ways to choose activation ranges (out of ``max mse percentile kl``); the first is
    the default"""
    distributions: ClassVar[tuple[str, ...]]
    """pip names of the packages involved, for the manifest's ``tools``"""

    @abstractmethod
    def __init__(
        self, bundle: Bundle, images: Sequence[Image], scale: str, progress: Progress = unseen
    ) -> None:
        """``bundle``: fp32, fixed size, of :attr:`target`. ``images``: uint8 RGB [H, W, 3] of
        exactly its input size.

        Observes the activations and reports to ``progress``. The caller has checked the
        arguments.
        """

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are quantised and can be kept in float, in order of
        execution."""

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Names of the layers that always stay in float, because this runtime has no INT8 for
        them."""
        return ()

    @abstractmethod
    def quantize(self, reverted: Collection[str] = ()) -> Quantized:
        """INT8 files in which the layers ``reverted`` compute in float. Deterministic to the
        byte."""

    def require_known(self, reverted: Collection[str]) -> None:
        """Raise QuantizeError for a name that is not one of :attr:`layers`."""
        unknown = sorted(set(reverted) - set(self.layers))
        if unknown:
            raise QuantizeError(
                f"no layer {unknown[0]!r} can be kept in float (known: {', '.join(self.layers)})"
            )
