"""ncnn on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import traceback
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import get_backend, import_runtime
from edgeface.bundle import Bundle, Manifest, Ports
from edgeface.errors import BundleError, ImageError, ModelError
from edgeface.formats.ncnn import NcnnModel, parse_model
from edgeface.quiet import quiet
from edgeface.runners.base import Heads, Runner
from edgeface.runners.files import check_io, fixed_size, load_failed, named_ports, to_nhwc

_ARM = ("aarch64", "arm64", "armv7l", "armv8l")


class NcnnRunner(Runner):
    """Runs a Bundle of target ``ncnn``.

    ncnn trusts the content of its files, so they are checked here before they are loaded. For each
    new image size, the sizes of all activations are checked, too.
    """

    opens_after_fork = False

    def __init__(self, bundle: Bundle, threads: int = 1, fast: bool = False) -> None:
        manifest = bundle.manifest
        ncnn = import_runtime(get_backend("ncnn"))
        runtime = f"ncnn {ncnn.__version__}" + " (fast)" * fast
        super().__init__(
            manifest.model, manifest.head_layout, fixed_size(manifest), runtime, threads
        )
        self._net, self._model = open_net(bundle, self.threads, fast)
        self._manifest = manifest

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        manifest = self._manifest
        check_size(self._model, manifest, batch.shape[2], batch.shape[1])
        with extracting(self._net) as extractor:
            feed(extractor, manifest.input.name, batch)
            return {
                name: to_nhwc(fetch(extractor, manifest.outputs[name])[None], "NCHW")
                for name in self.layout.output_names
            }

    def _ports(self) -> Ports:
        return named_ports(self._manifest, self._net.input_names(), self._net.output_names())

    def _precision_hints(self) -> dict[str, Any]:
        option = self._net.opt
        return {
            name: bool(getattr(option, name))
            for name in ("use_fp16_arithmetic", "use_fp16_storage", "use_bf16_storage")
        }

    def _close(self) -> None:
        self._net.clear()
        del self._net, self._model


def read_model(bundle: Bundle) -> NcnnModel:
    """Both files of ``bundle``, parsed and checked against each other and the manifest.

    Raises BundleError.
    """
    return _check(bundle, *_contents(bundle))


def open_net(bundle: Bundle, threads: int = 1, fast: bool = False) -> tuple[Any, NcnnModel]:
    """(``ncnn.Net`` with the files of ``bundle`` loaded, the parsed files). Raises BundleError."""
    ncnn = import_runtime(get_backend("ncnn"))
    param, weights = _contents(bundle)
    model = _check(bundle, param, weights)
    net = new_net(threads, fast)
    with quiet():
        status = net.load_param_mem(param.decode("ascii")) or net.load_model(_reader(ncnn, weights))
    if status != 0:
        raise load_failed(bundle, ValueError(f"ncnn refuses it (status {status})"))
    return net, model


def new_net(threads: int = 1, fast: bool = False) -> Any:
    """Empty ``ncnn.Net`` with our options: float32 in everything unless ``fast``."""
    net = import_runtime(get_backend("ncnn")).Net()
    arm = platform.machine().lower() in _ARM
    option = net.opt
    option.num_threads = threads
    option.use_vulkan_compute = False
    option.use_fp16_packed = option.use_fp16_storage = option.use_fp16_arithmetic = fast and arm
    option.use_bf16_packed = option.use_bf16_storage = fast and not arm
    return net


def check_size(model: NcnnModel, manifest: Manifest, width: int, height: int) -> None:
    """Raise ImageError if layers of a dynamic file do not fit each other at this image size."""
    # The size in the manifest was checked on opening.
    if (width, height) != (
        manifest.input.width,
        manifest.input.height,
    ):
        try:
            _check_heads(model, manifest, width, height)
        except ModelError as error:
            raise ImageError(
                f"{manifest.model} cannot run at {width}x{height} px: {error}"
            ) from None


@contextlib.contextmanager
def extracting(net: Any) -> Iterator[Any]:
    """Extractor of ``net``; after the block it is gone, with everything that it computed.

    An ``ncnn.Mat`` that outlives its net would return its memory to a pool that no longer exists.
    So if an error leaves the block, the frames in its traceback are cleared: none keeps a Mat.
    """
    extractor = net.create_extractor()
    try:
        yield extractor
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        extractor.clear()


def feed(extractor: Any, name: str, batch: NDArray[np.uint8]) -> None:
    """Hand uint8 [1, H, W, 3] to ncnn, which copies it into a float32 Mat."""
    mat = import_runtime(get_backend("ncnn")).Mat
    height, width = batch.shape[1:3]
    image = mat.from_pixels(np.ascontiguousarray(batch[0]), mat.PixelType.PIXEL_RGB, width, height)
    if extractor.input(name, image) != 0:
        raise BundleError(f"ncnn has no input {name!r}")


def fetch(extractor: Any, name: str) -> NDArray[np.float32]:
    """Compute blob ``name``: float32 [C, H, W], a copy."""
    status, value = extractor.extract(name)
    if status != 0:
        raise BundleError(f"ncnn could not compute {name!r} (status {status}): not enough memory?")
    return np.array(value, np.float32)


def _contents(bundle: Bundle) -> tuple[bytes, bytes]:
    param = bundle.manifest.primary
    return bundle.read(param), bundle.read(PurePath(param).with_suffix(".bin").name)


def _check(bundle: Bundle, param: bytes, weights: bytes) -> NcnnModel:
    spec = bundle.manifest.input
    try:
        model = parse_model(param, weights)
        check_io(
            bundle,
            {model.inputs[0]: (1, 3, *model.input_size(spec.width, spec.height))},
            model.outputs,
        )
        if spec.layout != "NCHW":
            raise ModelError(f"its manifest says {spec.layout}, an ncnn file is NCHW")
        _check_heads(model, bundle.manifest, spec.width, spec.height)
    except ModelError as error:
        raise load_failed(bundle, error) from None
    return model


def _check_heads(model: NcnnModel, manifest: Manifest, width: int, height: int) -> None:
    """Raise ModelError unless layers fit each other, and outputs the head layout, at this size."""
    layout, shapes = manifest.head_layout, model.shapes(width, height)
    for stride in layout.strides:
        for kind, channels in layout.channels.items():
            wanted = (channels, -(-height // stride), -(-width // stride))
            found = shapes[manifest.outputs[f"{kind}_{stride}"]]
            if found != wanted:
                raise ModelError(
                    f"output {kind}_{stride} has the shape {found}, the head layout says {wanted}"
                )


def _reader(ncnn: Any, content: bytes) -> Any:
    """``ncnn.DataReader`` over bytes; ncnn's Python package itself only takes file names."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    at = 0

    class BytesReader(ncnn.DataReader):  # type: ignore[misc]
        def read(self, buffer: Any, size: int) -> int:
            """Copy the next ``size`` bytes to ``buffer``, a capsule around a pointer.

            Returns how many there were.
            """
            nonlocal at
            part = content[at : at + size]
            ctypes.memmove(pointer(buffer, None), part, len(part))
            at += len(part)
            return len(part)

    return BytesReader()
