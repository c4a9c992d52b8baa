"""Bundle: a folder with the model file(s) of one export and ``manifest.json``, which says all that
a user must know.

    edgeface-n-tflite-fp32-640x480/
      manifest.json
      edgeface-n.tflite

A manifest holds no dates and no paths, so the same inputs give the same bytes. What it claims is
checked before a file is used: the fields have their types, every file is a plain name inside the
folder, and every file has its SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeface.architecture.architecture import Architecture
from edgeface.backends import BACKENDS, PRECISIONS, from_checkout
from edgeface.decode import HeadLayout
from edgeface.errors import BundleError, ModelError
from edgeface.files import atomic_folder
from edgeface.options import parse_size
from edgeface.schema import from_fields, short, to_fields

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20
MAX_SIDE_PX = 1 << 16

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""of a model: files are named after it"""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class InputSpec:
    """What the model file takes: one RGB tensor of raw pixels. Normalisation is inside the
    graph."""

    width: int
    """px; of a dynamic file: the size it was checked at"""
    height: int
    """px"""
    dynamic: bool = False
    """True: any width and height that are multiples of 32 px"""
    layout: str = "NCHW"
    """NCHW or NHWC, of the input and of the outputs in the file"""
    dtype: str = "float32"
    """float32, uint8 or int8 (int8: pixel - 128)"""
    name: str = "image"
    """name of the input tensor in the file"""
    colour: str = "RGB"
    range: tuple[float, ...] = (0, 255)
    """lowest and highest pixel value"""
    pad_value: int = 0
    """pixel value that fills what a letterboxed image leaves free"""

    def __post_init__(self) -> None:
        _require(
            0 < self.width <= MAX_SIDE_PX and 0 < self.height <= MAX_SIDE_PX,
            "width and height",
            f"1 to {MAX_SIDE_PX} px",
        )
        _require(self.layout in ("NCHW", "NHWC"), "layout", "NCHW or NHWC")
        _require(self.dtype in ("float32", "uint8", "int8"), "dtype", "float32, uint8 or int8")
        _require(self.colour == "RGB", "colour", "RGB")
        _require(tuple(self.range) == (0, 255), "range", "[0, 255]")
        _require(0 <= self.pad_value <= 255, "pad_value", "0 to 255")


@dataclass(frozen=True)
class WeightsInfo:
    """Where the numbers in the file come from and what may be done with them."""

    sha256: str
    """of the weights that were exported"""
    licence: str
    data_terms: str
    """terms of the images that the weights were trained on"""


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``."""

    model: str
    target: str
    """onnx, tflite, ... (a row of the capability table)"""
    precision: str
    """fp32, fp16 or int8"""
    architecture: Architecture
    head_layout: HeadLayout
    input: InputSpec
    outputs: dict[str, str]
    """our output name (``cls_8``) -> name of that tensor in the file"""
    primary: str
    """the file that the runtime opens; one of ``files``"""
    tools: dict[str, str]
    """package -> version, of everything that took part in the conversion"""
    weights: WeightsInfo
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """file name -> SHA-256; filled in by :func:`write_bundle`"""
    parity: dict[str, Any] | None = None
    """``{"noise": {head: max_abs}, "photo": {head: max_abs}, "max_abs": {head: value}, "tolerance":
    value}``"""
    output_quantization: dict[str, tuple[float, ...]] | None = None
    """of a file whose outputs are int8: our output name -> (scale, zero point); value = (q - zero
    point) * scale"""
    calibration: dict[str, Any] | None = None
    """of an int8 file: ``{"method": ..., "images": count, "sha256": [...]}``, the photos its ranges
    were taken from"""
    accuracy: dict[str, Any] | None = None
    """of an int8 file: ``{"float": {"easy", "medium", "hard"}, "int8": {...}, "images": count,
    "protocol": text}``, ``reverted_layers`` (kept in float) and more figures of what quantising
    cost"""
    format_version: int = FORMAT_VERSION

    @property
    def folder_name(self) -> str:
        """``<model>-<target>-<precision>-<W>x<H>``, with ``-dynamic`` appended for a file of any
        size."""
        size = f"{self.input.width}x{self.input.height}" + (
            "-dynamic" if self.input.dynamic else ""
        )
        return f"{self.model}-{self.target}-{self.precision}-{size}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict; :meth:`from_json` gives back an equal Manifest.

        Of landmarks it speaks only where there are any: other manifests are, to the byte, what they
        were before.
        """
        data: dict[str, Any] = to_fields(self)
        return data

    def dumps(self) -> str:
        """Return the canonical text of ``manifest.json``: equal Manifests give equal bytes."""
        return json.dumps(self.to_json(), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, data: Any) -> Manifest:
        """Read :meth:`to_json` output. Raises BundleError on anything missing, unknown, ill-typed
        or out of range."""
        version = data.get("format_version") if isinstance(data, dict) else None
        if isinstance(data, dict) and (type(version) is not int or version != FORMAT_VERSION):
            raise BundleError(
                f"manifest: format_version {short(version)} is not one this edgeface reads "
                f"({FORMAT_VERSION}): export the model again, or install a newer edgeface"
            )
        try:
            manifest = from_fields(cls, data, "manifest")
            _check_consistent(manifest)
        except ModelError as error:
            raise BundleError(str(error)) from None
        return manifest


@dataclass(frozen=True)
class Bundle:
    """A folder that was opened and checked."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Bundle:
        """Read the manifest of the folder ``path``; with ``verify``, check the SHA-256 of every
        file now.

        :meth:`read` checks a file again each time, so what a runtime loads is what was verified.
        Raises BundleError.
        """
        path = Path(path)
        bundle = cls(path, _read_manifest(path))
        for name in bundle.manifest.files:
            if verify:
                bundle.read(name)
            else:
                bundle.file(name)
        return bundle

    @property
    def primary(self) -> Path:
        """Path of the file that the runtime opens."""
        return self.file(self.manifest.primary)

    @property
    def size_bytes(self) -> int:
        """Of the model files together, without the manifest."""
        return sum(self.file(name).stat().st_size for name in self.manifest.files)

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists. Raises BundleError if it is missing or leads out
        of the folder."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: the manifest lists no file {name!r}")
        path = self.path / name
        try:
            inside = path.resolve().parent == self.path.resolve()
            regular = path.is_file()
        except (OSError, RuntimeError) as error:
            raise BundleError(f"cannot read {path}: {error}") from None
        if not inside:
            raise BundleError(f"{self.path}: manifest names a file outside its folder: {name!r}")
        if not regular:
            raise BundleError(f"{self.path}: file {name!r} is missing: export the model again")
        return path

    def read(self, name: str | None = None) -> bytes:
        """Bytes of a listed file (default: the primary), equal to their SHA-256 in the manifest or
        BundleError."""
        name = self.manifest.primary if name is None else name
        path = self.file(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror or error}") from None
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise BundleError(
                f"{path} is truncated or altered: its SHA-256 differs from the manifest's: "
                "export the model again"
            )
        return content


def write_bundle(path: Path | str, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write the folder ``path`` whole or not at all, replacing one that is there, and return it
    opened.

    ``files`` gives each file's content, or a path to copy from; ``manifest.files`` is filled in
    from them. Raises OutputError when the place cannot be written, BundleError when manifest and
    files do not fit.
    """
    contents = {
        name: data if isinstance(data, bytes) else Path(data).read_bytes()
        for name, data in files.items()
    }
    hashes = {
        name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())
    }
    manifest = dataclasses.replace(manifest, files=hashes)
    text = manifest.dumps()
    Manifest.from_json(json.loads(text))
    path = Path(path)
    if (
        path.exists()
        and not (path / MANIFEST).is_file()
        and (not path.is_dir() or any(path.iterdir()))
    ):
        raise BundleError(f"{path} exists and is not a Bundle: choose another output folder")
    with atomic_folder(path) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
    return Bundle.open(path)


def _read_manifest(folder: Path) -> Manifest:
    try:
        if not folder.is_dir():
            raise BundleError(
                f"no Bundle at {folder}: expected a folder with {MANIFEST}; make one with: "
                "edgeface export --target onnx"
            )
        path = folder / MANIFEST
        if not path.is_file():
            raise BundleError(f"{folder} is not a Bundle: it has no {MANIFEST}")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(
                f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB: not a manifest"
            )
        data = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise BundleError(f"cannot read {folder / MANIFEST}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST} is not valid JSON: {short(str(error))}") from None
    try:
        return Manifest.from_json(data)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None


def _check_consistent(manifest: Manifest) -> None:
    """Checks across the fields of a well-typed manifest."""
    for label, text in (("model", manifest.model), ("target", manifest.target)):
        if not PLAIN_NAME.fullmatch(text):
            raise BundleError(f"manifest: {label} {short(text)} is not a plain name")
    if manifest.target not in BACKENDS:
        raise BundleError(
            f"manifest: unknown target {short(manifest.target)} (known: {', '.join(BACKENDS)})"
        )
    if manifest.precision not in PRECISIONS:
        raise BundleError(
            f"manifest: unknown precision {short(manifest.precision)} (known:"
            f" {', '.join(PRECISIONS)})"
        )
    _check_files(manifest.files)
    if manifest.primary not in manifest.files:
        raise BundleError(
            f"manifest: primary file {short(manifest.primary)} is not one of its files"
        )
    if set(manifest.outputs) != set(manifest.head_layout.output_names):
        raise BundleError(
            f"manifest: outputs must name exactly {', '.join(manifest.head_layout.output_names)}"
        )
    scales = manifest.output_quantization
    if scales is not None and (
        set(scales) != set(manifest.outputs)
        or not all(len(pair) == 2 and pair[0] > 0 for pair in scales.values())
    ):
        raise BundleError(
            "manifest: output_quantization must give [scale, zero point] of every output"
        )


def _check_files(files: dict[str, str]) -> None:
    for name, digest in files.items():
        if "/" in name or "\\" in name or ":" in name or name in (".", ".."):
            raise BundleError(f"manifest names a file outside its folder: {short(name)}")
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
            raise BundleError(f"manifest: {short(name)} is not a plain file name")
        if not _SHA256.fullmatch(digest):
            raise BundleError(
                f"manifest: the SHA-256 of {name} is not 64 lower-case hexadecimal digits"
            )


def _require(good: bool, name: str, wanted: str) -> None:
    """For ``__post_init__``: from_fields turns the ValueError into one line that names the
    object."""
    if not good:
        raise ValueError(f"{name} must be {wanted}")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def export(
    model: str,
    target: str,
    *,
    precision: str = "fp32",
    size: str = "640x480",
    dynamic: bool = False,
    weights: Path | str | None = None,
    out: Path | str = "dist",
) -> Bundle:
    """Export a network, prove that the file computes what torch computes, and return its Bundle, a
    folder in ``out``.

    model: a name that ``edgeface models`` lists, or a .safetensors file that edgeface wrote; a
    network without weights gets random ones, and the manifest says so. target: onnx, tflite,
    openvino or ncnn. precision: fp32 or fp16. size: of the input, WIDTHxHEIGHT in px; dynamic:
    accept others, too. weights: your own, of the network called ``model``.

    Raises OptionError for a combination that cannot be and without a checkout, ModelError,
    ExportError, MissingExtraError, OutputError.
    """
    width, height = parse_size(size)
    request = _part("export.request:ExportRequest")(target, precision, width, height, dynamic)
    source = _part("export.source:load_source")(model, weights)
    exported: Bundle = _part("export.pipeline:export_model")(source, request, out).bundle
    return exported


def quantize(
    bundle: Bundle | Path | str,
    *,
    data: Path | str | None = None,
    calibration: Path | str | None = None,
    max_drop: float = 0.5,
    out: Path | str | None = None,
) -> Bundle:
    """Make an INT8 file of an fp32 Bundle and return its Bundle, a folder in ``out``; default:
    beside ``bundle``.

    data: a WIDER FACE folder, on whose validation photos the worst of easy, medium and hard may
    lose ``max_drop`` AP points (0 to 100); without it no accuracy is measured, and the manifest
    says so. calibration: a folder of photos that ranges are taken from; default: the training
    photos of ``data``.

    Raises OptionError without photos and without a checkout, QuantizeError where the budget cannot
    be held, BundleError, DataError, MissingExtraError, OutputError.
    """
    made = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    request = _part("quantize.request:QuantizeRequest")(
        made.manifest.target, bundle=made.path, max_drop=max_drop, accuracy=data is not None
    )
    done = _part("quantize.pipeline:quantize_model")(
        request, out or made.path.parent, data=data, calibration=calibration
    )
    quantized: Bundle = done.bundle
    return quantized


def _part(path: str) -> Any:
    return from_checkout(path, f"make {path.partition('.')[0]} TARGET=tflite")
