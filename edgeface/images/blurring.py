"""Faces made unrecognisable."""

from __future__ import annotations

import cv2
import numpy as np

from edgeface.errors import OptionError
from edgeface.images.reading import as_rgb, finite
from edgeface.images.scaling import Image
from edgeface.types import Doubles, Floats

CELLS = 4
"""mean colours along a side that remain of a face. Networks that know a few dozen people tell
mosaics of 6x7 cells apart (McPherson et al., Defeating Image Obfuscation with Deep Learning, arXiv
1609.00408), so there must be few."""
MARGIN = 0.2
"""of the box that is added on each side: hair, ears and chin tell, too"""


def blur(image: Image, boxes: Floats | Doubles) -> Image:
    """Return a copy of an RGB image [H, W, 3] with the faces in ``boxes`` [N, 4] (x1, y1, x2, y2 in
    px) blurred.

    Of each face, with a margin of a fifth around it, :data:`CELLS` x CELLS mean colours remain, and
    a smooth passage between them: nothing finer can be brought back from the result. Grey images
    stay grey. Raises ImageError for another image, and OptionError for boxes that would leave a
    face as it is: they are not finite, or their corners are exchanged.
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
            # From the image as it was: faces that overlap must not share what is left of one.
            face, size = image[y1:y2, x1:x2], (int(x2 - x1), int(y2 - y1))
            means = cv2.resize(face, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
            cells = cv2.resize(means, size, interpolation=cv2.INTER_LINEAR)
            blurred[y1:y2, x1:x2] = cells.reshape(face.shape)
    return blurred
