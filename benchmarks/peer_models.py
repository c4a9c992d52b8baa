"""Published .onnx detectors as Detectors, preprocessed and decoded as their authors do it.

A peer's file declares one input size, but its network does not depend on it, so it is opened for
any multiple of 32 px: a photo then goes in with its long side at 640 px, as for our own networks,
and tall photos lose nothing. Photos are scaled bilinearly, as all the authors do. The best 5000
candidates enter NMS: Ultra-Light gives nearly all its priors a score above .02.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peer_decoders import (
    Outputs,
    Size,
    decode_retinaface,
    decode_scrfd,
    decode_ultra_light,
    decode_yunet,
)
from edgeface.architecture.strides import LANDMARKS
from edgeface.backends import get_backend, import_runtime
from edgeface.decode import TOP_K, Decoded, HeadLayout, nms
from edgeface.detections import Detections
from edgeface.detector import Detector, Fitted
from edgeface.errors import BundleError, DataError, MissingExtraError
from edgeface.images import as_rgb, read_image
from edgeface.runners import Heads, Runner
from edgeface.runners.onnxruntime import session_options
from edgeface.types import Floats


@dataclass(frozen=True)
class Peer:
    """Preprocessing and decoding of one published network."""

    name: str
    file: str
    """start of the file's name, before the size"""
    decode: Callable[[Outputs, Size], Decoded]
    """(outputs, size) -> every anchor, in px of the input"""
    nms_iou: float
    bgr: bool = False
    mean: tuple[float, ...] = (0, 0, 0)
    """mean of each input channel, subtracted from values of 0 to 255"""
    scale: float = 1.0
    """divisor after the mean is subtracted"""
    landmarks: bool = True
    """whether it finds landmarks"""

    def tensor(self, batch: NDArray[np.uint8]) -> Floats:
        """uint8 RGB [1, H, W, 3] -> float32 [1, 3, H, W]."""
        colours = batch[..., ::-1] if self.bgr else batch
        values = (colours - np.array(self.mean, np.float32)) / np.float32(self.scale)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)

    def find(self, folder: Path) -> Path | None:
        """Its file in ``folder``, of whichever size: all sizes have the same weights."""
        return next(iter(sorted(folder.glob(f"{self.file}_*.onnx"))), None)


def _ultra_light(name: str, file: str) -> Peer:
    return Peer(name, file, decode_ultra_light, 0.3, False, (127, 127, 127), 128, landmarks=False)


PEERS = (
    Peer("YuNet_n", "yunet_n", decode_yunet, 0.45, bgr=True),
    Peer("YuNet_s", "yunet_s", decode_yunet, 0.45, bgr=True),
    Peer("SCRFD-500M", "scrfd_500m_kps", decode_scrfd, 0.4, False, (127.5, 127.5, 127.5), 128),
    _ultra_light("Ultra-Light RFB", "ulfg_rfb"),
    _ultra_light("Ultra-Light slim", "ulfg_slim"),
    Peer(
        "RetinaFace mnet0.25", "retinaface_mnet025", decode_retinaface, 0.4, True, (104, 117, 123)
    ),
)


class PeerRunner(Runner):
    """Runs a peer's file on any size; its outputs keep their own names."""

    def __init__(self, peer: Peer, path: Path, threads: int = 1) -> None:
        """Raises BundleError for a file that ONNX Runtime does not run, MissingExtraError if
        onnxruntime or onnx is missing."""
        ort = import_runtime(get_backend("onnx"))
        layout = HeadLayout(landmarks=LANDMARKS if peer.landmarks else 0)
        super().__init__(peer.name, layout, None, f"onnxruntime {ort.__version__}", threads)
        self.peer = peer
        options = session_options(ort, threads)
        try:
            content = any_size(path.read_bytes())
            self._session = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except MissingExtraError:
            raise
        except Exception as error:  # onnx's and ONNX Runtime's have no narrower common base
            raise BundleError(
                f"{path} is not a file of {peer.name} that ONNX Runtime runs "
                f"({type(error).__name__})"
            ) from None
        self._input = self._session.get_inputs()[0].name
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        values = self._session.run(None, {self._input: self.peer.tensor(batch)})
        return dict(zip(self._outputs, values, strict=True))

    def _close(self) -> None:
        del self._session


class PeerDetector(Detector):
    """A Detector whose network is a peer's: its own preprocessing, decoder and NMS threshold."""

    def __init__(
        self, peer: Peer, path: Path, threads: int = 1, score_threshold: float = 0.5
    ) -> None:
        super().__init__(PeerRunner(peer, path, threads), score_threshold, peer.nms_iou)
        self.peer = peer

    def preprocess(self, image: NDArray[np.uint8] | Path | str) -> Fitted:
        """As :meth:`Detector.preprocess`, but scaled bilinearly."""
        rgb = read_image(image) if isinstance(image, (str, os.PathLike)) else as_rgb(image)
        height, width = rgb.shape[:2]
        fitted, canvas = self._geometry(width, height)
        batch = np.zeros((1, canvas[1], canvas[0], 3), np.uint8)
        batch[0, : fitted[1], : fitted[0]] = cv2.resize(rgb, fitted, interpolation=cv2.INTER_LINEAR)
        factors = np.array((fitted[0] / width, fitted[1] / height) * 2, np.float32)
        return Fitted(batch, factors, width, height)

    def postprocess(
        self,
        heads: Heads,
        fitted: Fitted,
        score_threshold: float | None = None,
        nms_iou: float | None = None,
        top_k: int | None = None,
    ) -> Detections:
        """As :meth:`Detector.postprocess`."""
        least = self.score_threshold if score_threshold is None else score_threshold
        most = self.nms_iou if nms_iou is None else nms_iou
        height, width = fitted.batch.shape[1:3]
        boxes, scores, points = self.peer.decode(heads, (width, height))
        picked = np.flatnonzero(scores >= least)
        picked = picked[np.argsort(-scores[picked], kind="stable")[: top_k or TOP_K]]
        kept = picked[nms(boxes[picked], scores[picked], most)]
        limits = np.array((fitted.width, fitted.height) * 2, np.float32)
        found = np.clip(boxes[kept] / fitted.factors, 0, limits).astype(np.float32)
        inside = (found[:, 2:] > found[:, :2]).all(axis=1)
        landmarks = None if points is None else (points[kept] / fitted.factors[:2])[inside]
        return Detections(found[inside], scores[kept][inside], landmarks)


@contextmanager
def open_all(
    models: Sequence[str], peers: Path | None, score_threshold: float, threads: int = 1
) -> Iterator[dict[str, Detector]]:
    """Name -> Detector of ``models`` (zoo names, weights files, Bundles), then of each peer whose
    file is in ``peers``.

    Models are named by the last part of their path, or by the whole path if two would share a name.
    Raises DataError if the folder has no peer.
    """
    found = {peer: path for peer in PEERS if peers and (path := peer.find(peers))}
    if peers and not found:
        known = ", ".join(f"{peer.file}_*.onnx" for peer in PEERS)
        raise DataError(f"{peers} holds no peer's file; accepted: {known}")
    given = {Path(model).name: model for model in models}
    names = given if len(given) == len(set(models)) else {model: model for model in models}
    opened: dict[str, Detector] = {}
    with ExitStack() as stack:
        for name, model in names.items():
            opened[name] = stack.enter_context(Detector.open(model, threads, score_threshold))
        for peer, path in found.items():
            detector = PeerDetector(peer, path, threads, score_threshold)
            opened[peer.name] = stack.enter_context(detector)
        yield opened


def any_size(content: bytes) -> bytes:
    """An .onnx file of one fixed size -> the same network for any size.

    Height and width of the input become free, and each Resize to a fixed size becomes an
    enlargement by 2. Raises MissingExtraError without onnx.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "export", "opening a peer for any size") from error
    model: Any = onnx.load_from_string(content)
    graph = model.graph
    _, _, height, width = graph.input[0].type.tensor_type.shape.dim
    height.dim_param, width.dim_param = "height", "width"
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    twice = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")
    graph.initializer.append(twice)
    for node in graph.node:
        if node.op_type == "Resize" and len(node.input) == 4:
            node.input[:] = [*node.input[:2], twice.name]
    serialized: bytes = model.SerializeToString()
    return serialized
