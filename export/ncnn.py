"""ncnn: float32 NCHW raw pixels in, float32 NCHW heads out, through pnnx.

pnnx is a separate program: it reads a TorchScript file, fuses activations, and supports group
normalisation. It numbers blobs; inputs and outputs get our names here. fp16 stores convolution
weights as float16; biases stay float32, and so does arithmetic unless a runner is opened in its
fast mode.

In this format layers cannot share weights: those of EXTD, through which an image passes six times,
are written six times.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch

from edgeface.decode import head_layout
from edgeface.errors import ExportError, MissingExtraError, ModelError, OptionError
from edgeface.files import scratch_folder
from edgeface.formats.ncnn import WEIGHTED, NcnnModel, dump_bin, dump_param, parse_model
from edgeface.models.detector import FaceNet
from export.request import INPUT_NAME, Converted, ExportRequest, require, versions

PNNX_SECONDS = 900
"""timeout: a conversion takes seconds, so one that takes longer than this hangs"""
_FILES = ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnparam", "ncnnbin", "ncnnpy")


def export_ncnn(network: FaceNet, request: ExportRequest) -> Converted:
    """Convert the deployable ``network``. Raises MissingExtraError, ExportError if pnnx fails."""
    require("exporting to ncnn", "ncnn")
    names = head_layout(network.architecture).output_names
    with scratch_folder() as folder:
        model = _convert(network, request, folder)
    if request.dynamic and any(
        layer.type == "Interp" and 3 in layer.params for layer in model.layers
    ):
        raise OptionError(
            f"--dynamic: {network.architecture.name} enlarges maps to the size of others, so that"
            " its ncnn file has one fixed size: leave --dynamic out, or use --target onnx"
        )
    model = _state_size(_rename(model, names), request)
    if request.precision == "fp16":
        model = _store_weights_as_float16(model)
    return Converted(
        files={".param": dump_param(model), ".bin": dump_bin(model)},
        layout="NCHW",
        outputs={name: name for name in names},
        operators=dict(Counter(layer.type for layer in model.layers)),
        tools=versions("torch", "ncnn", "pnnx"),
    )


def _convert(network: FaceNet, request: ExportRequest, folder: Path) -> NcnnModel:
    """Trace, run pnnx with every output inside ``folder``, and read what it wrote."""
    image = torch.zeros(1, 3, request.height, request.width)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # jit.trace is deprecated, but pnnx reads no other format that keeps weights
        traced = torch.jit.trace(network, image, check_trace=False)  # type: ignore[no-untyped-call]
        # torch's own save would end the process if the disk is full.
        (folder / "model.pt").write_bytes(traced.save_to_buffer())
    try:
        return parse_model(
            *run_pnnx(folder / "model.pt", network.architecture.name, request.width, request.height)
        )
    except ModelError as error:
        raise ExportError(f"pnnx wrote what this edgeface cannot read: {error}") from None


def run_pnnx(source: Path, name: str, width: int, height: int) -> tuple[bytes, bytes]:
    """Content of ncnn's .param and .bin for the TorchScript or ONNX file ``source``.

    pnnx writes all its files into the folder of ``source``. ``name``: for messages. Raises
    MissingExtraError, ExportError.
    """
    outputs = [f"{kind}={source.with_name(kind)}" for kind in _FILES]
    command = [
        str(pnnx_program()),
        str(source),
        f"inputshape=[1,3,{height},{width}]f32",
        "fp16=0",
        *outputs,
    ]
    try:
        done = subprocess.run(
            command,
            cwd=source.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PNNX_SECONDS,
            check=False,
        )
        print(done.stdout.decode("utf-8", "replace"))  # shown with --verbose
        if done.returncode != 0:
            raise ExportError(
                f"pnnx failed on {name} (exit code {done.returncode}): run again with --verbose for"
                " its log"
            )
        return source.with_name("ncnnparam").read_bytes(), source.with_name("ncnnbin").read_bytes()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExportError(f"pnnx failed on {name}: {error}") from None


def pnnx_program() -> Path:
    """The pnnx executable of the installed package. Raises MissingExtraError."""
    try:
        files: Sequence[metadata.PackagePath] = metadata.files("pnnx") or ()
    except metadata.PackageNotFoundError:
        raise MissingExtraError("pnnx", "export", "exporting to ncnn") from None
    for file in files:
        # Not the script in bin/: it would start another Python and import the package and torch.
        if (
            file.parent.name == "pnnx"
            and file.name in ("pnnx", "pnnx.exe")
            and Path(str(file.locate())).is_file()
        ):
            return Path(str(file.locate()))
    found = shutil.which("pnnx", path=str(Path(sys.executable).parent)) or shutil.which("pnnx")
    if found is None:
        raise MissingExtraError("pnnx", "export", "exporting to ncnn")
    return Path(found)


def _rename(model: NcnnModel, names: Sequence[str]) -> NcnnModel:
    """Give input and outputs our names.

    pnnx calls the input ``in0`` and the outputs ``out0``, ``out1``, ... in the network's order.
    """
    ours = {"in0": INPUT_NAME, **{f"out{i}": name for i, name in enumerate(names)}}
    if model.inputs != ("in0",) or set(model.outputs) != {f"out{i}" for i in range(len(names))}:
        raise ExportError(
            f"pnnx wrote the outputs {sorted(model.outputs)} where the network has {len(names)}"
        )
    return NcnnModel(
        tuple(
            replace(
                layer,
                name=ours.get(layer.name, layer.name),
                bottoms=tuple(ours.get(blob, blob) for blob in layer.bottoms),
                tops=tuple(ours.get(blob, blob) for blob in layer.tops),
            )
            for layer in model.layers
        )
    )


def _state_size(model: NcnnModel, request: ExportRequest) -> NcnnModel:
    """Write the size of a file with one fixed size at its input.

    ncnn itself accepts any size, and so does a runner if the file states none.
    """
    size = {} if request.dynamic else {0: request.width, 1: request.height, 2: 3}
    return NcnnModel(
        tuple(
            replace(layer, params=size) if layer.type == "Input" else layer
            for layer in model.layers
        )
    )


def _store_weights_as_float16(model: NcnnModel) -> NcnnModel:
    """Round weights to float16. pnnx can do this, but truncates instead of rounding to nearest."""
    return NcnnModel(
        tuple(
            (
                replace(
                    layer,
                    weights={**layer.weights, "weight": layer.weights["weight"].astype("<f2")},
                )
                if layer.type in WEIGHTED
                else layer
            )
            for layer in model.layers
        )
    )
