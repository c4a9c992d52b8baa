"""Averages several weights files of the same network into one: the mean of each tensor.

Trainings with a common start, such as two that ``edgeface train --from`` branched off the same run,
end in one valley of the loss, and their mean is often better than each of them (Wortsman et al.
2022, "Model soups"). Trainings that each started from scratch do not, and their mean is noise: only
an evaluation tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeface.architecture import Architecture
from edgeface.errors import ModelError, OptionError
from edgeface.files import refuse_input
from edgeface.zoo.named import is_weights_file, named_architecture
from edgeface.zoo.weights import (
    ARCHITECTURE_KEY,
    Weights,
    load_weights_file,
    network_with,
    read_metadata,
    save_weights,
)


@dataclass(frozen=True)
class Averaged:
    """The result of :func:`average_weights`."""

    model: str
    weights: str
    """path of the file written"""
    files: list[str]
    """paths of the files averaged"""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def average_weights(files: Sequence[Path], out: Path) -> Averaged:
    """Write the mean of the weights in ``files``, two or more safetensors files of one network, to
    ``out``.

    Every tensor is averaged, those of normalisation included, with sums in float64. Needs torch.
    Raises OptionError for fewer than two files or if ``out`` is one of them, and ModelError for
    files that are damaged or of different networks.
    """
    refuse_input(out, files, "--out")
    if len(files) < 2:
        raise OptionError(f"a mean is of two files or more, {len(files)} given: name another")
    architecture = _architecture(files[0])
    for file in files[1:]:
        other = _architecture(file)
        if replace(other, name=architecture.name) != architecture:
            raise ModelError(
                f"{file} is of {other.name}, {files[0]} of {architecture.name}: give files of one"
                " network"
            )
    network = network_with(architecture, _mean(files, architecture))
    save_weights(network, out)
    return Averaged(architecture.name, str(out), [str(file) for file in files])


def _architecture(file: Path) -> Architecture:
    if not is_weights_file(file):
        raise ModelError(f"{file}: give the weights.safetensors of a training")
    if ARCHITECTURE_KEY not in read_metadata(file):
        raise ModelError(
            f"{file} does not say which network it is of: give files that edgeface train wrote"
        )
    return named_architecture(file)


def _mean(files: Sequence[Path], architecture: Architecture) -> Weights:
    """Name -> mean of the tensors in ``files``. Raises ModelError for a file that does not fit the
    network."""
    total: dict[str, Any] = {}
    for file in files:
        weights = load_weights_file(file)
        try:
            network_with(architecture, weights)
        except ModelError as error:
            raise ModelError(f"{file}: {error}: get the file again") from None
        for key, value in weights.items():
            total[key] = total.get(key, 0.0) + value.astype(np.float64)
    return {key: (value / len(files)).astype(np.float32) for key, value in total.items()}
