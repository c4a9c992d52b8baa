"""The capability table: what each target can do, what it needs, and why a combination is off.

One row per target drives the command line's choices, ``make`` targets, ``edgeface doctor``, the
documentation table and the parametrised tests. Runners, exporters and quantizers are named as
import paths and resolved on use, so that the library installs without a runtime it does not need
and without the ``export`` package of the checkout.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeface.errors import MissingExtraError, OptionError
from edgeface.quiet import unreported

PRECISIONS = ("fp32", "fp16", "int8")
"""how weights are stored: float32, float16, or 8-bit integers with scales"""
OPENCV = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
"""pip names of OpenCV, any of which will do; the first is the one that we install"""
CHECKOUT = Path(__file__).parents[1]
"""root of the checkout, if the package runs from one"""
CHECKOUT_VERBS = {"export": "export.verb:export", "quantize": "quantize.verb:quantize"}
"""verb of the command line -> its function, which only a checkout has"""


@dataclass(frozen=True)
class Backend:
    """One runtime family."""

    target: str
    title: str
    suffixes: tuple[str, ...]
    """suffixes of the model files; the first is of the primary file, which the runtime opens"""
    extra: str
    """``pip install 'edgeface[extra]'`` installs the runtime"""
    packages: tuple[str, ...]
    """import names of the runtimes that open its files, best first; any one is enough"""
    distributions: tuple[str, ...]
    """pip names of ``packages``, same order"""
    oldest: str
    """oldest version of the first package that opens the files and gives the same boxes: the lower
    bound in ``extra``"""
    runner: str
    """``module:class(bundle, threads, fast) -> Runner``"""
    probe: str
    """``module:class(bundle) -> Probe``, which shows all tensors of the file"""
    exporter: str
    """``module:function`` in the checkout; makes fp32 and fp16"""
    quantizer: str
    """``module:class`` in the checkout; makes int8 from an fp32 Bundle"""
    converters: tuple[str, ...]
    """pip names of the packages that exporter and quantizer need beside the runtime"""
    platforms: tuple[str, ...]
    """platforms that the runtime has wheels for, as the ``platform`` module names them"""
    dynamic: bool = False
    """True if a file can accept inputs of any height and width"""
    fast: str = ""
    """what a runner's fast mode changes; empty if nothing"""
    off: dict[str, str] = field(default_factory=dict)
    """precision -> why it cannot be made"""

    @property
    def suffix(self) -> str:
        """Suffix of the primary model file."""
        return self.suffixes[0]

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that can be made."""
        return tuple(p for p in PRECISIONS if p not in self.off)

    def installed(self) -> tuple[str, str] | None:
        """(pip name, version) of the first installed runtime, or None; imports no runtime."""
        for package, distribution in zip(self.packages, self.distributions, strict=True):
            if has_module(package):
                from importlib import metadata  # as slow as all other imports here together

                try:
                    return distribution, metadata.version(distribution)
                except metadata.PackageNotFoundError:
                    return distribution, "unknown"
        return None

    def usable(self) -> bool:
        """Is a runtime installed, and new enough to open the files?"""
        return self.installed() is not None and not self.too_old()

    def too_old(self) -> bool:
        """Is the first of ``packages`` installed in a version older than ``oldest``?"""
        distribution, version = self.installed() or ("", "unknown")
        if distribution != self.distributions[0] or version == "unknown":
            return False
        return _numbers(version) < _numbers(self.oldest)

    def load_runner(self) -> Callable[..., Any]:
        """Import and return the runner class."""
        return _resolve(self.runner)

    def load_probe(self) -> Callable[..., Any]:
        """Import and return the probe class."""
        return _resolve(self.probe)

    def load_exporter(self, precision: str) -> Callable[..., Any]:
        """Import and return the export function.

        Raises OptionError with the reason if the combination is off."""
        check_combination(self.target, precision)
        return from_checkout(self.exporter, f"make export TARGET={self.target}")

    def load_quantizer(self) -> Callable[..., Any]:
        """Import and return the class that makes int8 files.

        Raises OptionError with the reason if int8 is off."""
        check_combination(self.target, "int8")
        return from_checkout(self.quantizer, f"make quantize TARGET={self.target}")


def load_candidate_maker() -> Callable[..., Any]:
    """Import and return the checkout's function that exports untrained Architectures.

    Their files are for latency measurements only."""
    return from_checkout("quantize.candidate:candidate_bundles", "the same command")


def load_verb(name: str) -> Callable[..., Any]:
    """Import and return the function of one of :data:`CHECKOUT_VERBS`.

    Raises OptionError outside a checkout, as on a device."""
    return from_checkout(CHECKOUT_VERBS[name], f"make {name} TARGET=tflite")


_SERVERS = ("Linux x86_64", "Linux aarch64", "macOS arm64", "Windows AMD64")

BACKENDS: dict[str, Backend] = {
    b.target: b
    for b in (
        Backend(
            target="onnx",
            title="ONNX Runtime",
            suffixes=(".onnx",),
            extra="onnx",
            packages=("onnxruntime",),
            distributions=("onnxruntime",),
            oldest="1.17",
            runner="edgeface.runners.onnxruntime:OnnxRuntimeRunner",
            probe="edgeface.probes.onnxruntime:OnnxRuntimeProbe",
            exporter="export.onnx:export_onnx",
            quantizer="quantize.onnx:OnnxQuantizer",
            converters=("onnx", "onnxsim"),
            platforms=_SERVERS,
            dynamic=True,
        ),
        Backend(
            target="tflite",
            title="TFLite (LiteRT)",
            suffixes=(".tflite",),
            extra="tflite",
            packages=("ai_edge_litert", "tflite_runtime", "tensorflow"),
            distributions=("ai-edge-litert", "tflite-runtime", "tensorflow"),
            oldest="1.2",
            runner="edgeface.runners.tflite:TFLiteRunner",
            probe="edgeface.probes.tflite:TFLiteProbe",
            exporter="export.tflite:export_tflite",
            quantizer="quantize.tflite:TFLiteQuantizer",
            converters=("litert-torch", "ai-edge-quantizer"),
            platforms=_SERVERS,
        ),
        Backend(
            target="openvino",
            title="OpenVINO",
            suffixes=(".xml", ".bin"),
            extra="openvino",
            packages=("openvino",),
            distributions=("openvino",),
            oldest="2025.0",
            runner="edgeface.runners.openvino:OpenVinoRunner",
            probe="edgeface.probes.openvino:OpenVinoProbe",
            exporter="export.openvino:export_openvino",
            quantizer="quantize.openvino:OpenVinoQuantizer",
            converters=("onnx", "onnxsim", "nncf"),
            platforms=_SERVERS,
            dynamic=True,
            fast=(
                "arithmetic in bfloat16 on CPUs with AMX or AVX-512 BF16, in float16 on ARM,"
                " instead of float32"
            ),
        ),
        Backend(
            target="ncnn",
            title="ncnn",
            suffixes=(".param", ".bin"),
            extra="ncnn",
            packages=("ncnn",),
            distributions=("ncnn",),
            oldest="1.0.20260526",
            runner="edgeface.runners.ncnn:NcnnRunner",
            probe="edgeface.probes.ncnn:NcnnProbe",
            exporter="export.ncnn:export_ncnn",
            quantizer="quantize.ncnn:NcnnQuantizer",
            converters=("pnnx",),
            platforms=(*_SERVERS, "Linux armv7l"),
            dynamic=True,
            fast=(
                "float16 arithmetic and storage on ARM, bfloat16 storage elsewhere, instead of"
                " float32"
            ),
        ),
    )
}


def get_backend(target: str) -> Backend:
    """Return the row of ``target``. Raises OptionError that lists the targets that can be made."""
    if target not in BACKENDS:
        raise OptionError(f"unknown target {target!r} (known: {', '.join(export_targets())})")
    return BACKENDS[target]


def export_targets() -> tuple[str, ...]:
    """Targets that can be made in at least one precision."""
    return tuple(b.target for b in BACKENDS.values() if b.precisions)


def combinations(*precisions: str) -> list[tuple[str, str]]:
    """Every (target, precision) that can be made, limited to ``precisions`` if any are given."""
    return [
        (b.target, p)
        for b in BACKENDS.values()
        for p in b.precisions
        if p in (precisions or PRECISIONS)
    ]


def check_combination(target: str, precision: str) -> Backend:
    """Return the row of ``target``. Raises OptionError if it cannot be made in ``precision``."""
    backend = get_backend(target)
    if precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r} (known: {', '.join(PRECISIONS)})")
    if precision in backend.off:
        raise OptionError(f"{target} {precision} is off: {backend.off[precision]}")
    return backend


def capability_table() -> str:
    """The table as Markdown, as docs/formats.md prints it."""
    lines = [
        "| target | runtime | files | " + " | ".join(PRECISIONS) + " | input size | wheels for |",
        "|" + "---|" * (len(PRECISIONS) + 5),
    ]
    for row in BACKENDS.values():
        states = ("off: " + row.off[p] if p in row.off else "yes" for p in PRECISIONS)
        size = "fixed, or any multiple of 32 (`--dynamic`)" if row.dynamic else "fixed"
        files = " + ".join(f"`{suffix}`" for suffix in row.suffixes)
        lines.append(
            f"| `{row.target}` | {row.title} | {files} | {' | '.join(states)} | {size} | "
            f"{', '.join(row.platforms)} |"
        )
    return "\n".join(lines)


def import_runtime(backend: Backend) -> Any:
    """Import the first installed runtime of ``backend``.

    Raises MissingExtraError, which names the extra, if none is installed or it is too old."""
    for package in backend.packages:
        if has_module(package):
            imported = package in sys.modules
            if not imported and backend.too_old():
                break
            # unreported() waits for other threads, such as one that converts; skip it if imported.
            with nullcontext() if imported else unreported():
                return importlib.import_module(package)
    raise MissingExtraError(
        f"{backend.distributions[0]}>={backend.oldest}",
        backend.extra,
        f"running a {backend.target} model",
    )


def _numbers(version: str) -> tuple[int, ...]:
    """Numbers of a release version, comparable as a tuple: 1.0.20260526 -> (1, 0, 20260526)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0]))


def has_module(name: str) -> bool:
    """Is the module ``name`` installed? Looks without importing it."""
    return _origin(name) is not None


def _origin(name: str) -> str | None:
    """The file that ``import name`` would run or has run; None if there is none.

    There is none for a folder without __init__.py, such as one of results, which Python would
    import as an empty package."""
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return found.origin if found else None


def require_module(name: str, extra: str, purpose: str) -> None:
    """Raise MissingExtraError unless the module ``name`` of ``extra`` is installed.

    Imports nothing."""
    if not has_module(name):
        raise MissingExtraError(name, extra, purpose)


def from_checkout(path: str, command: str) -> Callable[..., Any]:
    """Import and return ``module:attribute`` from a package beside this one, in the checkout.

    Raises OptionError: if there is no such package, with ``command``, and if the program has
    imported another module by its name."""
    room = path.partition(":")[0].partition(".")[0]
    home = CHECKOUT / room / "__init__.py"
    if not home.is_file():
        raise OptionError(f"this runs from a checkout of the project: clone it and run: {command}")
    if not _is_file(_origin(room), home):
        # The script ``edgeface`` has no checkout on its path, and a script of the user has its own
        # folder first, perhaps with an export.py.
        sys.path.insert(0, str(CHECKOUT))
    if not _is_file(_origin(room), home):
        raise OptionError(
            f"the module {room} of this program is {_origin(room) or 'a folder'}, in the place of"
            f" edgeface's {home.parent}: give it another name"
        )
    return _resolve(path)


def _is_file(name: str | None, path: Path) -> bool:
    return name is not None and Path(name).exists() and path.samefile(name)


def _resolve(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function
