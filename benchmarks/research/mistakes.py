"""``python -m benchmarks.research.mistakes --data WIDER --peers PEERS``: what a model's most
confident false boxes are.

A box is true if it is the first one with an IoU of at least .5 with an annotated face. Boxes on
faces that the annotators marked invalid are not counted. A false box is ``twice`` if a better box
is on its face, ``loose`` if its IoU with a face is from .1 to .5, and ``elsewhere`` if it is lower.
The long side of each photo is scaled to 640 px.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.common import Printed, left_out
from benchmarks.peer_models import open_all
from benchmarks.robustness import SCORE_FLOOR, read_photos, readable
from benchmarks.robustness_frames import photo_frame
from edgeface.cli.failures import Failures
from edgeface.cli.flags import DEFAULT_MODEL, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.decode import box_iou
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import OptionError, counted
from edgeface.evaluation.landmarks import MATCH_IOU
from edgeface.files import check_writable
from edgeface.images import Image
from edgeface.images.annotated import AnnotatedImage
from edgeface.images.inputs import IMAGE_SUFFIXES
from edgeface.images.marked import write_image
from edgeface.types import Doubles

TOUCHES_IOU = 0.1
KINDS = ("twice", "loose", "elsewhere")
COLOURS = {"twice": (60, 120, 255), "loose": (255, 200, 0), "elsewhere": (255, 60, 60)}
CELL_PX, COLUMNS, AROUND = 96, 20, 2.5
KEPT = "nothing is kept, the same command begins again"


class Mistake(NamedTuple):
    """One false box."""

    score: float
    kind: str
    crop: Image
    """[96, 96, 3] the box, drawn, with its surroundings"""


@dataclass(frozen=True)
class Counts:
    """Counts of the most confident false boxes of one model, by kind."""

    model: str
    faces: int
    """faces found by boxes that are at least as confident"""
    twice: int
    loose: int
    elsewhere: int


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    data: Path
    """WIDER FACE folder with the validation photos"""
    peers: Path | None = None
    """folder of the peers' .onnx files; default: only ours"""
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    """our models: names, weights files or Bundles"""
    boxes: int = 300
    """number of false boxes per model"""
    sheet: Path | None = None
    """picture (.png, .jpg) of the first model's false boxes, most confident first"""

    def __post_init__(self) -> None:
        if self.boxes < 1:
            raise OptionError(f"--boxes {self.boxes}: give 1 or more")
        if self.sheet:
            if self.sheet.suffix.lower() not in IMAGE_SUFFIXES:
                raise OptionError(f"--sheet {self.sheet}: give a name that ends in .png or .jpg")
            check_writable(self.sheet, "--sheet", folder=False)


def judge(found: Detections, faces: Doubles, invalid: Doubles) -> tuple[list[str], list[int]]:
    """(Kind of each box, "" if it is not false; indices of the boxes that find a face).

    ``found`` is sorted by score, as detectors give it.
    """
    iou, ignored = box_iou(found.boxes, faces), box_iou(found.boxes, invalid)
    kinds, finders, taken = [], [], set()
    for i, row in enumerate(iou):
        best = int(row.argmax()) if len(row) else -1
        overlap = row[best] if len(row) else 0.0
        kind = ""
        if overlap >= MATCH_IOU and best not in taken:
            taken.add(best)
            finders.append(i)
        elif overlap >= MATCH_IOU:
            kind = "twice"
        elif ignored[i].max(initial=0) < MATCH_IOU:
            kind = "loose" if overlap >= TOUCHES_IOU else "elsewhere"
        kinds.append(kind)
    return kinds, finders


def crop_around(image: Image, box: Doubles, kind: str) -> Image:
    """A cell of the sheet: the box in the colour of its kind, and what is around it."""
    centre, side = (box[:2] + box[2:]) / 2, max(box[2:] - box[:2]) * AROUND
    scale = CELL_PX / side
    matrix = np.array([[scale, 0, 0], [0, scale, 0]])
    matrix[:, 2] = CELL_PX / 2 - centre * scale
    cell = cv2.warpAffine(image, matrix, (CELL_PX, CELL_PX))
    ends = np.round((box.reshape(2, 2) - centre) * scale + CELL_PX / 2).astype(int).tolist()
    cv2.rectangle(cell, ends[0], ends[1], COLOURS[kind], 1)
    return np.asarray(cell, np.uint8)


def sheet(mistakes: Sequence[Mistake]) -> Image:
    """One picture of all crops, in rows from left to right."""
    blank = np.zeros((CELL_PX, CELL_PX, 3), np.uint8)
    cells = [mistake.crop for mistake in mistakes]
    cells += [blank] * (-len(cells) % COLUMNS)
    rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
    return np.ascontiguousarray(np.vstack(rows or [blank]))


class Seen:
    """The mistakes of one model on all photos, and the scores of the boxes that find a face."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mistakes: list[Mistake] = []
        self.finders: list[float] = []

    def look(self, found: Detections, image: Image, faces: Doubles, invalid: Doubles) -> None:
        """Judge the boxes of one photo."""
        kinds, finders = judge(found, faces, invalid)
        self.finders += found.scores[finders].tolist()
        self.mistakes += [
            Mistake(float(score), kind, crop_around(image, box.astype(np.float64), kind))
            for box, score, kind in zip(found.boxes, found.scores, kinds, strict=True)
            if kind
        ]

    def most_confident(self, boxes: int) -> list[Mistake]:
        """At most ``boxes`` mistakes, highest score first."""
        return sorted(self.mistakes, key=lambda mistake: -mistake.score)[:boxes]

    def counts(self, boxes: int) -> Counts:
        """Counts of the ``boxes`` most confident mistakes, and of faces found with such scores."""
        worst = self.most_confident(boxes)
        least = worst[-1].score if len(worst) == boxes else 0.0
        kinds = [mistake.kind for mistake in worst]
        faces = sum(score >= least for score in self.finders)
        return Counts(self.name, faces, *(kinds.count(kind) for kind in KINDS))


def _look_at(
    faces: AnnotatedImage, photo: Image, seen: list[Seen], detectors: Sequence[Detector]
) -> None:
    frame = photo_frame(photo, faces)
    valid, invalid = frame.boxes[~faces.invalid], frame.boxes[faces.invalid]
    for own, detector in zip(seen, detectors, strict=True):
        own.look(detector.detect(frame.image), frame.image, valid, invalid)


def _run(o: Options) -> int:
    photos = read_photos(o.data)
    with open_all(o.models, o.peers, SCORE_FLOOR) as detectors, Terminal() as terminal:
        failures = Failures(terminal)
        seen = [Seen(name) for name in detectors]
        for faces, photo in readable(photos, len(seen), failures):
            _look_at(faces, photo, seen, list(detectors.values()))
    count = len(photos) - len(failures.told)
    rows = [own.counts(o.boxes) for own in seen]
    if o.sheet:
        write_image(o.sheet, sheet(seen[0].most_confident(o.boxes)))
    lines = [(r.model, r.faces, *(getattr(r, kind) for kind in KINDS)) for r in rows]
    text = table(("model", "faces found", *KINDS), lines)
    below = f"the {o.boxes} most confident false boxes on {counted(count, 'photo')}, by kind"
    emit(
        {"photos": count, "rows": [asdict(r) for r in rows]},
        f"{text}\n{below}",
        o.format,
        o.save,
    )
    return left_out(failures)


main = program_of(Options, "python -m benchmarks.research.mistakes", __doc__, _run, KEPT)


if __name__ == "__main__":
    sys.exit(main())
