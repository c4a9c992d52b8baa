"""False boxes by kind, for boxes placed by hand and for a detector on a real photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from benchmarks.research.mistakes import CELL_PX, COLOURS, COLUMNS, Options, Seen, judge, sheet
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import OptionError

NONE = np.zeros((0, 4))


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    """Detections with descending scores."""
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores)


def test_kinds_of_boxes() -> None:
    """One box of each case around a face of 20 px.

    In order: the face; a second box on it; boxes of IoU 1/3 and 1/19; one far off; one on an
    invalid face."""
    faces, invalid = np.array([[0, 0, 20, 20.0]]), np.array([[100, 100, 120, 120.0]])
    found = detections(
        (0, 0, 20, 20),
        (1, 0, 21, 20),
        (10, 0, 30, 20),
        (18, 0, 38, 20),
        (60, 60, 80, 80),
        (100, 100, 120, 120),
    )
    kinds, finders = judge(found, faces, invalid)
    assert kinds == ["", "twice", "loose", "elsewhere", "elsewhere", ""]
    assert finders == [0]


def test_photos_without_boxes_and_without_faces() -> None:
    assert judge(detections(), np.array([[0, 0, 20, 20.0]]), NONE) == ([], [])
    assert judge(detections((0, 0, 9, 9)), NONE, NONE) == (["elsewhere"], [])


def test_a_real_face_annotated_elsewhere() -> None:
    """A detection of the astronaut's face is a mistake only if the face is annotated elsewhere."""
    photo = np.ascontiguousarray(data.astronaut())  # type: ignore[no-untyped-call]
    with Detector.open("edgeface-n") as detector:
        found = detector.detect(photo)
    right, wrong = Seen("right"), Seen("wrong")
    face = found.boxes[:1].astype(np.float64)
    right.look(found, photo, face, NONE)
    wrong.look(found, photo, face + 300, NONE)
    assert right.counts(1).faces == 1 and wrong.counts(1).faces == 0
    assert wrong.counts(1).elsewhere == 1
    best = wrong.most_confident(1)
    assert best[0].score == found.scores[0]
    picture = sheet(best)
    assert picture.shape == (CELL_PX, COLUMNS * CELL_PX, 3)
    assert (picture == COLOURS["elsewhere"]).all(axis=2).any()


def test_a_sheet_that_cannot_be_drawn_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"sheet\.pdf: give a name that ends in"):
        Options(data=tmp_path, sheet=tmp_path / "sheet.pdf")
