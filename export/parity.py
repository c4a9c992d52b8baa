"""Checks that a file computes what torch computes, per head, on seeded noise and on a photo.

The file is opened with the project's own runner, as a user would open it. Figures are the largest
absolute difference, in logits for ``cls`` and in strides for ``box`` and ``kps``. The reference is
torch in float64, so that a figure is the error of the file alone: in float32, torch itself is off
by up to 1e-4 in a network with group normalisation.

    fp32  against the network as trained                   at most 1e-4
    fp16  against the network, weights rounded to float16  at most 1e-4: the conversion is exact
          against the network as trained                   at most 0.05: the effect of the rounding

0.05 moves a score by at most 0.0125 (the sigmoid's slope is at most 1/4) and a box edge or a
landmark by 0.4 px at stride 8, where boxes are 8 px and up, by 1.6 px at stride 32.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeface.bundle import Bundle
from edgeface.decode import head_layout
from edgeface.errors import ExportError, MissingExtraError
from edgeface.images import letterbox, read_image
from edgeface.models.detector import FaceNet, deployable
from edgeface.runners import open_runner

TOLERANCE = 1e-4
"""Largest difference that float32 rounding may make, in logits and in strides."""
TOLERANCE_FP16 = 0.05
"""Largest difference that float16 weights may make."""
NOISE_SEED = 20
PORTRAITS = {
    "skimage": "data/astronaut.png",
    "matplotlib": "mpl-data/sample_data/grace_hopper.jpg",
}
"""package -> photo that it contains: NASA and the US Navy, public domain"""

Heads = dict[str, NDArray[np.float32]]
Batch = NDArray[np.uint8]


@dataclass(frozen=True)
class Parity:
    """Figures of one file. ``cases``: input ("noise", "photo") -> head -> largest difference."""

    tolerance: float
    cases: dict[str, dict[str, float]]
    rounded: dict[str, dict[str, float]] | None = None
    """fp16 only: ``cases`` against the network with rounded weights, held to :data:`TOLERANCE`"""

    @property
    def max_abs(self) -> dict[str, float]:
        """Head -> largest difference over all inputs."""
        return _worst(self.cases)

    @property
    def failures(self) -> list[str]:
        """``head difference > tolerance`` for every head out of bounds; NaN is out of bounds."""
        checks = [(self.max_abs, self.tolerance)]
        if self.rounded is not None:
            checks.append((_worst(self.rounded), TOLERANCE))
        return [
            f"{head} {value:.2g} > {bound:g}"
            for figures, bound in checks
            for head, value in figures.items()
            if not value <= bound
        ]

    def to_json(self) -> dict[str, Any]:
        """The ``parity`` field of a manifest, rounded to three digits: more depend on the CPU."""
        data: dict[str, Any] = {"tolerance": self.tolerance, "max_abs": _digits(self.max_abs)}
        data |= {name: _digits(figures) for name, figures in self.cases.items()}
        if self.rounded is not None:
            data["rounded_weights"] = {
                "tolerance": TOLERANCE,
                "max_abs": _digits(_worst(self.rounded)),
            }
        return data


def check_parity(bundle: Bundle, network: FaceNet) -> Parity:
    """Compare the files of ``bundle`` with ``network`` (evaluation mode). Raises ExportError if a
    head differs."""
    manifest = bundle.manifest
    inputs = sample_inputs(manifest.input.width, manifest.input.height, manifest.input.dynamic)
    with _one_thread():
        runner = open_runner(bundle, threads=1)
        try:
            found = {name: runner.run(batch) for name, batch in inputs.items()}
        finally:
            runner.close()
        cases = _compare(found, inputs, network)
        if manifest.precision == "fp16":
            parity = Parity(
                TOLERANCE_FP16, cases, _compare(found, inputs, _rounded(deployable(network)))
            )
        else:
            parity = Parity(TOLERANCE, cases)
    if parity.failures:
        raise ExportError(
            f"{manifest.target} {manifest.precision} of {manifest.model} differs from torch: "
            f"{'; '.join(parity.failures)}: nothing was written"
            + (": export fp32" if manifest.precision == "fp16" else "")
        )
    return parity


def torch_heads(network: FaceNet, batch: Batch) -> dict[str, NDArray[np.floating[Any]]]:
    """Run ``network`` on uint8 RGB [1, H, W, 3]; output name -> [1, H/s, W/s, C], in the precision
    of the weights."""
    dtype = next(network.parameters()).dtype
    with torch.inference_mode():
        outputs = network(torch.from_numpy(batch).permute(0, 3, 1, 2).to(dtype))
    return {
        name: value.permute(0, 2, 3, 1).numpy()
        for name, value in zip(head_layout(network.architecture).output_names, outputs, strict=True)
    }


def sample_photo() -> Batch:
    """A portrait that an installed package contains: uint8 RGB [H, W, 3]. Raises MissingExtraError.

    The package is not imported: importing scikit-image inverts a matrix, and SciPy's OpenBLAS
    retries for ever if it gets no memory.
    """
    for package, name in PORTRAITS.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := Path(folder, name)).is_file():
                return read_image(path)
    raise MissingExtraError("scikit-image", "export", "the parity check on a photo")


def sample_inputs(width: int, height: int, dynamic: bool) -> dict[str, Batch]:
    """Name -> uint8 RGB [1, H, W, 3]; for a ``dynamic`` file also noise of another size."""
    random = np.random.default_rng(NOISE_SEED)

    def noise(h: int, w: int) -> Batch:
        return random.integers(0, 256, (1, h, w, 3), dtype=np.uint8)

    photo, _ = letterbox(sample_photo(), width, height)
    inputs = {"noise": noise(height, width), "photo": photo[None]}
    if dynamic:
        inputs["noise_other_size"] = noise(height + 32, max(width - 32, 32))
    return inputs


def _compare(
    found: dict[str, Heads], inputs: dict[str, Batch], network: FaceNet
) -> dict[str, dict[str, float]]:
    """Case -> head -> the largest difference from ``network`` in float64."""
    exact = copy.deepcopy(network).double()
    cases: dict[str, dict[str, float]] = {}
    for name, batch in inputs.items():
        expected = torch_heads(exact, batch)
        cases[name] = {
            head: _difference(value, expected[head]) for head, value in found[name].items()
        }
    return cases


def _difference(found: NDArray[np.float32], expected: NDArray[np.floating[Any]]) -> float:
    if found.shape != expected.shape:
        raise ExportError(f"a head has shape {found.shape}, torch gives {expected.shape}")
    return float(np.max(np.abs(found - expected)))


def _rounded(network: FaceNet) -> FaceNet:
    """A copy with convolution weights rounded to float16, as an fp16 file stores them."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.half().float())
    return network


def _worst(cases: dict[str, dict[str, float]]) -> dict[str, float]:
    heads = next(iter(cases.values()))
    return {head: float(np.max([figures[head] for figures in cases.values()])) for head in heads}


def _digits(figures: dict[str, float]) -> dict[str, float]:
    return {head: float(f"{value:.3g}") for head, value in figures.items()}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: sums are split by thread, so figures depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
