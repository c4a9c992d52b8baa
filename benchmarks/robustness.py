"""``python -m benchmarks.robustness --data WIDER --peers PEERS``: which faces models miss.

All models see the same frames (:mod:`benchmarks.robustness_frames`) at the same false-positive
rate: the score threshold of each is the lowest with at most --false-boxes boxes per photo that
overlap no annotated face, not even an invalid one, by an IoU of .5. A face counts as found if a box
of at least that score overlaps it by an IoU of .5.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import Printed, environment, left_out
from benchmarks.peer_models import open_all
from benchmarks.robustness_frames import VALUES, Frame, Group, frames
from edgeface.cli.failures import Failures
from edgeface.cli.flags import DEFAULT_MODEL, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.decode import box_iou
from edgeface.detector import Detector
from edgeface.errors import DataError, OptionError, counted
from edgeface.evaluation.landmarks import MATCH_IOU
from edgeface.images import Image
from edgeface.images.annotated import AnnotatedImage
from edgeface.images.annotations import read_wider
from edgeface.images.reading import read_or_tell
from edgeface.pages.figures import new_figure, save_figure

SCORE_FLOOR = 0.1
"""no threshold is lower"""
FALSE_BOXES = 138 / 400
"""false boxes per photo of YuNet_n at a score of .71, on 400 photos of the validation set"""


@dataclass(frozen=True)
class Recall:
    """Recall of one model on one group of faces."""

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
        """Detect in ``frame`` and keep the scores."""
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

    def rows(self, allowed: int) -> list[Recall]:
        """Recall of every group at the threshold for ``allowed`` boxes on no face."""
        least = self.threshold(allowed)
        return [
            Recall(kind, value, self.name, float(np.mean(np.array(scores) >= least)), len(scores))
            for kind, values in VALUES.items()
            for value in values
            if (scores := self.found[kind, value])
        ]


def read_photos(data: Path) -> list[tuple[AnnotatedImage, Path]]:
    """The annotated validation photos that exist. Raises DataError if there are none."""
    annotated = read_wider(data / "wider_face_split" / "wider_face_val_bbx_gt.txt")
    folder = data / "WIDER_val" / "images"
    found = [(faces, folder / faces.path) for faces in annotated if (folder / faces.path).is_file()]
    if not found:
        raise DataError(
            f"no annotated photo in {folder}; accepted: <event>/<name>.jpg as WIDER FACE "
            "is distributed"
        )
    return found


def readable(
    photos: Sequence[tuple[AnnotatedImage, Path]], models: int, failures: Failures
) -> Iterator[tuple[AnnotatedImage, Image]]:
    """Each of ``photos`` that can be read; the others are reported. ``models``: for the progress
    line. Raises DataError if none can be read."""
    for done, (faces, path) in enumerate(photos):
        what = f"{counted(models, 'model')} on {counted(len(photos), 'photo')}"
        failures.terminal.tick(what, done, len(photos))
        image = read_or_tell(path, failures)
        if image is not None:
            yield faces, image
    if len(failures.told) == len(photos):
        raise DataError(f"none of the {len(photos)} photos can be read: there is nothing to judge")


def plot(path: Path, rows: Sequence[Recall]) -> None:
    """Plot the recall of each model over the values of each kind."""
    figure = new_figure(12, 6)
    for axes, kind in zip(figure.subplots(2, 4, sharey=True).flat, VALUES, strict=True):
        for model in dict.fromkeys(row.model for row in rows):
            own = [row for row in rows if row.model == model and row.kind == kind]
            values, recalls = [row.value for row in own], [row.recall for row in own]
            axes.plot(values, recalls, marker=".", label=model)
        axes.set(title=kind, ylim=(0, 1.02))
        axes.tick_params("x", labelsize=7)
        axes.grid(alpha=0.3)
    lines, models = axes.get_legend_handles_labels()
    figure.legend(lines, models, loc="outside lower center", ncols=4, fontsize=8)
    figure.supylabel("recall at equal false boxes")
    save_figure(figure, path)


def as_table(rows: Sequence[Recall], below: str) -> str:
    """A line for each kind and value, a column for each model."""
    models = list(dict.fromkeys(row.model for row in rows))
    cells: dict[Group, dict[str, Recall]] = defaultdict(dict)
    for row in rows:
        cells[row.kind, row.value][row.model] = row
    lines = [
        (" ".join(group), found[models[0]].faces, *(f"{found[m].recall:.3f}" for m in models))
        for group, found in cells.items()
    ]
    return f"{table(('', 'faces', *models), lines)}\n{below}"


KEPT = "nothing is kept, the same command begins again"


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    data: Path
    """WIDER FACE folder with the validation photos"""
    peers: Path | None = None
    """folder of the peers' .onnx files; default: only ours"""
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    """our models: names, weights files or Bundles"""
    false_boxes: float = FALSE_BOXES
    """false boxes allowed per photo, the same for each model: 138 on 400, as YuNet_n at .71"""
    threads: int = 1
    """CPU threads of each model"""
    plot: Path | None = None
    """plot the recalls to this .png or .svg"""

    def __post_init__(self) -> None:
        if not 0 <= self.false_boxes < math.inf:
            raise OptionError(f"--false-boxes {self.false_boxes:g}: give boxes a photo, 0 or more")


def _run(o: Options) -> int:
    photos = read_photos(o.data)
    with open_all(o.models, o.peers, SCORE_FLOOR, o.threads) as detectors, Terminal() as terminal:
        failures = Failures(terminal)
        tallies = [Tally(name, detector) for name, detector in detectors.items()]
        for faces, photo in readable(photos, len(tallies), failures):
            for frame in frames(faces, photo):
                for tally in tallies:
                    tally.look(frame)
    seen = len(photos) - len(failures.told)
    allowed = round(o.false_boxes * seen)
    rows = [row for tally in tallies for row in tally.rows(allowed)]
    if o.plot:
        plot(o.plot, rows)
    thresholds = {tally.name: round(tally.threshold(allowed), 4) for tally in tallies}
    result = {
        "photos": seen,
        "false_boxes": allowed,
        "thresholds": thresholds,
        "rows": [asdict(row) for row in rows],
        "environment": environment("onnxruntime", "numpy"),
    }
    scores = ", ".join(f"{name} {score:.2f}" for name, score in thresholds.items())
    below = (
        f"recall on {counted(seen, 'photo')} where each model has {allowed} boxes on no face: "
        f"scores from {scores}"
    )
    emit(result, as_table(rows, below), o.format, o.save)
    return left_out(failures)


main = program_of(Options, "python -m benchmarks.robustness", __doc__, _run, KEPT)


if __name__ == "__main__":
    sys.exit(main())
