"""Every tensor that a module of a network returns in torch: the reference for exported files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import has_module
from edgeface.errors import MissingExtraError
from edgeface.probes.base import Probe, TensorInfo, Tensors
from edgeface.runners.torch import TorchRunner

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALLEST = (1, 64, 64, 3)
"""shape of the image that is run once to list the modules"""


class TorchProbe(Probe):
    """Runs a network in torch, with normalisations folded, as the exporters convert it.

    Tensors are named by the paths of their modules (``backbone.stages.0.1.first``), outputs by
    their own names. Results computed between modules, such as the sums of a pyramid, are left out.
    """

    def __init__(self, runner: TorchRunner) -> None:
        super().__init__(runner.model)
        self._runner = runner
        self._found: list[tuple[TensorInfo, NDArray[np.float32]]] = []
        for path, module in runner._network.named_modules():
            if path:
                module.register_forward_hook(self._hook(path))
        self.run(np.zeros(SMALLEST, np.uint8))
        self.tensors = tuple(info for info, _ in self._found)

    @classmethod
    def open(cls, model: str) -> TorchProbe:
        """Open a zoo name or a weights file.

        Raises ModelError if there are no weights, MissingExtraError without torch."""
        if not has_module("torch"):
            raise MissingExtraError(
                "torch", "zoo", f"looking into {model} by name instead of an exported Bundle"
            )
        return cls(TorchRunner.open(model))

    def _run(self, image: NDArray[np.uint8]) -> Tensors:
        self._found = [(TensorInfo("input", "input", "Input"), image.astype(np.float32))]
        self._seen: Counter[str] = Counter()
        heads = self._runner.run(image)
        self._found += [(TensorInfo(name, name, "Output"), value) for name, value in heads.items()]
        return {info.name: value for info, value in self._found}

    def _free(self) -> None:
        self._runner.close()

    def _hook(self, path: str) -> Any:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...], value: Any) -> None:
            if getattr(value, "ndim", 0) == 4:  # not the tuple of a pyramid or a head
                self._seen[path] += 1  # the levels of a head may share a module
                name = path if self._seen[path] == 1 else f"{path}:{self._seen[path]}"
                nhwc = np.ascontiguousarray(value.permute(0, 2, 3, 1).cpu().numpy())
                self._found.append((TensorInfo(name, name, type(module).__name__), nhwc))

        return keep
