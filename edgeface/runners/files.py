"""Shared by the runners of model files: checks against the manifest, and tensor layouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Bundle, Manifest, Port, Ports
from edgeface.errors import NO_MEMORY, BundleError, is_no_memory


def fixed_size(manifest: Manifest) -> tuple[int, int] | None:
    """(width, height) in px that the file takes; None if it takes any."""
    return None if manifest.input.dynamic else (manifest.input.width, manifest.input.height)


def load_failed(bundle: Bundle, error: Exception) -> BundleError:
    """One-line error for a file that the runtime refuses."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if is_no_memory(error):
        reason = NO_MEMORY
    return BundleError(f"{bundle.path / bundle.manifest.primary} cannot be loaded: {reason}")


def check_io(
    bundle: Bundle,
    inputs: Mapping[str, Sequence[object]],
    outputs: Iterable[str],
    dtypes: tuple[str, ...] = ("float32",),
) -> None:
    """Raise BundleError unless the file has its manifest's outputs and input of the right shape.

    ``inputs``: tensor name in the file -> shape; an entry that is not a positive int is free.
    ``dtypes``: types of input that the runner can feed.
    """
    manifest, spec = bundle.manifest, bundle.manifest.input
    where = bundle.path / manifest.primary
    if spec.dtype not in dtypes:
        raise BundleError(
            f"{where}: a {manifest.target} file has no {spec.dtype} input "
            f"(accepted: {', '.join(dtypes)})"
        )
    if list(inputs) != [spec.name]:
        raise BundleError(
            f"{where}: the file has the inputs {sorted(inputs)}, its manifest says [{spec.name!r}]"
        )
    wanted = (
        (1, 3, spec.height, spec.width)
        if spec.layout == "NCHW"
        else (1, spec.height, spec.width, 3)
    )
    shape = inputs[spec.name]
    fixed = [side for side in shape if isinstance(side, int) and side > 0]
    if len(shape) != 4 or (
        list(shape) != list(wanted) if not spec.dynamic else any(s not in wanted for s in fixed)
    ):
        raise BundleError(
            f"{where}: the file takes {list(shape)}, its manifest says {list(wanted)}"
        )
    missing = sorted(set(manifest.outputs.values()) - set(outputs))
    if missing:
        raise BundleError(f"{where}: the file has no output {missing[0]!r} that its manifest names")


def named_ports(manifest: Manifest, inputs: Sequence[str], outputs: Sequence[str]) -> Ports:
    """Ports of a file whose format addresses tensors by name.

    ``inputs``, ``outputs``: all names in the file, in the runtime's order.
    """

    def port(name: str, names: Sequence[str]) -> Port:
        return Port(name, name, names.index(name))

    return Ports(
        None,
        port(manifest.input.name, inputs),
        {ours: port(theirs, outputs) for ours, theirs in manifest.outputs.items()},
    )


def to_tensor(batch: NDArray[np.uint8], layout: str) -> NDArray[np.float32]:
    """uint8 [1, H, W, 3] -> float32 in the file's layout, contiguous."""
    if layout == "NHWC":
        return batch.astype(np.float32)
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2), np.float32)


def to_nhwc(value: NDArray[np.float32], layout: str) -> NDArray[np.float32]:
    """An output in the file's layout -> float32 NHWC, contiguous."""
    return np.ascontiguousarray(
        value.transpose(0, 2, 3, 1) if layout == "NCHW" else value, np.float32
    )
