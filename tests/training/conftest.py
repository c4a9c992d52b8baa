"""A small annotated data set of public-domain photos, with known faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

ASTRONAUT_FACE = (172, 68, 274, 196)
"""x1, y1, x2, y2 in px, annotated by hand"""


@pytest.fixture(scope="session")
def photos(astronaut: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of photos with ``faces.csv``: a portrait at four scales and a photo without faces."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    folder = tmp_path_factory.mktemp("photos")
    lines = ["image,x1,y1,x2,y2"]
    for i, scale in enumerate((1.0, 0.8, 0.5, 0.35)):
        photo = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
        lines.append(f"{i}.png," + ",".join(f"{v * scale:.1f}" for v in ASTRONAUT_FACE))
    cv2.imwrite(str(folder / "coffee.png"), cv2.cvtColor(data.coffee(), cv2.COLOR_RGB2BGR))
    lines.append("coffee.png,,,,")
    (folder / "faces.csv").write_text("\n".join(lines) + "\n")
    return folder
