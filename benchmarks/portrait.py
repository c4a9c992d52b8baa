"""``python -m benchmarks.portrait BUNDLE...``: faces that files of several input sizes find in
upright photos.

An upright photo fills less than half of a landscape input, and its faces are that much smaller
there. Uses the photos of WIDER FACE's validation set that are higher than wide. Faces count unless
marked invalid or below ``--min-face`` px in height; one is found if a box overlaps it by half.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Printed
from benchmarks.robustness import read_photos
from edgeface.cli.flags import Argument, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.decode import box_iou
from edgeface.detector import Detector
from edgeface.errors import DataError
from edgeface.evaluation.landmarks import MATCH_IOU
from edgeface.images import Image, read_image

Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Options(Printed):
    """Options of the command line."""

    bundles: Annotated[tuple[str, ...], Argument("BUNDLE...")]
    """exported files, such as one of 640x480 and one of 480x640"""
    data: Path
    """WIDER FACE folder with the validation photos"""
    min_face: int = 0
    """smallest face height in px that counts"""
    score_threshold: float = 0.5
    """lowest score of a box that counts"""
    threads: int = 1
    """CPU threads for the runtime"""


@dataclass
class Row:
    """Boxes of one file on faces that count, and all others."""

    model: str
    input: str
    found: int = 0
    others: int = 0
    """boxes on no such face"""


def count(detector: Detector, photos: Sequence[tuple[Image, Boxes]], row: Row) -> None:
    """Add the boxes found in each photo to ``row``; a face counts once, and a box for one face."""
    for image, faces in photos:
        iou = box_iou(detector.detect(image).boxes, faces)
        for line in iou:  # best first
            best = int(line.argmax()) if len(line) else -1
            if best >= 0 and line[best] >= MATCH_IOU:
                iou[:, best] = 0
                row.found += 1
            else:
                row.others += 1


def _upright(o: Options) -> list[tuple[Image, Boxes]]:
    """Photos that are higher than wide, and their faces. Raises DataError if there are none."""
    found = []
    for labels, path in read_photos(o.data):
        image = read_image(path)
        counts = ~labels.invalid & (labels.boxes[:, 3] - labels.boxes[:, 1] >= o.min_face)
        if image.shape[0] > image.shape[1] and counts.any():
            found.append((image, labels.boxes[counts]))
    if not found:
        raise DataError(
            f"no photo in {o.data} is higher than wide and has faces of {o.min_face} px: accepted:"
            " WIDER FACE's validation photos, or a lower --min-face"
        )
    return found


def _run(o: Options) -> int:
    photos = _upright(o)
    faces, rows = sum(len(boxes) for _, boxes in photos), []
    with Terminal() as terminal:
        for done, path in enumerate(o.bundles):
            terminal.tick(f"{len(photos)} upright photos", done, len(o.bundles), path)
            with Detector.open(path, o.threads, o.score_threshold) as detector:
                size = detector.runner.input_size
                row = Row(detector.runner.model, f"{size[0]}x{size[1]}" if size else "any")
                count(detector, photos, row)
            rows.append(row)
    result = {"photos": len(photos), "faces": faces, "rows": [asdict(row) for row in rows]}
    text = table(
        ("model", "input", "found", "of", "boxes on no such face"),
        [(row.model, row.input, row.found, faces, row.others) for row in rows],
        right=("found", "of", "boxes on no such face"),
    )
    heading = f"{len(photos)} upright photos, faces of at least {o.min_face} px, score from"
    emit(result, f"{heading} {o.score_threshold:g}\n{text}", o.format, o.save)
    return 0


main = program_of(Options, "python -m benchmarks.portrait", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
