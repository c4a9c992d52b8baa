"""Makes faces unrecognisable."""

from __future__ import annotations

import cv2
import numpy as np

from edgeface.errors import OptionError
from edgeface.images.reading import as_rgb, finite
from edgeface.images.scaling import Image
from edgeface.types import Doubles, Floats

CELLS = 4
"""number of mean colours along each side that remain of a face. It must be small: networks that
know a few dozen people recognise them in mosaics of 6x7 cells (McPherson et al., Defeating Image
Obfuscation with Deep Learning, arXiv 1609.00408)."""
MARGIN = 0.2
"""share of the box added on each side: hair, ears and chin can identify a person, too"""


def blur(image: Image, boxes: Floats | Doubles) -> Image:
    """Return a copy of an RGB image [H, W, 3] with the faces in ``boxes`` [N, 4] (x1, y1, x2, y2 in
    px) blurred.

    A face, with a margin of a fifth around it, is reduced to :data:`CELLS` x CELLS mean colours
    with smooth transitions: no finer detail can be recovered. Grey images stay grey. Raises
    ImageError for any other image, and OptionError for boxes that would leave a face visible: not
    finite, or with exchanged corners.
    """
    as_rgb(image)
    places = finite("boxes", boxes, 4)
    if (places[:, 2:] < places[:, :2]).any():
        raise OptionError("boxes must be x1, y1, x2, y2 in px, got x2 below x1 or y2 below y1")
    blurred = np.array(image, order="C")
    height, width = blurred.shape[:2]
    for box in places:
        margin = MARGIN * (box[2:] - box[:2])
        x1, y1 = np.floor(np.clip(box[:2] - margin, 0, (width, height))).astype(int)
        x2, y2 = np.ceil(np.clip(box[2:] + margin, 0, (width, height))).astype(int)
        if x2 > x1 and y2 > y1:
            # From the original image: a face that overlaps another must not be blurred from what
            # is left of that one.
            face, size = image[y1:y2, x1:x2], (int(x2 - x1), int(y2 - y1))
            means = cv2.resize(face, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
            cells = cv2.resize(means, size, interpolation=cv2.INTER_LINEAR)
            blurred[y1:y2, x1:x2] = cells.reshape(face.shape)
    return blurred
