"""``python -m benchmarks.research.level_bias --model WEIGHTS --data WIDER --annotations FILE --out
NEW``: balances the scores of a trained network's levels.

Most faces in training crops are small. In whole photos the finest level therefore gives unannotated
heads in a far crowd the same scores as large faces in shadow. A constant added to the logits of
each finer level corrects the order; it goes into the bias of that level's last convolution, so the
network stays the same. The coarsest level keeps its scores: a positive constant there would show
more large boxes on things that are not faces. Easy AP rises at the cost of hard AP, because
annotated tiny faces get lower scores too. The program tries constants on training photos and takes
the smallest that come within .1 points of the best mean of easy, medium and hard AP. In the three
settings, faces count from 50, 30 and 10 px of height, about as in WIDER FACE.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import Printed, left_out
from edgeface import zoo
from edgeface.architecture.strides import STRIDES
from edgeface.cli.failures import Failures
from edgeface.cli.flags import program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.detector import Detector, Fitted
from edgeface.errors import DataError, ModelError, counted
from edgeface.evaluation import evaluate
from edgeface.evaluation.own import in_photo, own_photos
from edgeface.evaluation.predict import SCORE_THRESHOLD
from edgeface.evaluation.wider import SETTINGS, GroundTruth, WiderResult
from edgeface.files import check_writable, refuse_input
from edgeface.images.reading import read_or_tell
from edgeface.models.blocks import ConvNorm
from edgeface.models.detector import FaceNet
from edgeface.models.head import PlainHead
from edgeface.runners.base import Heads
from edgeface.runners.torch import TorchRunner

COUNTS_FROM_PX = dict(zip(SETTINGS, (50, 30, 10), strict=True))
TOLERANCE = 0.001
"""accepted loss of mean AP, which is flat around its best: other photos would change as much"""
GRID = np.round(np.arange(-1.2, 0.41, 0.2), 1)
"""constants that are tried, in logits"""
KEPT = "nothing is kept, the same command begins again"
Seen = Mapping[str, tuple[Heads, Fitted]]


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    model: str
    """a .safetensors file that training wrote, or the name of a network with weights"""
    data: Path
    """folder of the photos"""
    annotations: Path
    """face boxes of these photos, as used for the training"""
    out: Path
    """file for the new weights"""
    photos: int = 800
    """number of photos, drawn with --seed"""
    seed: int = 0
    """seed of the draw of photos"""


@dataclass(frozen=True)
class Tried:
    """Constants and the accuracy with them."""

    constants: dict[int, float]
    """stride -> logits that are added to the scores of that level"""
    result: WiderResult

    @property
    def mean(self) -> float:
        """AP, mean of the three settings."""
        return float(np.mean([_ap(self.result, setting) for setting in SETTINGS]))


def settings_by_height(truth: GroundTruth) -> GroundTruth:
    """The same photos; each setting counts the hard faces that are high enough for it."""
    return GroundTruth(
        {
            key: replace(
                faces,
                counts={
                    setting: faces.counts["hard"] & (faces.boxes[:, 3] >= px)
                    for setting, px in COUNTS_FROM_PX.items()
                },
            )
            for key, faces in truth.images.items()
        }
    )


def search(detector: Detector, seen: Seen, truth: GroundTruth) -> Iterator[Tried]:
    """Try the constants of the grid for the finest level, then for the next; yields each trial."""
    strides = detector.runner.layout.strides

    def attempt(constants: dict[int, float]) -> Tried:
        found = {
            key: detector.postprocess(_added(heads, constants), fitted, top_k=None)
            for key, (heads, fitted) in seen.items()
        }
        return Tried(constants, evaluate(found, truth))

    best = attempt(dict.fromkeys(strides[:-1], 0.0))
    yield best
    for stride in strides[:-1]:
        start = best.constants
        for constant in GRID:
            tried = attempt(start | {stride: float(constant)})
            yield tried
            best = max(best, tried, key=lambda each: each.mean)


def chosen(tried: Sequence[Tried]) -> Tried:
    """The smallest constants whose mean AP is within TOLERANCE of the best."""
    best = max(each.mean for each in tried)
    good = [each for each in tried if each.mean >= best - TOLERANCE]
    return min(good, key=lambda each: (max(map(abs, each.constants.values())), -each.mean))


def add_constants(network: FaceNet, constants: Mapping[int, float]) -> None:
    """Add ``constants`` to the class biases, in place. Raises ModelError for a head whose levels
    share a convolution."""
    head = network.head
    if not isinstance(head, PlainHead):
        raise ModelError(
            f"{network.architecture.name}: its levels share one convolution, so that no level has a"
            " bias of its own; accepted: a network with a head of kind 'plain'"
        )
    with torch.no_grad():
        for stride, constant in constants.items():
            level = head.cls[STRIDES.index(stride)]
            assert isinstance(level, ConvNorm) and level.conv.bias is not None
            level.conv.bias += constant


def as_table(tried: Sequence[Tried]) -> str:
    """AP as fractions, on the photos of the training."""
    strides = sorted(tried[0].constants)
    rows = [
        (
            *(f"{each.constants[stride]:+.1f}" for stride in strides),
            *(f"{_ap(each.result, setting):.4f}" for setting in SETTINGS),
            f"{each.mean:.4f}",
        )
        for each in tried
    ]
    return table((*(f"stride {stride}" for stride in strides), *SETTINGS, "mean"), rows)


def _added(heads: Heads, constants: Mapping[int, float]) -> Heads:
    """The outputs of the network as if its class outputs had these constants in their biases."""
    added = {f"cls_{stride}": np.float32(constant) for stride, constant in constants.items()}
    return {name: value + added[name] if name in added else value for name, value in heads.items()}


def _ap(result: WiderResult, setting: str) -> float:
    ap: float | None = getattr(result, setting)
    return 0.0 if ap is None else ap


def _drawn(o: Options) -> tuple[GroundTruth, dict[str, Path]]:
    truth, photos = own_photos(o.annotations, o.data)
    keys = np.random.default_rng(o.seed).permutation(sorted(photos))[: o.photos]
    images = {key: truth.images[key] for key in sorted(keys)}
    return GroundTruth(images), {key: photos[key] for key in images}


def _seen(
    detector: Detector, truth: GroundTruth, photos: Mapping[str, Path], failures: Failures
) -> tuple[Seen, GroundTruth]:
    seen: dict[str, tuple[Heads, Fitted]] = {}
    faces = {}
    for done, (key, path) in enumerate(photos.items()):
        failures.terminal.tick("photos", done, len(photos))
        image = read_or_tell(path, failures)
        if image is None:
            continue
        faces[key] = in_photo(truth.images[key], image.shape[1], image.shape[0])
        fitted = detector.preprocess(image)
        seen[key] = detector.runner.run(fitted.batch), fitted
    if not seen:
        raise DataError(f"none of the {len(photos)} photos can be read: there is nothing to judge")
    return seen, settings_by_height(GroundTruth(faces))


def _run(o: Options) -> int:
    check_writable(o.out, folder=False)
    refuse_input(o.out, (o.model,), "--out")
    zoo.check_weights_out(o.out)
    truth, photos = _drawn(o)
    network = zoo.load_network(o.model)
    add_constants(network, {})  # raises before the work if the head is not plain
    runner = TorchRunner.open(o.model)
    tried: list[Tried] = []
    with Detector(runner, score_threshold=SCORE_THRESHOLD) as detector, Terminal() as terminal:
        failures = Failures(terminal)
        seen, truth = _seen(detector, truth, photos, failures)
        for each in search(detector, seen, truth):
            terminal.tick("constants", len(tried), 2 * len(GRID) + 1)
            tried.append(each)
    best = chosen(tried)
    add_constants(network, best.constants)
    zoo.save_weights(network, o.out)
    rows = [each.constants | {s: _ap(each.result, s) for s in SETTINGS} for each in tried]
    told = ", ".join(f"stride {s}: {c:+.1f}" for s, c in best.constants.items())
    text = f"{as_table(tried)}\n{o.out}: {told}, chosen on {counted(len(seen), 'photo')}"
    result = {"rows": rows, "chosen": best.constants, "photos": len(seen)}
    emit(result, text, o.format, o.save)
    return left_out(failures)


main = program_of(Options, "python -m benchmarks.research.level_bias", __doc__, _run, KEPT)


if __name__ == "__main__":
    sys.exit(main())
