"""Reading the official ground truth, which is in MATLAB files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from edgeface.errors import DataError
from edgeface.evaluation.wider import SETTINGS, load_ground_truth

WriteMat = Callable[[Path, Mapping[str, Any]], Path]
FACE = [100.0, 100.0, 40.0, 50.0]
OTHER = [300.0, 100.0, 40.0, 50.0]
FAR = [600.0, 600.0, 40.0, 50.0]
IMAGES: dict[str, Any] = {
    "0--A/x": ([FACE, OTHER], {"easy": [0], "medium": [0, 1], "hard": [0, 1]}),
    "0--A/y": ([], {"easy": [], "medium": [], "hard": []}),
    "1--B/z": ([FAR], {"easy": [], "medium": [], "hard": [0]}),
}


def test_mat_files_are_read(tmp_path: Path, write_mat: WriteMat) -> None:
    faces = load_ground_truth(write_mat(tmp_path, IMAGES))
    assert list(faces.images) == list(IMAGES)
    for key, (boxes, counts) in IMAGES.items():
        assert faces.images[key].boxes.tolist() == boxes
        for setting in SETTINGS:
            assert np.flatnonzero(faces.images[key].counts[setting]).tolist() == counts[setting]
    direct = load_ground_truth(tmp_path / "eval_tools" / "ground_truth")
    assert list(direct.images) == list(faces.images), (
        "the folder of the .mat files itself is accepted too"
    )


@pytest.mark.parametrize("name", ["wider_face_val.mat", "wider_medium_val.mat"])
def test_missing_and_damaged_mat_files(tmp_path: Path, write_mat: WriteMat, name: str) -> None:
    path = write_mat(tmp_path, IMAGES) / "eval_tools" / "ground_truth" / name
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(DataError, match=f"no ground truth .*{name}; accepted"):
        load_ground_truth(tmp_path)
    for damaged in (b"", b"not a mat file", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name}") as caught:
            load_ground_truth(tmp_path)
        assert "\n" not in str(caught.value)
    savemat(path, {"something": 1})
    with pytest.raises(DataError, match=f"{name} has no variable"):
        load_ground_truth(tmp_path)


def test_mat_files_that_do_not_belong_together(tmp_path: Path, write_mat: WriteMat) -> None:
    folder = write_mat(tmp_path, IMAGES) / "eval_tools" / "ground_truth"
    lists = loadmat(folder / "wider_hard_val.mat")["gt_list"]
    lists[1, 0][0, 0] = np.array([[9]])
    savemat(folder / "wider_hard_val.mat", {"gt_list": lists})
    with pytest.raises(DataError, match=r"do not belong together \(face 9 of 1\)"):
        load_ground_truth(tmp_path)
    savemat(folder / "wider_hard_val.mat", {"gt_list": lists[:1]})
    with pytest.raises(DataError, match="do not belong together"):
        load_ground_truth(tmp_path)
