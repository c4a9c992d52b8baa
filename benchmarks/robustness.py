"""``python -m benchmarks.robustness --data WIDER --peers PEERS``: which faces models miss, ours beside published ones.

Every model sees the same frames of 640x480 px and may err equally often: its score threshold is the lowest at which it
has at most --false-boxes boxes a photo that overlap no annotated face, not even an invalid one, with an IoU of .5. A
face is found by a box of at least that score and an IoU of .5 with it.

photos    Each validation photo, letterboxed. Faces by height in px of the photo; those of 24 px and more by the
          conditions that WIDER FACE's annotators noted. clean: the first value of each condition.
fill      Clean faces of 192 px and more, cropped from their photo so that the face has that share of the frame's
          height. The crop is 4:3, or as wide as the photo is, with the face in the middle where the photo is large
          enough; a face whose photo is too low for the crop is left out. Boxes end at the frame: at 125 % the face
          lacks forehead and chin, and what must be found is the rest.
roll      The largest clean face of each photo if it has 48 px and more in the frame, with the photo turned around its
          centre, both ways; it must stay inside. Its box is then the one around the ellipse that filled the upright
          box: a head is rounder than a rectangle, whose own box would be half as large again at 45 degrees.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import emit, environment, exit_code, table
from benchmarks.peer_models import open_all
from edgeface.annotations import AnnotatedImage, read_wider
from edgeface.detector import Detector
from edgeface.errors import DataError, OptionError
from edgeface.evaluation.landmarks import box_iou
from edgeface.files import atomic_write
from edgeface.images import Image, fit_size, letterbox, read_image
from export.terminal import Terminal

Floats = NDArray[np.float64]
Group = tuple[str, str]
"""kind and value, such as ("occlusion", "heavy")"""

WIDTH, HEIGHT = 640, 480
SCORE_FLOOR = 0.1
"""no threshold is lower"""
MATCH_IOU = 0.5
FALSE_BOXES = 138 / 400
"""a photo, as YuNet_n has at a score of .71 on 400 photos of the validation set"""
SIZES_PX = (0, 16, 32, 64, 128, 256, math.inf)
LEAST_PX, FILL_PX, ROLL_PX = 24, 192, 48
CONDITIONS = {
    "blur": (0, ("clear", "normal", "heavy")),
    "light": (2, ("normal", "extreme")),
    "occlusion": (4, ("none", "partial", "heavy")),
    "pose": (5, ("typical", "atypical")),
}
"""kind -> column of the annotated traits, and the names of its values 0, 1, ..."""
FILLS = (60, 80, 90, 100, 125)
ROLLS = (0, 15, 30, 45, 60, 75, 90)
GROUPS: tuple[Group, ...] = (
    *(("size", f"{low:g}+" if high == math.inf else f"{low:g}-{high:g}")
      for low, high in itertools.pairwise(SIZES_PX)),
    ("faces", "all"), ("faces", "clean"),
    *((kind, name) for kind, (_, names) in CONDITIONS.items() for name in names),
    *(("fill", str(percent)) for percent in FILLS),
    *(("roll", str(degrees)) for degrees in ROLLS),
)
"""in the order of the result"""


class Frame(NamedTuple):
    """What all models look at."""

    image: Image
    """uint8 RGB [480, 640, 3]"""
    boxes: Floats
    """[N, 4] x1, y1, x2, y2 of faces in px of the frame"""
    groups: Mapping[Group, NDArray[np.bool_]]
    """[N] which of them belong to a row of the result"""
    complete: bool
    """whether every face in sight is in ``boxes``, so that all other found boxes are false"""


@dataclass(frozen=True)
class Row:
    """One figure."""

    kind: str
    value: str
    model: str
    recall: float
    faces: int


class Tally:
    """The scores of one model: the best box of each face, and the boxes that are on no face."""

    def __init__(self, name: str, detector: Detector) -> None:
        self.name, self.detector = name, detector
        self.false: list[float] = []
        self.found: dict[Group, list[float]] = defaultdict(list)

    def look(self, frame: Frame) -> None:
        """Detect in ``frame`` and keep what came of it."""
        found = self.detector.detect(frame.image)
        hits = box_iou(found.boxes, frame.boxes) >= MATCH_IOU
        best = np.where(hits, found.scores[:, None], 0).max(axis=0, initial=0)
        for group, members in frame.groups.items():
            self.found[group] += best[members].tolist()
        if frame.complete:
            self.false += found.scores[~hits.any(axis=1)].tolist()

    def threshold(self, allowed: int) -> float:
        """Lowest score that leaves at most ``allowed`` boxes on no face."""
        scores = sorted(self.false, reverse=True)
        return float(np.nextafter(scores[allowed], 2)) if len(scores) > allowed else SCORE_FLOOR

    def rows(self, allowed: int) -> list[Row]:
        """Recall of every group at that threshold."""
        least = self.threshold(allowed)
        return [Row(*group, self.name, float(np.mean(np.array(scores) >= least)), len(scores))
                for group in GROUPS if (scores := self.found[group])]


def read_photos(data: Path) -> list[tuple[AnnotatedImage, Path]]:
    """The annotated validation photos that are there. Raises DataError."""
    annotated = read_wider(data / "wider_face_split" / "wider_face_val_bbx_gt.txt")
    folder = data / "WIDER_val" / "images"
    found = [(faces, folder / faces.path) for faces in annotated if (folder / faces.path).is_file()]
    if not found:
        raise DataError(f"no annotated photo in {folder}; accepted: <event>/<name>.jpg as WIDER FACE is distributed")
    return found


def frames(faces: AnnotatedImage, path: Path) -> Iterator[Frame]:
    """All frames of one photo."""
    photo = read_image(path)
    whole = photo_frame(photo, faces)
    yield whole
    clean = whole.groups["faces", "clean"]
    for box in faces.boxes[clean & (_heights(faces) >= FILL_PX)]:
        yield from fill_frames(photo, box.astype(np.float64))
    boxes = whole.boxes[clean]
    if len(boxes):
        largest = boxes[np.argmax(boxes[:, 3] - boxes[:, 1])]
        yield from roll_frames(whole.image, largest, _fitted(photo))


def photo_frame(photo: Image, faces: AnnotatedImage) -> Frame:
    """The photo as a whole; its faces by size and condition."""
    assert faces.traits is not None, "WIDER FACE's own format"
    height, valid = _heights(faces), ~faces.invalid
    groups = {group: valid & (height >= low) & (height < high)
              for group, (low, high) in zip(GROUPS, itertools.pairwise(SIZES_PX), strict=False)}
    large = valid & (height >= LEAST_PX)
    clean = large & (faces.traits[:, [column for column, _ in CONDITIONS.values()]] == 0).all(axis=1)
    groups |= {("faces", "all"): large, ("faces", "clean"): clean}
    groups |= {(kind, name): large & (faces.traits[:, column] == value)
               for kind, (column, names) in CONDITIONS.items() for value, name in enumerate(names)}
    factors = np.tile(np.array(_fitted(photo)) / photo.shape[1::-1], 2)
    return Frame(letterbox(photo, WIDTH, HEIGHT)[0], faces.boxes * factors, groups, True)


def fill_frames(photo: Image, box: Floats) -> Iterator[Frame]:
    """Crops in which the face ``box`` has each of the shares of the height."""
    for percent in FILLS:
        rows = round((box[3] - box[1]) * 100 / percent)
        if rows > photo.shape[0]:
            continue
        columns = min(round(rows * WIDTH / HEIGHT), photo.shape[1])
        left = _start((box[0] + box[2]) / 2, columns, photo.shape[1])
        top = _start((box[1] + box[3]) / 2, rows, photo.shape[0])
        crop = photo[top : top + rows, left : left + columns]
        image, scale = letterbox(crop, WIDTH, HEIGHT)
        inside = np.clip(box - (left, top, left, top), 0, (columns, rows, columns, rows)) * scale
        yield _of_one(image, inside, "fill", percent)


def roll_frames(image: Image, box: Floats, size: tuple[int, int]) -> Iterator[Frame]:
    """The letterboxed photo, of ``size`` px in ``image``, turned around the face ``box``; none if a turn cuts it."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    reach = half.max()
    if 2 * half[1] < ROLL_PX or (centre < reach).any() or (centre > np.array(size) - reach).any():
        return
    for degrees in ROLLS:
        for turn in sorted({-degrees, degrees}):
            matrix = cv2.getRotationMatrix2D((float(centre[0] - 0.5), float(centre[1] - 0.5)), turn, 1)
            turned = np.asarray(cv2.warpAffine(image, matrix, (WIDTH, HEIGHT)), np.uint8)
            around = turned_half(half, turn)
            yield _of_one(turned, np.concatenate((centre - around, centre + around)), "roll", degrees)


def turned_half(half: Floats, degrees: float) -> Floats:
    """Half width and height [2] of the box around an ellipse with these half axes, turned."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.hypot(half * cosine, half[::-1] * sine)


def _of_one(image: Image, box: Floats, kind: str, value: int) -> Frame:
    return Frame(image, box[None], {(kind, str(value)): np.ones(1, np.bool_)}, False)


def _heights(faces: AnnotatedImage) -> Floats:
    return (faces.boxes[:, 3] - faces.boxes[:, 1]).astype(np.float64)


def _start(centre: float, length: int, side: int) -> int:
    """First px of a window of ``length`` around ``centre``, moved into 0 to ``side``."""
    return min(max(round(centre - length / 2), 0), side - length)


def _fitted(photo: Image) -> tuple[int, int]:
    """Width and height in px that the photo has in the frame."""
    return fit_size(photo.shape[1], photo.shape[0], WIDTH, HEIGHT)


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Recall of each model against each kind of value, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    kinds = dict.fromkeys(kind for kind, _ in GROUPS)
    for axes, kind in zip(figure.subplots(2, 4, sharey=True).flat, kinds, strict=True):
        for model in dict.fromkeys(row.model for row in rows):
            own = [row for row in rows if row.model == model and row.kind == kind]
            axes.plot([row.value for row in own], [row.recall for row in own], marker=".", label=model)
        axes.set(title=kind, ylim=(0, 1.02))
        axes.tick_params("x", labelsize=7)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.supylabel("recall at equal false boxes")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def as_table(rows: Sequence[Row], below: str) -> str:
    """A line for each kind and value, a column for each model."""
    models = list(dict.fromkeys(row.model for row in rows))
    cells: dict[Group, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        cells[row.kind, row.value][row.model] = row
    lines = [(f"{kind} {value}", next(iter(found.values())).faces, *(f"{found[m].recall:.3f}" for m in models))
             for (kind, value), found in cells.items()]
    return f"{table(('', 'faces', *models), lines)}\n{below}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="WIDER FACE folder with the validation photos")
    parser.add_argument("--peers", type=Path, help="folder of the peers' .onnx files; default: ours alone")
    parser.add_argument("--models", nargs="+", default=["edgeface-n"], metavar="NAME_OR_BUNDLE", help="ours")
    parser.add_argument("--false-boxes", type=float, default=FALSE_BOXES,
                        help="that each model may have a photo; default: 138 on 400 photos, as YuNet_n at .71")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--save", type=Path, help="also write the JSON to this file")
    parser.add_argument("--plot", type=Path, help="draw the recalls into this PNG")
    o = parser.parse_args(arguments)
    return exit_code(lambda: _run(o))


def _run(o: argparse.Namespace) -> int:
    if not 0 <= o.false_boxes < math.inf:
        raise OptionError(f"--false-boxes {o.false_boxes:g}: give boxes a photo, 0 or more")
    photos = read_photos(o.data)
    allowed = round(o.false_boxes * len(photos))
    with open_all(o.models, o.peers, SCORE_FLOOR, o.threads) as detectors, Terminal() as terminal:
        tallies = [Tally(name, detector) for name, detector in detectors.items()]
        for done, (faces, path) in enumerate(photos):
            terminal.tick(f"{len(tallies)} models on {len(photos)} photos", done, len(photos))
            for frame in frames(faces, path):
                for tally in tallies:
                    tally.look(frame)
    rows = [row for tally in tallies for row in tally.rows(allowed)]
    if o.plot:
        plot(o.plot, rows)
    thresholds = {tally.name: round(tally.threshold(allowed), 4) for tally in tallies}
    result = {"photos": len(photos), "false_boxes": allowed, "thresholds": thresholds,
              "rows": [asdict(row) for row in rows], "environment": environment("onnxruntime", "numpy")}
    scores = ", ".join(f"{name} {score:.2f}" for name, score in thresholds.items())
    below = f"recall on {len(photos)} photos where each model has {allowed} boxes on no face: scores from {scores}"
    emit(result, as_table(rows, below), o.format, o.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
