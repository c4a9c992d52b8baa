"""Ground truth of a few faces, written as the official .mat files are laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

SETTINGS = ("easy", "medium", "hard")
Faces = tuple[Sequence[Sequence[float]], Mapping[str, Sequence[int]]]
"""boxes x, y, w, h and, per setting, the 0-based indices of the faces that count"""


def cell(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """A MATLAB cell column."""
    column = np.empty((len(values), 1), object)
    for i, value in enumerate(values):
        column[i, 0] = value
    return column


def write_ground_truth(root: Path, images: Mapping[str, Faces]) -> Path:
    """Write ``images``, keyed ``event/name``, below ``root`` in the official layout; return
    ``root``."""
    folder = root / "eval_tools" / "ground_truth"
    folder.mkdir(parents=True, exist_ok=True)
    events: dict[str, dict[str, Faces]] = {}
    for key, faces in images.items():
        event, name = key.split("/")
        events.setdefault(event, {})[name] = faces
    content = {
        "event_list": cell([np.array([event]) for event in events]),
        "file_list": cell(
            [cell([np.array([name]) for name in names]) for names in events.values()]
        ),
        "face_bbx_list": cell(
            [
                cell([np.array(boxes, float).reshape(-1, 4) for boxes, _ in names.values()])
                for names in events.values()
            ]
        ),
    }
    savemat(folder / "wider_face_val.mat", content)
    for setting in SETTINGS:
        lists = [
            cell(
                [
                    np.array(counts[setting], np.uint16).reshape(-1, 1) + 1
                    for _, counts in names.values()
                ]
            )
            for names in events.values()
        ]
        savemat(folder / f"wider_{setting}_val.mat", {"gt_list": cell(lists)})
    return root
