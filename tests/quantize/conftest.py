"""A trained network at a small input size, and a WIDER FACE folder of a few photos that come with
installed packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.bundle import Bundle
from edgeface.images import read_image

SMALL = (160, 128)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """``trained(target)`` -> fp32 Bundle of edgeface-n with its shipped weights, made once a
    session."""
    pytest.importorskip("torch", reason="torch is not installed")
    from export import ExportRequest, export_model, load_source

    made: dict[str, Bundle] = {}

    def make(target: str) -> Bundle:
        if target not in made:
            source = load_source("edgeface-n")
            made[target] = export_model(
                source, ExportRequest(target, "fp32", *SMALL), tmp_path_factory.mktemp("float")
            ).bundle
        return made[target]

    return make


@pytest.fixture(scope="session")
def float_bundle(trained: Callable[[str], Bundle]) -> Bundle:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return trained("onnx")


@pytest.fixture(scope="session")
def mini_wider(
    tmp_path_factory: pytest.TempPathFactory,
    astronaut: NDArray[np.uint8],
    hopper_path: Path,
    write_mat: Callable[..., Path],
) -> Path:
    """Two portraits at several places and sizes: 12 training photos, 8 validation photos with the
    face annotated."""
    root = tmp_path_factory.mktemp("wider")
    random = np.random.default_rng(5)
    # Face as x, y, w, h in px of the photo, read off by eye.
    portraits = [(astronaut, (178, 68, 92, 120)), (read_image(hopper_path), (182, 110, 160, 210))]
    faces = {}
    for i in range(20):
        photo, (x, y, w, h) = portraits[i % 2]
        scale = float(random.uniform(0.25, 0.6))
        small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        left, top = (int(v) for v in random.integers(0, 60, 2))
        canvas = np.full(
            (small.shape[0] + 80, small.shape[1] + 120, 3), int(random.integers(0, 256)), np.uint8
        )
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        split = "WIDER_train" if i < 12 else "WIDER_val"
        path = root / split / "images" / "0--Portraits" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))
        if split == "WIDER_val":
            box = [x * scale + left, y * scale + top, w * scale, h * scale]
            faces[f"0--Portraits/{i}"] = ([box], {s: [0] for s in ("easy", "medium", "hard")})
    return write_mat(root, faces)


@pytest.fixture(scope="session")
def black(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Black photos, whose ranges are wrong: a file all in INT8 calibrated on them finds no face."""
    folder = tmp_path_factory.mktemp("black")
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((20, 20 + i, 3), np.uint8))
    return folder
