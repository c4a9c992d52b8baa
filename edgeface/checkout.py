"""Exporting and quantising from Python, as ``edgeface.export`` and ``edgeface.quantize``.

Both need a checkout of the project, where the packages that do the work lie beside this one."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.backends import from_checkout
from edgeface.bundle import Bundle
from edgeface.options import as_path, parse_size
from edgeface.types import Note, Progress, Stage, unnoted, unseen

if TYPE_CHECKING:
    from edgeface.images.reading import OnError


def export(
    model: Path | str,
    target: str,
    *,
    precision: str = "fp32",
    size: str = "640x480",
    dynamic: bool = False,
    weights: Path | str | None = None,
    made_for: str | None = None,
    out: Path | str = "dist",
    stage: Stage = nullcontext,
) -> Bundle:
    """Export a network, check the file against torch, and return its Bundle, a folder in ``out``.

    model: a name that ``edgeface models`` lists, or a .safetensors file that edgeface wrote; a
    network without weights gets random ones, and the manifest says so. target: onnx, tflite,
    openvino or ncnn. precision: fp32 or fp16. size: of the input, WIDTHxHEIGHT in px; dynamic:
    accept other sizes, too. weights: your own weights for the network called ``model``. made_for:
    ``opencv``, ``mediapipe`` or ``task-library``, for a file that the face detector of that API
    can open. stage: called with the name of each step, returns the context that the step runs in.

    Raises OptionError for an impossible combination and without a checkout, ModelError,
    ExportError, MissingExtraError, OutputError.
    """
    as_path("model", model)
    out = as_path("out", out)
    weights = None if weights is None else as_path("weights", weights)
    width, height = parse_size(size)
    request = _part("export.request:ExportRequest")(target, precision, width, height, dynamic)
    source = _part("export.source:load_source")(str(model), weights)
    if made_for is not None:
        adapt = _part("export.apis:export_for")
        adapted: Bundle = adapt(made_for, source, request, out, stage=stage)
        return adapted
    done = _part("export.pipeline:export_model")(source, request, out, stage=stage)
    exported: Bundle = done.bundle
    return exported


def quantize(
    bundle: Bundle | Path | str,
    *,
    data: Path | str | None = None,
    annotations: Path | str | None = None,
    calibration: Path | str | None = None,
    max_drop: float = 0.5,
    out: Path | str | None = None,
    leave_out: Collection[Path | str] | Path | str = (),
    on_error: OnError | None = None,
    stage: Stage = nullcontext,
    progress: Progress = unseen,
    note: Note = unnoted,
) -> Bundle:
    """Quantise an fp32 Bundle to INT8 and return the new Bundle, a folder in ``out``.

    data: photos to measure AP on: a WIDER FACE folder, whose validation photos are used, or a
    folder of your own photos, named in ``annotations``. Without it no accuracy is measured, and the
    manifest says so. max_drop: AP points (0 to 100) that may be lost, on WIDER FACE in the worst of
    easy, medium and hard. out: default: the folder that ``bundle`` is in. calibration: a folder of
    photos to take ranges from; default: the training photos of ``data``, or its photos that
    ``annotations`` does not name. leave_out: path or paths, within that folder, of photos not to
    take ranges from. on_error: called for each photo that cannot be read, which is left out. stage:
    as in :func:`export`. progress: called as a step advances. note: called with each sentence that
    a user should know.

    Raises OptionError without photos and without a checkout, QuantizeError if the budget cannot be
    kept, BundleError, DataError, MissingExtraError, OutputError.
    """
    names = [leave_out] if isinstance(leave_out, (str, os.PathLike)) else leave_out
    made = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    request = _part("quantize.request:QuantizeRequest")(
        made.manifest.target, bundle=made.path, max_drop=max_drop, accuracy=data is not None
    )
    done = _part("quantize.pipeline:quantize_model")(
        request,
        out or _parent(made.path),
        data=data,
        annotations=annotations,
        calibration=calibration,
        leave_out=[as_path("leave_out", name).as_posix() for name in names],
        on_error=on_error,
        stage=stage,
        progress=progress,
        note=note,
    )
    quantized: Bundle = done.bundle
    return quantized


def _parent(path: Path) -> Path:
    """Parent folder of ``path``, also of ``.`` and ``..``; for a link, the folder it lies in."""
    return Path(os.path.abspath(path)).parent  # noqa: PTH100


def check() -> None:
    """Raise OptionError if nothing can be exported, as without a checkout."""
    _part("export.pipeline:export_model")


def _part(path: str) -> Any:
    return from_checkout(path, f"make {path.partition('.')[0]} TARGET=tflite")
