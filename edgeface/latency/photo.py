"""The synthetic photo that every model is timed on.

It is made from a seed, so that no file has to be sent, and it is smooth, as photos are. Noise is
unsuitable: it causes scores that no photo causes, and resizing gains nothing from it.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgeface.images import Image

OCTAVES = ((3, 110), (7, 45), (17, 20), (45, 8))
"""(cells along the short side, amplitude) of the layers of soft blobs that make the scene"""
FACES = 6


def synthetic_photo(width: int, height: int, seed: int = 0) -> Image:
    """uint8 RGB [height, width, 3]: soft blobs of colour and some shapes like faces.

    Equal arguments give equal pixels.
    """
    random = np.random.default_rng(seed)
    scene = np.full((height, width, 3), 128.0, np.float32)
    for cells, amplitude in OCTAVES:
        columns = max(2, round(cells * width / height))
        grid = random.integers(0, 256, (cells, columns, 3), dtype=np.uint8)
        # The exact variant: the same pixels on every processor.
        soft = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
        scene += (soft.astype(np.float32) - 127.5) * (amplitude / 127.5)
    photo = np.clip(scene, 0, 255).astype(np.uint8)
    for i in range(FACES):
        side = min(width, height) * (0.3 - 0.04 * i)
        _draw_face(photo, (width * (i + 0.5) / FACES, height * random.uniform(0.25, 0.75)), side)
    return photo


def _draw_face(photo: Image, centre: tuple[float, float], side_px: float) -> None:
    def ellipse(x: float, y: float, wide: float, high: float, colour: tuple[int, int, int]) -> None:
        at = (round(centre[0] + x * side_px), round(centre[1] + y * side_px))
        axes = (max(1, round(wide * side_px / 2)), max(1, round(high * side_px / 2)))
        cv2.ellipse(photo, at, axes, 0, 0, 360, colour, -1)

    ellipse(0, -0.1, 0.86, 1.12, (60, 42, 30))  # hair
    ellipse(0, 0, 0.74, 1.0, (224, 178, 148))
    for x in (-0.16, 0.16):
        ellipse(x, -0.16, 0.2, 0.04, (80, 55, 40))
        ellipse(x, -0.07, 0.15, 0.08, (245, 240, 235))
        ellipse(x, -0.07, 0.07, 0.08, (50, 35, 30))
    ellipse(0, 0.08, 0.1, 0.16, (205, 150, 122))
    ellipse(0, 0.27, 0.26, 0.08, (175, 85, 80))
