"""Faces that are too small in their photos to be learned."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from networks import with_part

from edgeface.architecture import get_architecture
from edgeface.errors import DataError
from edgeface.training import train_model
from edgeface.training.options import TrainOptions, get_recipe

BOXES = with_part(get_architecture("edgeface-n"), "head", "boxes", landmarks=0)
SMALL = TrainOptions(
    samples=2, batch=2, size=64, late_size=64, late_share=0.0, compile=False, precision="fp32"
)


def test_faces_that_are_too_small_once_photos_are_scaled_are_told_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photo of 3200 px is scaled to a fifth, and a face is learned from 4 px.

    Ordinary crops enlarge the scaled photo at most 2 times, near crops at most 1.2 times.
    """
    cv2.imwrite(str(tmp_path / "large.png"), np.full((2400, 3200, 3), 90, np.uint8))
    faces, out = tmp_path / "faces.csv", tmp_path / "out"
    near = replace(SMALL, late_share=1.0)

    def train(boxes: str, options: TrainOptions) -> str:
        shutil.rmtree(out, ignore_errors=True)
        faces.write_text(boxes)
        assert train_model(BOXES, options, tmp_path, out, faces, out / "cache", threads=1)
        return capsys.readouterr().err

    small, larger = "large.png,100,100,109,140\n", "large.png,900,900,912,940\n"
    words = "1 of 2 faces are below 2 px once photos are scaled to 640 px: too small to be learned"
    assert words in train(small + larger, SMALL)
    assert "too small" not in train(larger, SMALL)
    with pytest.raises(DataError, match=r"faces.csv: all 1 faces are below 2 px .*, 1.8 px at mo"):
        train(small, SMALL)
    with pytest.raises(DataError, match=r"all 2 faces are below 3.33 px .*, 2.4 px at most: too"):
        train(small + larger, near)
    by_size = get_recipe("extd", BOXES).augment
    train(small, replace(SMALL, augment=by_size))
