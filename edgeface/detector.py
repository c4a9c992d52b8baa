"""Detector: photo in, faces out. The whole API for most users."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeface.backends import has_module
from edgeface.bundle import MANIFEST, Bundle
from edgeface.decode import DEFAULT_IOU, DEFAULT_SCORE, TOP_K, decode, mean_landmarks, nms
from edgeface.detections import Detections
from edgeface.errors import BundleError, ModelError, OptionError
from edgeface.files import recover
from edgeface.images import Image, as_rgb, fit_size, place, read_image
from edgeface.options import DEFAULT_LONG_SIDE_PX, as_path, check_count, check_number
from edgeface.runners import Heads, Runner, open_runner
from edgeface.schema import short
from edgeface.types import Closing


class Fitted(NamedTuple):
    """An image, prepared for the network."""

    batch: Image
    """uint8 RGB [1, H, W, 3], what :meth:`Runner.run` takes"""
    factors: NDArray[np.float32]
    """(fx, fy, fx, fy) = px of the batch / px of the image"""
    width: int
    """px, of the image"""
    height: int


class Detector(Closing):
    """Finds faces in images, with any runner.

    ::

        with Detector.open("dist/edgeface-n-tflite-fp32-640x480") as detector:
            faces = detector.detect("photo.jpg")

    Thread-safe: one call at a time runs the network, while other calls and :meth:`close` wait. To
    compute in parallel, open one Detector per thread. A forked process must open its own.
    """

    def __init__(
        self,
        runner: Runner,
        score_threshold: float = DEFAULT_SCORE,
        nms_iou: float = DEFAULT_IOU,
        size: int | str | None = None,
    ) -> None:
        """Wrap an open runner; see :meth:`open` for the arguments. Closing the Detector closes the
        runner."""
        self.runner = runner
        self.score_threshold = check_number("score threshold", score_threshold, 0, 1)
        self.nms_iou = check_number("NMS IoU", nms_iou, 0, 1)
        self.size = _checked_size(runner, size)

    @classmethod
    def open(
        cls,
        model: Path | str,
        threads: int = 1,
        score_threshold: float = DEFAULT_SCORE,
        nms_iou: float = DEFAULT_IOU,
        size: int | str | None = None,
        fast: bool = False,
        weights: Path | str | None = None,
    ) -> Detector:
        """Open a Bundle folder, a zoo name, or a weights file that names its network.

        A zoo name runs its best ready file whose runtime is installed, otherwise torch; torch, if
        installed, comes before INT8 files. A weights file runs in torch.

        score_threshold: lowest score that is reported. nms_iou: boxes whose IoU with a better one
        is larger are dropped. size: for models that take any size, the long side in px that an
        image is scaled to (default 640), or ``"original"`` for no scaling; a fixed model has its
        own. fast: see :func:`edgeface.runners.open_runner`. weights: a safetensors file for the
        network called ``model``, instead of the shipped weights. Raises an EdgefaceError with one
        line.
        """
        size = _as_size(size)
        runner = _open(model, threads, size, fast, weights)
        try:
            return cls(runner, score_threshold, nms_iou, size)
        except BaseException:
            runner.close()
            raise

    def detect(
        self,
        image: NDArray[np.uint8] | Path | str,
        score_threshold: float | None = None,
        nms_iou: float | None = None,
        top_k: int | None = TOP_K,
    ) -> Detections:
        """Faces in one image, best first, in px of that image and inside it.

        image: uint8 RGB [H, W, 3], uint8 grey [H, W], or the path of a file (boxes then are in its
        displayed orientation). The thresholds replace those of :meth:`open` for this call. Raises
        ImageError, and RunnerClosedError after :meth:`close`.
        """
        fitted = self.preprocess(image)
        return self.postprocess(
            self.runner.run(fitted.batch), fitted, score_threshold, nms_iou, top_k
        )

    def preprocess(self, image: NDArray[np.uint8] | Path | str) -> Fitted:
        """First stage of :meth:`detect`: read a file, scale the image to the network's size."""
        rgb = read_image(image) if isinstance(image, (str, os.PathLike)) else as_rgb(image)
        canvas, factors = self._fit(rgb)
        return Fitted(canvas[None], factors, rgb.shape[1], rgb.shape[0])

    def postprocess(
        self,
        heads: Heads,
        fitted: Fitted,
        score_threshold: float | None = None,
        nms_iou: float | None = None,
        top_k: int | None = TOP_K,
    ) -> Detections:
        """Last stage of :meth:`detect`: turn the runner's output into boxes in px of the image."""
        threshold = (
            self.score_threshold
            if score_threshold is None
            else check_number("score threshold", score_threshold, 0, 1)
        )
        if top_k is not None:
            check_count("top_k", top_k)
        iou = self.nms_iou if nms_iou is None else check_number("NMS IoU", nms_iou, 0, 1)
        boxes, scores, points = decode(heads, self.runner.layout, threshold, top_k)
        kept = nms(boxes, scores, iou)
        landmarks = None
        if points is not None:
            landmarks = mean_landmarks(boxes, scores, points, kept, iou) / fitted.factors[:2]
        found = Detections(boxes[kept] / fitted.factors, scores[kept], landmarks)
        return _in_image(found, fitted.width, fitted.height)

    def close(self) -> None:
        """Free the model. Calling it again does nothing."""
        self.runner.close()

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in px of the network input for an image of this size.

        Raises OptionError."""
        return self._geometry(check_count("width", width, 1), check_count("height", height, 1))[1]

    def _geometry(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size of the scaled image and of the canvas it lies on, both (width, height) in px."""
        fixed = self.runner.input_size
        if fixed is not None:
            return fit_size(width, height, *fixed), fixed
        side = self.size
        fitted = (
            (width, height) if side == "original" else fit_size(width, height, int(side), int(side))
        )
        multiple = self.runner.layout.multiple_px
        return fitted, (
            math.ceil(fitted[0] / multiple) * multiple,
            math.ceil(fitted[1] / multiple) * multiple,
        )

    def _fit(self, rgb: Image) -> tuple[Image, NDArray[np.float32]]:
        """Canvas for the network, and (fx, fy, fx, fy) = canvas px / image px along each axis."""
        height, width = rgb.shape[:2]
        fitted, canvas = self._geometry(width, height)
        # Both sides are whole pixels, so the two factors differ a little, which matters for small
        # faces far from 0, 0.
        factors = np.array((fitted[0] / width, fitted[1] / height) * 2, np.float32)
        return place(rgb, fitted, *canvas), factors


def _open(
    model: Path | str, threads: int, size: int | str | None, fast: bool, weights: Path | str | None
) -> Runner:
    try:
        return _found(model, threads, size, fast, weights)
    except OSError as error:
        raise BundleError(f"cannot open {short(str(model))}: {error.strerror or error}") from None


def _found(
    model: Path | str, threads: int, size: int | str | None, fast: bool, weights: Path | str | None
) -> Runner:
    """Open a zoo name as its best ready file that runs here, else in torch.

    Anything else is a Bundle folder, or the manifest.json in one."""
    from edgeface import zoo
    from edgeface.architecture.registry import suggestions

    path = as_path("model", model)
    weights = None if weights is None else as_path("weights", weights)
    text = str(model)
    if path.name == MANIFEST and path.is_file():
        path = path.parent
    if not (path / MANIFEST).is_file():
        ready = None if weights is not None else zoo.find_ready(text, size)
        if ready is not None:
            path = ready.path
        elif zoo.is_network(text):
            return _open_torch(text, threads, size, weights)
    if path.is_file() and (path.parent / MANIFEST).is_file():
        raise OptionError(f"{path} is a file of a Bundle: give its folder, {path.parent}")
    if weights is not None:
        raise OptionError(
            f"weights {weights} are for a network, not for {text!r}: name one that `edgeface"
            " models` lists, with --model; a Bundle has weights of its own"
        )
    with contextlib.suppress(OSError):
        recover(path)
    if not path.exists() and path.name == text:
        ready_names = ", ".join(zoo.nearest_ready(text))
        known = f"nearest: {ready_names}; see `edgeface models`" if ready_names else None
        raise ModelError(
            f"unknown model {short(text)}: no such Bundle folder, and the zoo has no such name "
            f"({known or suggestions(text)})"
        )
    return open_runner(
        Bundle.open(path, verify=False), threads, fast
    )  # verify=False: the runner checks the bytes it loads


def _open_torch(
    model: str, threads: int, size: int | str | None, weights: Path | str | None
) -> Runner:
    from edgeface import zoo
    from edgeface.runners.torch import TorchRunner

    wrong = None if weights is not None or has_module("torch") else zoo.cannot_run(model, size)
    if wrong is not None:
        raise wrong
    return TorchRunner.open(model, threads, weights=weights)


def _checked_size(runner: Runner, size: int | str | None) -> int | str:
    """The long side in px, or "original"; for a fixed model its own long side.

    Raises OptionError if ``size`` is invalid or not that of a fixed model."""
    size = _as_size(size)
    if runner.input_size is not None:
        own = max(runner.input_size)
        if size not in (None, own):
            raise OptionError(
                f"{runner.model} is fixed at {runner.input_size[0]}x{runner.input_size[1]} px and"
                f" cannot run at size {size!r}: use a zoo name or a file exported with --dynamic"
            )
        return own
    return DEFAULT_LONG_SIDE_PX if size is None else size


def _as_size(size: object) -> int | str | None:
    """``size``, checked; None is the default. Raises OptionError if no Detector can have it."""
    if size is None or (isinstance(size, str) and size == "original"):
        return size
    try:
        return check_count("size", size, 32, 1 << 16)
    except OptionError:
        raise OptionError(
            f"size {size!r} is neither a long side in px (32 to {1 << 16}) nor 'original'"
        ) from None


def _in_image(found: Detections, width: int, height: int) -> Detections:
    """Clip boxes to the image; drop boxes that lie entirely outside it, in the padding.

    Landmarks of a face that the image border cuts may lie outside; they are not clipped.
    """
    boxes = np.clip(found.boxes, 0, np.array((width, height) * 2, np.float32)).astype(np.float32)
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return Detections(
        boxes[inside],
        found.scores[inside],
        None if found.landmarks is None else found.landmarks[inside],
    )
