"""``python -m benchmarks.picture``: the README's picture, real detections on public-domain photos
of the packages."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgeface.cli.flags import DEFAULT_MODEL, program_of
from edgeface.cli.output import say
from edgeface.detector import Detector
from edgeface.images import Image, read_image
from edgeface.images.drawing import draw
from edgeface.images.marked import write_image

HEIGHT_PX = 420


def photos() -> list[Image]:
    """Eileen Collins (NASA) and a rocket launch (NASA) from scikit-image, Grace Hopper (US Navy)
    from matplotlib."""
    from matplotlib.cbook import get_sample_data
    from skimage import data

    hopper = read_image(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    astronaut, rocket = data.astronaut(), data.rocket()  # type: ignore[no-untyped-call]
    return [np.ascontiguousarray(astronaut), hopper, np.ascontiguousarray(rocket)]


def montage(detector: Detector) -> Image:
    """Photos side by side at one height; faces are found and drawn before the scaling."""
    panels = []
    for photo in photos():
        faces = detector.detect(photo)
        drawn = draw(photo, faces)
        width = round(photo.shape[1] * HEIGHT_PX / photo.shape[0])
        panels.append(cv2.resize(drawn, (width, HEIGHT_PX), interpolation=cv2.INTER_AREA))
    return np.ascontiguousarray(np.hstack(panels), np.uint8)


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    model: str = DEFAULT_MODEL
    """network name or Bundle folder"""
    save: Path = Path("docs/detect.jpg")
    """output file"""


def _run(o: Options) -> None:
    with Detector.open(o.model) as detector:
        write_image(o.save, montage(detector))
    say(o.save)


main = program_of(Options, "python -m benchmarks.picture", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
