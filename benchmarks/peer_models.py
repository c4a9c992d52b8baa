"""Published .onnx detectors as Detectors: each gets the photo and is decoded as its authors do it.

A peer's file has one size inside. Nothing else ties it to that size, so that it is opened for any multiple of 32 px: a
photo then goes in with its long side at 640 px, as our own networks take it, and tall photos lose nothing. It is scaled
bilinearly, as all their authors do; of the candidates, the best 5000 enter NMS, as everywhere here.

================  ============================================  ==================================================
family            input                                         output, for each cell (column, row) of a stride s
================  ============================================  ==================================================
YuNet             BGR 0 to 255                                  centre = (column, row) s + xy s, size = exp(wh) s,
                                                                score = sqrt(cls obj), point = (column, row) s + xy s
SCRFD             RGB, (x - 127.5) / 128                        two anchors; distances to left, top, right, bottom of
                                                                (column, row) s, and points, in strides
Ultra-Light       RGB, (x - 127) / 128                          SSD priors, variances .1 and .2, score = channel 1
RetinaFace        BGR minus (104, 117, 123)                     the same, with points: centre + .1 xy prior
================  ============================================  ==================================================
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.backends import get_backend, import_runtime
from edgeface.decode import LANDMARKS, Decoded, HeadLayout, nms
from edgeface.detections import Detections
from edgeface.detector import TOP_K, Detector, Fitted
from edgeface.errors import BundleError, DataError, MissingExtraError, OptionError
from edgeface.images import as_rgb, read_image
from edgeface.runners import Heads, Runner
from edgeface.runners.onnxruntime import session_options

Floats = NDArray[np.float32]
Size = tuple[int, int]
VARIANCES = (0.1, 0.2)
STRIDES = (8, 16, 32)
ULTRA_LIGHT = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}
"""stride -> sides of the priors in px"""
RETINAFACE = {8: (10, 20), 16: (32, 64), 32: (128, 256)}


@dataclass(frozen=True)
class Peer:
    """How one published network is fed and read."""

    name: str
    file: str
    """begin of the file's name, before its size"""
    decode: Callable[[Mapping[str, Floats], Size], Decoded]
    """(outputs, (width, height) in px of the input) -> every anchor, in px of the input"""
    nms_iou: float
    bgr: bool = False
    mean: tuple[float, ...] = (0, 0, 0)
    """subtracted from 0 to 255, in the order of its channels"""
    scale: float = 1.0
    """divides what is left"""
    landmarks: bool = False
    """whether it finds points"""

    def tensor(self, batch: NDArray[np.uint8]) -> Floats:
        """uint8 RGB [1, H, W, 3] -> float32 [1, 3, H, W]."""
        colours = batch[..., ::-1] if self.bgr else batch
        values = (colours - np.array(self.mean, np.float32)) / np.float32(self.scale)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)

    def find(self, folder: Path) -> Path | None:
        """Its file in ``folder``, of any size: the weights are the same."""
        return next(iter(sorted(folder.glob(f"{self.file}_*.onnx"))), None)


def decode_yunet(outputs: Mapping[str, Floats], size: Size) -> Decoded:
    """cls, obj, bbox and kps of strides 8, 16, 32, each [1, cells, channels]."""
    boxes, scores, points = [], [], []
    for stride in STRIDES:
        cells = _cells(size, stride)
        cls, obj, box, kps = (outputs[f"{kind}_{stride}"][0] for kind in ("cls", "obj", "bbox", "kps"))
        centre, half = (cells + box[:, :2]) * stride, np.exp(box[:, 2:]) * (stride / 2)
        boxes.append(np.hstack((centre - half, centre + half)))
        scores.append(np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))[:, 0])
        points.append((cells[:, None] + kps.reshape(-1, 5, 2)) * stride)
    return _joined(boxes, scores, points)


def decode_scrfd(outputs: Mapping[str, Floats], size: Size) -> Decoded:
    """Outputs in the order of the file: three of scores, three of boxes, three of points."""
    values = [value[0] for value in outputs.values()]
    boxes, scores, points = [], [], []
    for stride, score, box, kps in zip(STRIDES, values[:3], values[3:6], values[6:], strict=True):
        cells = np.repeat(_cells(size, stride), 2, axis=0)
        boxes.append(np.hstack((cells - box[:, :2], cells + box[:, 2:])) * stride)
        scores.append(score[:, 0])
        points.append((cells[:, None] + kps.reshape(-1, 5, 2)) * stride)
    return _joined(boxes, scores, points)


def decode_ssd(outputs: Mapping[str, Floats], size: Size, sides: Mapping[int, tuple[int, ...]], box: str, score: str,
               kps: str = "") -> Decoded:
    """Priors of these ``sides``; ``box``, ``score`` and ``kps`` name the outputs."""
    priors = _priors(size, sides)
    coded = outputs[box][0]
    centre = priors[:, :2] + coded[:, :2] * VARIANCES[0] * priors[:, 2:]
    half = priors[:, 2:] * np.exp(coded[:, 2:] * VARIANCES[1]) / 2
    boxes, points = [np.hstack((centre - half, centre + half))], []
    if kps:
        offsets = outputs[kps][0].reshape(-1, 5, 2)
        points = [priors[:, None, :2] + offsets * VARIANCES[0] * priors[:, None, 2:]]
    return _joined(boxes, [outputs[score][0, :, 1]], points)


def _cells(size: Size, stride: int) -> Floats:
    """column, row [cells, 2], row by row."""
    columns, rows = (math.ceil(side / stride) for side in size)
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack((column, row), axis=1).astype(np.float32)


def _priors(size: Size, sides: Mapping[int, tuple[int, ...]]) -> Floats:
    """Centre x, y, width, height in px [anchors, 4]; none is larger than the input."""
    levels = []
    for stride, level in sides.items():
        centres = np.repeat((_cells(size, stride) + 0.5) * stride, len(level), axis=0)
        lengths = np.tile(np.array(level, np.float32), len(centres) // len(level))
        levels.append(np.column_stack((centres, lengths, lengths)))
    return np.asarray(np.minimum(np.concatenate(levels), size * 2), np.float32)


def _joined(boxes: list[Floats], scores: list[Floats], points: list[Floats]) -> Decoded:
    return Decoded(np.concatenate(boxes).astype(np.float32), np.concatenate(scores).astype(np.float32),
                   np.concatenate(points).astype(np.float32) if points else None)


_ULTRA_LIGHT = partial(decode_ssd, sides=ULTRA_LIGHT, box="boxes", score="scores")
_RETINAFACE = partial(decode_ssd, sides=RETINAFACE, box="loc", score="conf", kps="landms")
PEERS = (
    Peer("YuNet_n", "yunet_n", decode_yunet, 0.45, bgr=True, landmarks=True),
    Peer("YuNet_s", "yunet_s", decode_yunet, 0.45, bgr=True, landmarks=True),
    Peer("SCRFD-500M", "scrfd_500m_kps", decode_scrfd, 0.4, mean=(127.5,) * 3, scale=128, landmarks=True),
    Peer("Ultra-Light RFB", "ulfg_rfb", _ULTRA_LIGHT, 0.3, mean=(127,) * 3, scale=128),
    Peer("Ultra-Light slim", "ulfg_slim", _ULTRA_LIGHT, 0.3, mean=(127,) * 3, scale=128),
    Peer("RetinaFace mnet0.25", "retinaface_mnet025", _RETINAFACE, 0.4, bgr=True, mean=(104, 117, 123),
         landmarks=True),
)


class PeerRunner(Runner):
    """Runs a peer's file on any size; its outputs keep their own names."""

    def __init__(self, peer: Peer, path: Path, threads: int = 1) -> None:
        """Raises BundleError for a file that ONNX Runtime does not run, MissingExtraError without it or onnx."""
        ort = import_runtime(get_backend("onnx"))
        layout = HeadLayout(landmarks=LANDMARKS if peer.landmarks else 0)
        super().__init__(peer.name, layout, None, f"onnxruntime {ort.__version__}", threads)
        self.peer = peer
        try:
            self._session = ort.InferenceSession(any_size(path.read_bytes()), session_options(ort, threads),
                                                 providers=["CPUExecutionProvider"])
            (self._input,) = (entry.name for entry in self._session.get_inputs())
        except Exception as error:  # those of onnx and its runtime share no base class but this
            if isinstance(error, MissingExtraError):
                raise
            raise BundleError(f"{path} is not the file of {peer.name} that ONNX Runtime runs "
                              f"({type(error).__name__})") from None
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        values = self._session.run(None, {self._input: self.peer.tensor(batch)})
        return dict(zip(self._outputs, values, strict=True))

    def _close(self) -> None:
        del self._session


class PeerDetector(Detector):
    """A Detector whose network is a peer's: its own preprocessing, decoder and NMS threshold."""

    def __init__(self, peer: Peer, path: Path, threads: int = 1, score_threshold: float = 0.5) -> None:
        super().__init__(PeerRunner(peer, path, threads), score_threshold, peer.nms_iou)
        self.peer = peer

    def preprocess(self, image: NDArray[np.uint8] | Path | str) -> Fitted:
        """As :meth:`Detector.preprocess`, bilinearly."""
        rgb = read_image(image) if isinstance(image, (str, os.PathLike)) else as_rgb(image)
        height, width = rgb.shape[:2]
        fitted, canvas = self._geometry(width, height)
        batch = np.zeros((1, canvas[1], canvas[0], 3), np.uint8)
        batch[0, : fitted[1], : fitted[0]] = cv2.resize(rgb, fitted, interpolation=cv2.INTER_LINEAR)
        factors = np.array((fitted[0] / width, fitted[1] / height) * 2, np.float32)
        return Fitted(batch, factors, width, height)

    def postprocess(self, heads: Heads, fitted: Fitted, score_threshold: float | None = None,
                    nms_iou: float | None = None, top_k: int | None = None) -> Detections:
        """As :meth:`Detector.postprocess`."""
        height, width = fitted.batch.shape[1:3]
        boxes, scores, points = self.peer.decode(heads, (width, height))
        picked = np.flatnonzero(scores >= (self.score_threshold if score_threshold is None else score_threshold))
        picked = picked[np.argsort(-scores[picked], kind="stable")[: top_k or TOP_K]]
        kept = picked[nms(boxes[picked], scores[picked], self.nms_iou if nms_iou is None else nms_iou)]
        limits = np.array((fitted.width, fitted.height) * 2, np.float32)
        found = np.clip(boxes[kept] / fitted.factors, 0, limits).astype(np.float32)
        inside = (found[:, 2:] > found[:, :2]).all(axis=1)
        return Detections(found[inside], scores[kept][inside],
                          None if points is None else (points[kept] / fitted.factors[:2])[inside])


@contextmanager
def open_all(models: Sequence[str], peers: Path | None, score_threshold: float, threads: int = 1
             ) -> Iterator[dict[str, Detector]]:
    """Name -> Detector of ``models`` (zoo names, weights files, Bundles), then of each peer whose file is in ``peers``.

    Raises DataError if there is none in that folder, OptionError for two of one name.
    """
    found = {peer: path for peer in PEERS if peers and (path := peer.find(peers))}
    if peers and not found:
        raise DataError(f"{peers} holds no peer's file; accepted: {', '.join(f'{p.file}_*.onnx' for p in PEERS)}")
    names = [Path(model).name for model in models]
    if len(set(names)) < len(names):
        raise OptionError(f"--models {' '.join(models)}: two have one name, which the table could not tell apart")
    with ExitStack() as stack:
        opened: dict[str, Detector] = {}
        for name, model in zip(names, models, strict=True):
            opened[name] = stack.enter_context(Detector.open(model, threads, score_threshold))
        for peer, path in found.items():
            opened[peer.name] = stack.enter_context(PeerDetector(peer, path, threads, score_threshold))
        yield opened


def any_size(content: bytes) -> bytes:
    """An .onnx file of one fixed size -> the same network for any size.

    The input's sides become free, and where the file says to which size a map is enlarged it now says: twice as large.
    Raises MissingExtraError without onnx.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "export", "opening a peer for any size") from error
    model: Any = onnx.load_from_string(content)
    graph = model.graph
    for side, name in zip(graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        side.dim_param = name
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    for node in graph.node:
        if node.op_type == "Resize" and len(node.input) == 4:
            node.input[:] = [*node.input[:2], "twice"]
    serialized: bytes = model.SerializeToString()
    return serialized
