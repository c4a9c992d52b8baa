"""Fixtures shared by the tests of searches."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgeface.search.space import SPACES


@pytest.fixture(scope="session")
def small_space(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The edge space, shrunk: its networks are made and measured quickly."""
    path = tmp_path_factory.mktemp("space") / "small.json"
    small = dataclasses.replace(
        SPACES["edge"],
        name="small",
        stems=(8, 16),
        max_width=32,
        max_inner=16,
        depth=1,
        necks=(16,),
        heads=(16,),
        macs=(0.02e9, 0.1e9),
        max_layers=6,
    )
    path.write_text(json.dumps(dataclasses.asdict(small)))
    return str(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> tuple[Path, Path]:
    """(folder of 50 photos, their annotations): the astronaut at several scales and crops."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    lines = ["image,x1,y1,x2,y2"]
    for number in range(50):
        scale, (left, top) = draw.uniform(0.4, 0.9), draw.integers(0, 24, 2)
        view = cv2.resize(astronaut, None, fx=scale, fy=scale)[top:, left:]
        assert cv2.imwrite(str(folder / f"{number:02}.png"), view[..., ::-1])
        x1, y1, x2, y2 = np.array([178, 62, 270, 180]) * scale - [left, top, left, top]
        lines.append(f"{number:02}.png,{x1:.1f},{max(y1, 0):.1f},{x2:.1f},{y2:.1f}")
    annotations = folder.parent / "faces.csv"
    annotations.write_text("\n".join(lines) + "\n")
    return folder, annotations
