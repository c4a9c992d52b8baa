"""The capability table: what each target can do, which package it needs, and why a combination is off.

One row per target drives the command line's choices, ``make`` targets, ``edgeface doctor``, the documentation table
and the parametrised tests. Runners, exporters and quantizers are named as import paths and resolved on use, so that
the library installs without a runtime it does not need and without the ``export`` package of the checkout.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from edgeface.errors import MissingExtraError, OptionError

PRECISIONS = ("fp32", "fp16", "int8")
"""what a weight is stored as: float32, float16, or 8-bit integers with scales"""


@dataclass(frozen=True)
class Backend:
    """One runtime family."""

    target: str
    title: str
    suffix: str
    """of the primary model file"""
    extra: str
    """``pip install 'edgeface[extra]'`` brings the runtime"""
    packages: tuple[str, ...]
    """import names of runtimes that serve it, best first; any one is enough"""
    distributions: tuple[str, ...]
    """pip names of ``packages``, same order"""
    runner: str | None
    """``module:function(bundle, threads) -> Runner``"""
    exporter: str | None
    """``module:function``, part of the checkout"""
    export_extra: str = "export"
    dynamic: bool = False
    """True: a file can take any height and width"""
    off: dict[str, str] = field(default_factory=dict)
    """precision -> why it cannot be exported"""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that can be exported."""
        return tuple(p for p in PRECISIONS if p not in self.off)

    def installed(self) -> tuple[str, str] | None:
        """(pip name, version) of the first runtime that is installed, without importing it; None if there is none."""
        for package, distribution in zip(self.packages, self.distributions, strict=True):
            if has_module(package):
                try:
                    return distribution, metadata.version(distribution)
                except metadata.PackageNotFoundError:
                    return distribution, "unknown"
        return None

    def load_runner(self) -> Callable[..., Any]:
        """Import and return the function that opens a Bundle. Raises OptionError where the target is off."""
        if self.runner is None:
            raise OptionError(f"target {self.target!r} is off: {self.off[PRECISIONS[0]]}")
        return _resolve(self.runner)

    def load_exporter(self, precision: str) -> Callable[..., Any]:
        """Import and return the export function. Raises OptionError with the reason where the combination is off."""
        if precision in self.off:
            raise OptionError(f"{self.target} {precision} is off: {self.off[precision]}")
        assert self.exporter is not None
        if not has_module(self.exporter.partition(":")[0].partition(".")[0]):
            raise OptionError("exporting runs from a checkout of the project: clone it and run: make export "
                              f"TARGET={self.target}")
        return _resolve(self.exporter)


_INT8_OFF = "no quantizer yet: export fp32 or fp16"

BACKENDS: dict[str, Backend] = {
    b.target: b
    for b in (
        Backend(
            target="onnx", title="ONNX Runtime", suffix=".onnx", extra="onnx",
            packages=("onnxruntime",), distributions=("onnxruntime",),
            runner="edgeface.runners.onnxruntime:OnnxRuntimeRunner", exporter="export.onnx:export_onnx", dynamic=True,
            off={"int8": _INT8_OFF},
        ),
        Backend(
            target="tflite", title="TFLite (LiteRT)", suffix=".tflite", extra="tflite",
            packages=("ai_edge_litert", "tflite_runtime", "tensorflow"),
            distributions=("ai-edge-litert", "tflite-runtime", "tensorflow"),
            runner="edgeface.runners.tflite:TFLiteRunner", exporter="export.tflite:export_tflite",
            off={"int8": _INT8_OFF},
        ),
        Backend(
            target="openvino", title="OpenVINO", suffix=".xml", extra="openvino",
            packages=("openvino",), distributions=("openvino",), runner=None, exporter=None,
            off=dict.fromkeys(PRECISIONS, "no OpenVINO exporter yet: export onnx or tflite"),
        ),
        Backend(
            target="ncnn", title="ncnn", suffix=".param", extra="ncnn",
            packages=("ncnn",), distributions=("ncnn",), runner=None, exporter=None,
            off=dict.fromkeys(PRECISIONS, "no ncnn exporter yet: export onnx or tflite"),
        ),
    )
}


def get_backend(target: str) -> Backend:
    """Return the row of ``target``. Raises OptionError that lists the targets that are on."""
    if target not in BACKENDS:
        raise OptionError(f"unknown target {target!r} (known: {', '.join(export_targets())})")
    return BACKENDS[target]


def export_targets() -> tuple[str, ...]:
    """Targets that can be exported in at least one precision."""
    return tuple(b.target for b in BACKENDS.values() if b.precisions)


def combinations() -> list[tuple[str, str]]:
    """Every (target, precision) that can be exported."""
    return [(b.target, p) for b in BACKENDS.values() for p in b.precisions]


def check_combination(target: str, precision: str) -> Backend:
    """Return the row if ``target`` can be exported in ``precision``; OptionError with the stated reason otherwise."""
    backend = get_backend(target)
    if precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r} (known: {', '.join(PRECISIONS)})")
    if precision in backend.off:
        raise OptionError(f"{target} {precision} is off: {backend.off[precision]}")
    return backend


def import_runtime(backend: Backend) -> Any:
    """Import the first runtime of ``backend`` that is installed. Raises MissingExtraError that names the extra."""
    for package in backend.packages:
        if has_module(package):
            return importlib.import_module(package)
    raise MissingExtraError(backend.distributions[0], backend.extra, f"running a {backend.target} model")


def has_module(name: str) -> bool:
    """Is the module ``name`` installed? Looks without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _resolve(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function
