"""``python -m benchmarks.picture``: the README's picture, real detections on public-domain photos of the packages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from edgeface.detector import Detector
from edgeface.errors import EdgefaceError
from edgeface.images import Image, read_image
from edgeface.images.drawing import draw
from edgeface.images.marked import write_image

HEIGHT_PX = 420


def photos() -> list[Image]:
    """Eileen Collins (NASA) and a rocket launch (NASA) from scikit-image, Grace Hopper (US Navy) from matplotlib."""
    from matplotlib.cbook import get_sample_data
    from skimage import data

    hopper = read_image(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    astronaut, rocket = data.astronaut(), data.rocket()  # type: ignore[no-untyped-call]
    return [np.ascontiguousarray(astronaut), hopper, np.ascontiguousarray(rocket)]


def montage(detector: Detector) -> Image:
    """Photos side by side at one height, detected at their own size and then drawn."""
    panels = []
    for photo in photos():
        faces = detector.detect(photo)
        drawn = draw(photo, faces)
        width = round(photo.shape[1] * HEIGHT_PX / photo.shape[0])
        panels.append(cv2.resize(drawn, (width, HEIGHT_PX), interpolation=cv2.INTER_AREA))
    return np.ascontiguousarray(np.hstack(panels), np.uint8)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture", description=__doc__)
    parser.add_argument("--model", default="edgeface-n", help="zoo name or Bundle folder")
    parser.add_argument("--save", type=Path, default=Path("docs/detect.jpg"))
    o = parser.parse_args(arguments)
    try:
        with Detector.open(o.model) as detector:
            write_image(o.save, montage(detector))
    except EdgefaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(o.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
