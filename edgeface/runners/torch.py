"""PyTorch: the network as it was trained, from zoo weights or a safetensors file, at any size."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import has_module
from edgeface.decode import head_layout
from edgeface.errors import MissingExtraError
from edgeface.runners.base import Heads, Runner
from edgeface.runners.forks import check_opening

if TYPE_CHECKING:
    from edgeface.models.detector import FaceNet


class TorchRunner(Runner):
    """Runs a network in float32 on the CPU or on ``device``, with normalisations folded."""

    opens_after_fork = False

    def __init__(self, network: FaceNet, threads: int = 1, device: str = "cpu") -> None:
        import torch

        from edgeface.models.detector import deployable

        architecture = network.architecture
        super().__init__(
            architecture.name,
            head_layout(architecture),
            None,
            f"torch {torch.__version__}",
            threads,
        )
        self._network = deployable(network).to(device)
        self._device = device

    @classmethod
    def open(
        cls,
        model: Path | str,
        threads: int = 1,
        device: str = "cpu",
        weights: Path | str | None = None,
    ) -> TorchRunner:
        """Load the network that :func:`edgeface.zoo.resolve` finds for ``model`` and ``weights``.

        Raises ModelError for an unknown name, one that ships without weights, or a file that is
        damaged or does not fit; OptionError for two files; MissingExtraError without torch.
        """
        from edgeface.zoo import load_network, resolve

        check_opening(cls)  # before torch computes anything
        resolve(model, weights).check_weights()
        if not has_module("torch"):
            raise MissingExtraError(
                "torch", "zoo", f"running {model} by name instead of an exported Bundle"
            )
        return cls(load_network(model, weights), threads, device)

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        import torch

        with _THREAD_COUNT.of(self.threads), torch.inference_mode():
            # A copy: the array may be read-only or have negative strides, which torch does not
            # take.
            image = torch.from_numpy(batch.copy()).to(self._device).permute(0, 3, 1, 2).float()
            values = self._network(image)
        return {
            name: np.ascontiguousarray(value.permute(0, 2, 3, 1).cpu().numpy())
            for name, value in zip(self.layout.output_names, values, strict=True)
        }

    def _close(self) -> None:
        del self._network


class _ThreadCount:
    """Number of threads that torch computes with, set while runners compute.

    In torch it is a setting of each thread, and a new thread starts with the value set last. Each
    runner therefore restores the value from before any of them computed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = self._before = 0

    @contextlib.contextmanager
    def of(self, count: int) -> Iterator[None]:
        import torch

        with self._lock:
            if not self._users:
                self._before = torch.get_num_threads()
            self._users += 1
            torch.set_num_threads(count)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                torch.set_num_threads(self._before)


_THREAD_COUNT = _ThreadCount()
