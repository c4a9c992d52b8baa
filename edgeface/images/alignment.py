"""Turns faces upright and scales them to one size, as recognition networks expect.

A similarity (rotation, scale, shift) maps the five landmarks as closely as possible to those of a
template::

    photo, [H, W]            face, [112, 112]
          o
      o      .       -->        o     o
         .  /                      .
          \\                     \\_____/
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import ImageError, OptionError
from edgeface.images.reading import as_rgb, finite
from edgeface.images.scaling import Image
from edgeface.options import check_count
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
"""[5, 2] x, y in px of a face of 112x112: the landmarks that ArcFace (Deng et al., arXiv
1801.07698) and nearly all later networks were trained on, from its authors' insightface"""
MAX_SIDE_PX = (1 << 15) - 2
"""largest side of an image that OpenCV 4 can warp"""


def align(image: Image, landmarks: Floats | None, size: int = TEMPLATE_PX) -> Image:
    """Faces of an image, upright: uint8 RGB [N, size, size, 3]; what lies outside the image is
    black.

    image: uint8 RGB [H, W, 3]. landmarks: [N, 5, 2] x, y in px of the image, as in
    ``Detections.landmarks``, or [5, 2] of one face. size: in px; recognition networks expect 112.
    Raises OptionError if landmarks are None, because the network has none, or invalid.
    """
    if landmarks is None:
        raise OptionError(
            "faces are aligned by landmarks, and this network has none: take one that has, such as"
            " edgeface-n"
        )
    points = finite("landmarks", landmarks, 5, 2)
    size = check_count("size", size, 1, 1 << 12)
    rgb = as_rgb(image)
    faces = np.zeros((len(points), size, size, 3), np.uint8)
    for face, marks in zip(faces, points, strict=True):
        # Bilinear even if it shrinks, as in the training of the recognition networks.
        matrix = similarity(marks, TEMPLATE * (size / TEMPLATE_PX))
        part, matrix = _reached(rgb, matrix, size)
        if part.size:
            cv2.warpAffine(part, matrix, (size, size), dst=face, flags=cv2.INTER_LINEAR)
    return faces


def _reached(rgb: Image, matrix: Doubles, size: int) -> tuple[Image, Doubles]:
    """(part of the image that ``matrix`` maps into [size, size], matrix for that part).

    An image within the limit of OpenCV 4 is returned whole. If the part exceeds the limit, too,
    only every n-th pixel is taken.
    """
    if max(rgb.shape[:2]) <= MAX_SIDE_PX:
        return rgb, matrix
    back = np.asarray(cv2.invertAffineTransform(matrix))
    square = np.array([[-1, size, -1, size], [-1, -1, size, size]])
    corners = back[:, :2] @ square + back[:, 2:]
    limits = rgb.shape[1::-1]
    left, top = np.clip(np.floor(corners.min(1)) - 1, 0, limits).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(1)) + 2, 0, limits).astype(int).tolist()
    step = max(1, math.ceil(max(right - left, bottom - top) / MAX_SIDE_PX))
    part = np.ascontiguousarray(rgb[top:bottom:step, left:right:step])
    turn, shift = matrix[:, :2], matrix[:, 2]
    return part, np.column_stack((turn * step, turn @ (left, top) + shift))


def similarity(source: Doubles, target: Doubles) -> NDArray[np.float64]:
    """Matrix [2, 3] of the rotation, scale and shift that map ``source`` [K, 2] to ``target`` with
    least squared error.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI
    13(4), 1991, equations 40 to 43; never a reflection. Raises ImageError if all source points
    coincide.
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
