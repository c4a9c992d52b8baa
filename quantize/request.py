"""A quantisation request and its checks. Nothing here imports torch, a converter or a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface import zoo
from edgeface.backends import check_combination, get_backend
from edgeface.bundle import Bundle
from edgeface.errors import BundleError, MissingExtraError, OptionError
from edgeface.options import check_number, parse_size

if TYPE_CHECKING:
    from quantize.base import Quantizer


@dataclass(frozen=True)
class QuantizeRequest:
    """One INT8 Bundle to make. Raises OptionError, naming the option, for invalid values."""

    target: str
    """runtime to quantise for: a row of the capability table"""
    model: str = "edgeface-n"
    """network to export as fp32 first: its name, or a weights file that names its network"""
    width: int = 640
    """px, a multiple of 32"""
    height: int = 480
    """px, a multiple of 32"""
    weights: Path | None = None
    """your own weights for ``model``; None: the weights shipped with edgeface, or random ones"""
    seed: int | None = None
    """seed of random weights"""
    bundle: Path | None = None
    """fp32 Bundle to quantise; it determines the network, weights and input size"""
    max_drop: float = 0.5
    """budget: AP points that the worst of easy, medium and hard may lose"""
    max_reverted: float = 0.5
    """largest share of the layers, 0 to 1, to keep in float to hold the budget"""
    images: int | None = None
    """number of calibration photos; None: 64, or most of a smaller folder"""
    calibration_seed: int = 0
    """seed for choosing photos of the folder"""
    scale: str | None = None
    """how ranges are chosen; None: the first of the target's ways that holds the budget"""
    accuracy: bool = True
    """measure AP and hold the budget"""
    threads: int = 1
    """CPU threads of the runtime while AP is measured"""

    def __post_init__(self) -> None:
        check_combination(self.target, "int8")
        parse_size(f"{self.width}x{self.height}")
        drop = check_number("--max-drop (AP points)", self.max_drop, 0, 100)
        object.__setattr__(self, "max_drop", drop)  # NumPy numbers are not JSON
        check_number("--max-reverted (share of the layers)", self.max_reverted, 0, 1)
        if self.bundle is not None and not (self.weights is None and self.seed is None):
            raise OptionError(
                "--bundle excludes --weights and --seed: a Bundle has its weights inside"
            )


def check_installed(target: str, kind: type[Quantizer]) -> None:
    """Raise MissingExtraError for the first required package that is not installed, without
    importing any."""
    backend = get_backend(target)
    if backend.installed() is None:
        raise MissingExtraError(
            backend.distributions[0], backend.extra, f"running a {target} model"
        )
    missing = [name for name in kind.distributions if not _has_distribution(name)]
    if missing:
        raise MissingExtraError(missing[0], "export", f"quantising for {target}")


def _has_distribution(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


@dataclass(frozen=True)
class Photos:
    """Where the photos of one call of :func:`quantize.pipeline.quantize_model` come from."""

    data: Path | str | None
    annotations: Path | str | None
    calibration: Path | str | None
    leave_out: frozenset[str]

    def __post_init__(self) -> None:
        if self.annotations is not None and self.data is None:
            raise OptionError(
                "--annotations are of photos below --data, which accuracy is measured on: give"
                " --data, too"
            )

    @property
    def folder(self) -> Path | str | None:
        """The folder of the calibration photos."""
        return self.data if self.calibration is None else self.calibration


def open_float(path: Path, target: str) -> Bundle:
    """Open the Bundle to quantise. Raises BundleError unless it is fp32, of fixed size and made for
    ``target``."""
    bundle = Bundle.open(zoo.bundle_folder(path))
    bundle.require_heads()
    manifest = bundle.manifest
    size = f"{manifest.input.width}x{manifest.input.height}"
    model = manifest.model if zoo.is_network(manifest.model) else "the weights file it was made of"
    again = f"run: edgeface export --target {manifest.target} --model {model} --size {size}"
    if model != manifest.model:
        again = f"export {model} again, in fp32 and with --size {size}"
    if manifest.target != target:
        raise BundleError(
            f"{path} is made for {manifest.target}, --target says {target}: give one made for "
            f"{target}, or --target {manifest.target}"
        )
    if manifest.precision == "int8":
        raise BundleError(
            f"{path} is already INT8: give the fp32 Bundle that it was made from, or {again}"
        )
    if manifest.precision != "fp32":
        raise BundleError(f"{path} is {manifest.precision}, INT8 is made from fp32: {again}")
    if manifest.input.dynamic:
        raise BundleError(f"{path} takes images of any size, INT8 needs one size: {again}")
    return bundle
