"""Faces turned upright and scaled to one size, as recognition networks take them.

The five landmarks are laid over those of a template by the similarity (turn, scale, shift) that
brings them closest::

    photo, [H, W]            face, [112, 112]
          o
      o      .       -->        o     o
         .  /                      .
          \\                     \\_____/
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import ImageError, OptionError
from edgeface.images.reading import as_rgb
from edgeface.images.scaling import Image
from edgeface.types import Doubles, Floats

TEMPLATE_PX = 112
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""x, y in px of a face of 112x112: the points that ArcFace (Deng et al., arXiv 1801.07698) and
nearly all after it were trained on, from its authors' insightface"""


def align(image: Image, landmarks: Floats | None, size: int = TEMPLATE_PX) -> Image:
    """Faces of an image, upright: uint8 RGB [N, size, size, 3]; what lies outside the image is
    black.

    image: uint8 RGB [H, W, 3]. landmarks: [N, 5, 2] x, y in px of it, as
    ``Detections.landmarks`` has them, or [5, 2] of one face; recognition networks take ``size``
    112. Raises OptionError for the landmarks of a network that has none.
    """
    if landmarks is None:
        raise OptionError(
            "faces are aligned by landmarks, and this network has none: take one that has, such as"
            " edgeface-n"
        )
    points = np.asarray(landmarks, np.float64).reshape(-1, 5, 2)
    if not 1 <= size <= 1 << 12:
        raise OptionError(f"size {size}: accepted: 1 to {1 << 12} px")
    rgb = as_rgb(image)
    faces = np.zeros((len(points), size, size, 3), np.uint8)
    for face, marks in zip(faces, points, strict=True):
        # Bilinear, also where it shrinks: it is what those networks saw in training.
        matrix = similarity(marks, TEMPLATE * (size / TEMPLATE_PX))
        cv2.warpAffine(rgb, matrix, (size, size), dst=face, flags=cv2.INTER_LINEAR)
    return faces


def similarity(source: Doubles, target: Doubles) -> NDArray[np.float64]:
    """[2, 3]: the turn, scale and shift that bring ``source`` [K, 2] closest to ``target`` in the
    least squares.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI
    13(4), 1991, equations 40 to 43; never a reflection. Raises ImageError where all points of the
    source are one.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    variance = (centred**2).sum() / len(source)
    if not variance > 0:
        raise ImageError("a face cannot be aligned: its landmarks are all in one place")
    covariance = (target - target_mean).T @ centred / len(source)
    left, singular, right = np.linalg.svd(covariance)
    signs = np.array((1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0))
    turn = left @ np.diag(signs) @ right
    scale = (singular * signs).sum() / variance
    return np.column_stack((scale * turn, target_mean - scale * turn @ source_mean))
