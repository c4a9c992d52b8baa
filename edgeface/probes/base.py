"""Probe: reads every intermediate tensor of a model file, to calibrate it or to compare files."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeface.runners.base import RunnerClosedError
from edgeface.types import Closing

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor that a layer of the file computes."""

    name: str
    """name in the file, and key in the result of :meth:`Probe.run`"""
    layer: str
    """name of the layer that computes it"""
    operator: str
    """type of that layer, as the runtime calls it"""


class Probe(Closing):
    """A model file opened so that all its tensors can be read.

    Slower than a Runner, with the same arithmetic as far as possible. Runs on one thread in float32
    (parity settings). Close it, or use it in a ``with`` block.
    """

    def __init__(self, name: str) -> None:
        """name: of the network, for error messages."""
        self.name, self._closed = name, False
        self.tensors: tuple[TensorInfo, ...] = ()
        """the input, then the tensors in order of execution, outputs included; only float and int8
        activations, no weights and no shapes"""

    def run(self, image: NDArray[np.uint8]) -> Tensors:
        """Run uint8 RGB [1, H, W, 3] and return all tensors by name, as float32.

        Tensors with four dimensions are NHWC, others channels last. int8 tensors are dequantised
        with the file's own scale and zero point. The caller may keep the arrays. Raises
        RunnerClosedError after :meth:`close`.
        """
        if self._closed:
            raise RunnerClosedError(f"the probe of {self.name} is closed: open it again")
        return self._run(image)

    def close(self) -> None:
        """Free the runtime. Calling it again does nothing."""
        if not self._closed:
            self._closed = True
            self._free()

    @abstractmethod
    def _run(self, image: NDArray[np.uint8]) -> Tensors:
        """Do the work of :meth:`run`, on an open probe."""

    @abstractmethod
    def _free(self) -> None:
        """Free the runtime."""
