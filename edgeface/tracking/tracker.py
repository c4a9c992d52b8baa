"""Track faces with SORT (Bewley et al., arXiv 1602.00763), without SciPy.

::

    boxes of a frame ---> compared by IoU ---> seen again: its filter is corrected
                            ^        |-------> new: gets the next number
    boxes of last frame ----+        `-------> not seen: its box is predicted for a while
    moved one frame on (kalman.py)

Pairs are matched greedily, from the highest IoU down. SORT solves the whole assignment at once,
which needs SciPy and differs only where three boxes overlap each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeface.decode import box_iou
from edgeface.detections import Detections
from edgeface.errors import OptionError
from edgeface.options import check_count, check_number
from edgeface.tracking.kalman import Motion
from edgeface.types import Doubles

Numbers = NDArray[np.int64]


class Tracker:
    """Gives each face of a video a number that it keeps.

    ::

        tracker = Tracker()
        for _, frame in sources(["clip.mp4"]):
            faces = detector.detect(frame)
            for face, number in zip(faces, tracker.update(faces)):
                print(number, face.box)

    It follows boxes and does not recognise people: a face that is missing for more than ``max_gap``
    frames comes back with a new number.
    """

    def __init__(self, min_iou: float = 0.3, max_gap: int = 30) -> None:
        """Set the limits of matching. Raises OptionError if one is out of range.

        min_iou: least IoU of a face with a predicted box to get its number; above 0, at most 1.
        max_gap: frames for which a missing face keeps its number.
        """
        if check_number("min_iou", min_iou, 0, 1) == 0:
            raise OptionError(f"min_iou {min_iou} is not above 0 and at most 1")
        self.min_iou, self.max_gap = min_iou, check_count("max_gap", max_gap)
        self._numbers = np.zeros(0, np.int64)
        self._gaps = np.zeros(0, np.int64)
        self._motion = Motion.begin(np.zeros((0, 4)))
        self._next = 1

    def update(self, faces: Detections) -> Numbers:
        """Return the numbers int64 [N], from 1, of the faces of the next frame, in their order.

        Raises OptionError if ``faces`` is not Detections.
        """
        if not hasattr(faces, "boxes"):
            kind = type(faces).__name__
            raise OptionError(f"faces of a frame are Detections, as of Detector.detect, not {kind}")
        boxes = faces.boxes.astype(np.float64)
        self._motion.predict()
        known, seen = _pairs(box_iou(self._motion.boxes(), boxes), self.min_iou)
        self._motion.correct(known, boxes[seen])
        self._gaps += 1
        self._gaps[known] = 0
        self._motion.keep_size(self._gaps > 0)
        numbers = np.zeros(len(boxes), np.int64)
        numbers[seen] = self._numbers[known]
        new = numbers == 0
        numbers[new] = self._next + np.arange(new.sum())
        self._next += int(new.sum())
        self._remember(numbers[new], boxes[new])
        return numbers

    def hidden(self) -> Doubles:
        """Predicted boxes [M, 4] of known faces that were not found in the last frame.

        Columns are x1, y1, x2, y2 in px.
        """
        return self._motion.boxes()[self._gaps > 0]

    def _remember(self, numbers: Numbers, boxes: Doubles) -> None:
        """Add new faces; drop those missing for more than ``max_gap`` frames."""
        stay = self._gaps <= self.max_gap
        self._numbers = np.concatenate((self._numbers[stay], numbers))
        self._gaps = np.concatenate((self._gaps[stay], np.zeros(len(numbers), np.int64)))
        self._motion = self._motion.only(stay).and_also(Motion.begin(boxes))


def _pairs(iou: Doubles, least: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Matched rows and columns with IoU >= ``least``, highest IoU first, each used at most once."""
    rows, columns = np.nonzero(iou >= least)
    order = np.argsort(-iou[rows, columns], kind="stable")
    free_rows, free_columns = set(range(iou.shape[0])), set(range(iou.shape[1]))
    found = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row in free_rows and column in free_columns:
            found.append((row, column))
            free_rows.discard(row)
            free_columns.discard(column)
    pairs = np.array(found, np.intp).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
