"""Several outputs of one frame: files, crops and a window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeface.detections import Detections
from edgeface.images import outputs
from edgeface.images.inputs import Input


class _Waiting:
    """A window at which the user presses Ctrl-C."""

    closed = False

    def show(self, picture: object, wait: bool) -> None:
        raise KeyboardInterrupt


def test_a_photo_is_saved_before_the_window_waits(
    astronaut: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "Window", _Waiting)
    points = np.array([[[180, 100], [240, 95], [215, 130], [190, 150], [245, 146]]], np.float32)
    faces = Detections(np.array([[150, 60, 260, 180]], np.float32), np.ones(1, np.float32), points)
    place = tmp_path / "out"
    every = outputs.Outputs([Input("a.jpg", "image")], save=place, show=True, crop=place)
    with pytest.raises(KeyboardInterrupt):
        every.add(outputs.Looked("a.jpg", astronaut, faces))
    assert {path.name for path in place.iterdir()} == {"a.jpg", "a-face1.png"}
