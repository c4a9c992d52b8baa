"""Manifest: the content of a Bundle's ``manifest.json``, checked when it is read."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any

from edgeface.architecture.architecture import Architecture
from edgeface.backends import BACKENDS, PRECISIONS
from edgeface.bundle.contract import Contract, contract_of
from edgeface.decode import HeadLayout
from edgeface.errors import BundleError, ModelError
from edgeface.schema import from_fields, short, to_fields

FORMAT_VERSION = 2
READ_VERSIONS = (1, FORMAT_VERSION)
"""format versions that can be read; version 1 has no contract"""
MANIFEST = "manifest.json"
README = "README.txt"
"""file beside the manifest with the contract in words"""
APIS = {
    "mediapipe": "MediaPipe's ObjectDetector",
    "task-library": "the ObjectDetector of the TFLite Task Library",
    "opencv": "cv2.FaceDetectorYN",
}
"""API of another library -> the class that opens files made for it"""
MAX_SIDE_PX = 1 << 16
RANDOM_WEIGHTS = "none: random weights"
"""start of the licence text of a network with random weights"""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""pattern of a model's name, after which files are named"""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class InputSpec:
    """What the model file takes: one RGB tensor of raw pixels. Normalisation is inside the
    graph."""

    width: int
    """px; for a dynamic file: the size at which the export was checked"""
    height: int
    """px"""
    dynamic: bool = False
    """True: any width and height that are multiples of 32 px"""
    layout: str = "NCHW"
    """layout of the input and of the outputs in the file: NCHW or NHWC"""
    dtype: str = "float32"
    """float32, uint8 or int8 (int8: pixel - 128)"""
    name: str = "image"
    """name of the input tensor in the file"""
    colour: str = "RGB"
    """RGB; BGR in files for OpenCV's API"""
    range: tuple[float, ...] = (0, 255)
    """lowest and highest pixel value"""
    pad_value: int = 0
    """pixel value of the padding around a letterboxed image"""

    def __post_init__(self) -> None:
        _require(
            0 < self.width <= MAX_SIDE_PX and 0 < self.height <= MAX_SIDE_PX,
            "width and height",
            f"1 to {MAX_SIDE_PX} px",
        )
        _require(self.layout in ("NCHW", "NHWC"), "layout", "NCHW or NHWC")
        _require(self.dtype in ("float32", "uint8", "int8"), "dtype", "float32, uint8 or int8")
        _require(self.colour in ("RGB", "BGR"), "colour", "RGB or BGR")
        _require(tuple(self.range) == (0, 255), "range", "[0, 255]")
        _require(0 <= self.pad_value <= 255, "pad_value", "0 to 255")


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights come from and what they may be used for."""

    sha256: str
    """hash of the exported weights"""
    licence: str
    data_terms: str
    """terms of the images that the weights were trained on"""

    @property
    def random(self) -> bool:
        """True if the weights are random and not trained."""
        return self.licence.startswith(RANDOM_WEIGHTS)


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
    """package -> version, for every package used in the conversion"""
    weights: WeightsInfo
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """file name -> SHA-256; filled in by :func:`write_bundle`"""
    parity: dict[str, Any] | None = None
    """``{"noise": {head: max_abs}, "photo": {head: max_abs}, "max_abs": {head: value}, "tolerance":
    value}``"""
    output_quantization: dict[str, tuple[float, ...]] | None = None
    """only for int8 outputs: our output name -> (scale, zero point); value = (q - zero point) *
    scale"""
    calibration: dict[str, Any] | None = None
    """only for int8 files: ``{"method": ..., "images": count, "sha256": [...]}``, the photos
    used for calibration"""
    accuracy: dict[str, Any] | None = None
    """only for int8 files: ``{"float": {"easy", "medium", "hard"}, "int8": {...}, "images": count,
    "protocol": text}``, ``reverted_layers`` (kept in float) and further figures on the loss of
    accuracy"""
    contract: Contract | None = None
    """complete description of input and outputs; null: the file was written by a version without
    contracts, or for another library's ``api``, which does the decoding"""
    api: str | None = None
    """library that the file is made for: ``mediapipe``, ``task-library`` or ``opencv``; null: the
    file is decoded as the contract says"""
    format_version: int = FORMAT_VERSION

    @property
    def folder_name(self) -> str:
        """``<model>-<target>-<precision>-<W>x<H>``, followed by ``-dynamic`` for a file of any size
        and by the ``api``, if any."""
        size = f"{self.input.width}x{self.input.height}"
        marks = "-dynamic" * self.input.dynamic + (f"-{self.api}" if self.api else "")
        return f"{self.model}-{self.target}-{self.precision}-{size}{marks}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict; :meth:`from_json` turns it back into an equal Manifest.

        contract and api are left out if None, and so are landmarks if there are none: such
        manifests are byte-identical to those from before these fields.
        """
        data: dict[str, Any] = to_fields(self)
        return {k: v for k, v in data.items() if v is not None or k not in ("contract", "api")}

    def dumps(self) -> str:
        """Return the canonical text of ``manifest.json``; equal Manifests give equal bytes."""
        return json.dumps(self.to_json(), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, data: Any) -> Manifest:
        """Read the output of :meth:`to_json`. Raises BundleError for anything missing, unknown,
        ill-typed or out of range."""
        version = data.get("format_version") if isinstance(data, dict) else None
        if isinstance(data, dict) and (type(version) is not int or version not in READ_VERSIONS):
            raise BundleError(
                f"manifest: format_version {short(version)} is not one this edgeface reads "
                f"({' and '.join(map(str, READ_VERSIONS))}): export the model again, or install a"
                " newer edgeface"
            )
        try:
            manifest = from_fields(cls, data, "manifest")
            _check_consistent(manifest)
        except ModelError as error:
            raise BundleError(str(error)) from None
        return manifest


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
    if manifest.api not in (None, *APIS):
        raise BundleError(f"manifest: unknown api {short(manifest.api)} (known: {', '.join(APIS)})")
    _check_files(manifest.files)
    if manifest.primary not in manifest.files:
        raise BundleError(
            f"manifest: primary file {short(manifest.primary)} is not one of its files"
        )
    names = manifest.head_layout.output_names
    if manifest.api is None and set(manifest.outputs) != set(names):
        raise BundleError(f"manifest: outputs must name exactly {', '.join(names)}")
    scales = manifest.output_quantization
    if scales is not None and (
        set(scales) != set(manifest.outputs)
        or not all(len(pair) == 2 and pair[0] > 0 for pair in scales.values())
    ):
        raise BundleError(
            "manifest: output_quantization must give [scale, zero point] of every output"
        )
    _check_contract(manifest)


def _check_contract(manifest: Manifest) -> None:
    """Raise BundleError unless the contract follows from the other fields."""
    contract = manifest.contract
    if contract is None:
        return
    ports = contract.ports
    names = {ours: port.name for ours, port in ports.outputs.items()}
    same_names = names == manifest.outputs and ports.input.name == manifest.input.name
    if same_names and contract == contract_of(manifest, ports):
        return
    raise BundleError("manifest: its contract contradicts its other fields: export the model again")


def _check_files(files: dict[str, str]) -> None:
    for name, digest in files.items():
        if "/" in name or "\\" in name or ":" in name or name in (".", ".."):
            raise BundleError(f"manifest names a file outside its folder: {short(name)}")
        if not _FILE_NAME.fullmatch(name) or name in (MANIFEST, README):
            raise BundleError(f"manifest: {short(name)} is not a plain file name")
        if not _SHA256.fullmatch(digest):
            raise BundleError(
                f"manifest: the SHA-256 of {name} is not 64 lower-case hexadecimal digits"
            )


def _require(good: bool, name: str, wanted: str) -> None:
    """Check for ``__post_init__``: from_fields turns the ValueError into one line that names the
    object."""
    if not good:
        raise ValueError(f"{name} must be {wanted}")
