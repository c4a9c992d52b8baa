"""Input and output of an exporter. Nothing here imports torch or a converter."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from edgeface.backends import BACKENDS, check_combination, has_module
from edgeface.errors import MissingExtraError, OptionError
from edgeface.options import parse_size

INPUT_NAME = "input"
"""Name of the image tensor in every exported file."""


@dataclass(frozen=True)
class ExportRequest:
    """One file to make. Raises OptionError, naming the option, for an unsupported combination."""

    target: str
    """runtime to export for: a row of the capability table"""
    precision: str = "fp32"
    """format of the stored weights: fp32 or fp16"""
    width: int = 640
    """px, a multiple of 32"""
    height: int = 480
    """px, a multiple of 32"""
    dynamic: bool = False
    """accept any width and height that are multiples of 32, not only the given ones"""

    def __post_init__(self) -> None:
        backend = check_combination(self.target, self.precision)
        if self.precision == "int8":
            raise OptionError(
                "int8 files are made from float ones and photos: run: "
                f"edgeface quantize --target {self.target}"
            )
        parse_size(f"{self.width}x{self.height}")
        if self.dynamic and not backend.dynamic:
            others = " or ".join(b.target for b in BACKENDS.values() if b.dynamic)
            raise OptionError(
                f"--dynamic: a {self.target} file has one fixed size: leave --dynamic out and"
                f" export one file per size, or use --target {others}"
            )


@dataclass(frozen=True)
class Converted:
    """Model files before their parity check."""

    files: dict[str, bytes]
    """suffix (``.onnx``; ``.param`` and ``.bin``) -> content, for every suffix of the backend"""
    layout: str
    """layout of the input and of every output: NCHW or NHWC"""
    outputs: dict[str, str]
    """our output name -> name of the tensor in the file"""
    operators: dict[str, int]
    """operator -> number of times that the graph contains it"""
    tools: dict[str, str]
    """package -> version, for all packages involved"""


def versions(*distributions: str) -> dict[str, str]:
    """Package -> installed version, for the manifest."""
    return {name: metadata.version(name) for name in sorted(distributions)}


def require(purpose: str, *packages: str) -> None:
    """Raise MissingExtraError for the first of ``packages`` (import names) that is not installed,
    without importing any."""
    for package in packages:
        if not has_module(package):
            raise MissingExtraError(package.replace("_", "-"), "export", purpose)
