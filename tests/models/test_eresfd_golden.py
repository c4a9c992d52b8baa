"""EResFD with released weights against outputs of the authors' program.

The inputs are noise, odd sizes and photos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from released import CASES, assert_same_detections, assert_same_heads, detections, golden, released

from edgeface.architecture.strides import S3FD_STRIDES
from edgeface.decode import head_layout
from edgeface.models.detector import FaceNet, deployable
from edgeface.models.eresfd import original_key
from edgeface.zoo import load_weights_file

NAME = "eresfd-16"
HEADS_ATOL, BOXES_ATOL_PX, SCORES_ATOL = 1e-5, 1e-4, 1e-6


@pytest.fixture(scope="module")
def network(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceNet:
    return released(NAME, shared, tmp_path_factory.mktemp("weights"))


def test_every_key_has_its_counterpart(shared: Path, network: FaceNet) -> None:
    theirs = load_weights_file(shared / "weights/eresfd_16.safetensors")
    ours = network.state_dict()
    assert sorted(map(original_key, ours)) == sorted(theirs)
    assert all(tuple(value.shape) == theirs[original_key(key)].shape for key, value in ours.items())


@pytest.mark.parametrize("case", CASES)
def test_raw_heads(case: str, shared: Path, network: FaceNet) -> None:
    image, expected = golden(NAME, case, shared)
    assert_same_heads(network, image, expected, HEADS_ATOL)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_detections(case: str, folded: bool, shared: Path, network: FaceNet) -> None:
    image, arrays = golden(NAME, case, shared)
    expected = arrays["det"]
    assert len(expected) > 100
    height, width = image.shape[2:]
    theirs = expected[:, 1:] * np.array((width, height) * 2, np.float32)
    found = detections(deployable(network) if folded else network, image)
    assert_same_detections(found, theirs, expected[:, 0], BOXES_ATOL_PX, SCORES_ATOL)


@pytest.mark.parametrize("case", ["synth", "synth_odd"])
def test_priors(case: str, shared: Path, network: FaceNet) -> None:
    """Centre and size of each cell's prior; theirs are divided by the size of the image."""
    image, _ = golden(NAME, case, shared)
    theirs = np.load(shared / f"goldens/eresfd_16_{case}_priors.npz")["priors"]
    height, width = image.shape[2:]
    layout = head_layout(network.architecture)
    ours = []
    for s in S3FD_STRIDES:
        rows, columns = np.mgrid[: -(-height // s), : -(-width // s)].astype(np.float64)
        centres = np.stack([columns.ravel(), rows.ravel()], 1) + layout.offset
        ours.append(np.column_stack([centres, np.tile(layout.prior, (len(centres), 1))]) * s)
    np.testing.assert_allclose(
        np.concatenate(ours) / np.array((width, height) * 2), theirs, rtol=0, atol=1e-6
    )


def test_black_has_no_face_and_photos_have(shared: Path, network: FaceNet) -> None:
    """A black image has no face above .2, but some above the papers' threshold.

    The released network gives some cells of that image a score of .09.
    """
    black = np.zeros((1, 3, 250, 317), np.float32)
    assert len(detections(network, black, 0.2)) == 0
    assert len(detections(network, black)) > 0
    image, _ = golden(NAME, "photo20", shared)
    assert detections(network, image).scores[0] > 0.9
