"""Read mutated images: ``python read_mutated.py FOLDER SUFFIX FIRST COUNT PLACE``.

They are made from the undamaged images in FOLDER and written to PLACE one after the other."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
from mutations import mutated_image
from workers_apart import ended, items, limit_memory, one_line

from edgeface.errors import EdgefaceError
from edgeface.images.reading import MAX_PIXELS, read_image

MEMORY = 4 << 30
"""limit of the address space in bytes, with libraries; the largest accepted image takes 400 MB"""
LIMIT_S = 30.0


def main() -> None:
    folder, suffix, first, count, place = sys.argv[1:]
    sources = [path.read_bytes() for path in sorted(Path(folder).glob(f"*{suffix}"))]
    others = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    path = Path(place) / f"mutated{suffix}"
    limit_memory(MEMORY)
    pictures = refused = 0
    for item in items(int(first), int(count), LIMIT_S):
        path.write_bytes(mutated_image(sources, others, random.Random(item)))
        try:
            image = read_image(path)
        except EdgefaceError as error:
            assert one_line(error), (item, str(error))
            refused += 1
        else:
            height, width, channels = image.shape
            assert image.dtype == np.uint8 and channels == 3 and 0 < height * width <= MAX_PIXELS
            pictures += 1
    ended({"pictures": pictures, "refused": refused})


if __name__ == "__main__":
    main()
