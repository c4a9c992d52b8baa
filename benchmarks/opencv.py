"""``python -m benchmarks.opencv BUNDLE --peer YUNET.onnx``: cv2.FaceDetectorYN with our file for it
beside YuNet, turn by turn: a photo in, faces out.

    edgeface export --target onnx --for opencv
    python -m benchmarks.opencv dist/edgeface-n-onnx-fp32-640x480-dynamic-opencv
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import cv2
import numpy as np

from benchmarks.against import Run, measure, report
from benchmarks.common import Printed, environment
from benchmarks.peers import pinned
from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.cli.flags import Argument, program_of
from edgeface.cli.output import emit
from edgeface.cli.terminal import Terminal
from edgeface.errors import BundleError, DataError
from edgeface.images import Image, read_image
from edgeface.options import Range, check_ranges

SIZE = (640, 480)
PHOTO = Path(__file__).parents[1] / "docs" / "photo.jpg"


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    bundle: Annotated[Path, Argument("BUNDLE")]
    """folder made by edgeface export --for opencv"""
    peer: Path = Path("../shared/peers/yunet_n_640x480.onnx")
    """YuNet from OpenCV's zoo, a .onnx file"""
    rounds: int = 30
    """number of rounds, each with a slice of both"""
    seed: int = 0
    """seed of the order in each round"""
    ranges: ClassVar[dict[str, Range]] = {"rounds": Range(2, 10**6)}

    def __post_init__(self) -> None:
        check_ranges(self)


def opened(path: Path, photo: Image) -> Run:
    """A call that runs the file ``path`` on ``photo`` [H, W, 3], BGR. Raises DataError if OpenCV
    does not take the file."""
    try:
        detector = cv2.FaceDetectorYN.create(str(path), "", SIZE, 0.5, 0.45, 5000)
        detector.detect(photo)
    except cv2.error as error:
        raise DataError(f"cv2.FaceDetectorYN does not take {path}: {error.err}") from None
    return lambda: detector.detect(photo)


def _run(o: Options) -> None:
    bundle = Bundle.open(zoo.bundle_folder(o.bundle))
    if bundle.manifest.api != "opencv":
        raise BundleError(
            f"{o.bundle} is not for OpenCV: run: edgeface export --target onnx --for opencv"
        )
    photo = np.asarray(cv2.resize(read_image(PHOTO)[:, :, ::-1], SIZE), np.uint8)
    cv2.setNumThreads(1)
    with Terminal(steps=True) as terminal, pinned(1):
        paths = {o.peer.stem: o.peer, bundle.path.name: bundle.primary}
        runs = {name: opened(path, photo) for name, path in paths.items()}
        result, text = report(measure(runs, o.rounds, o.seed, terminal), *SIZE, 1)
    result["environment"] = environment("opencv-python-headless")
    emit(result, text, o.format, o.save)


main = program_of(Options, "python -m benchmarks.opencv", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
