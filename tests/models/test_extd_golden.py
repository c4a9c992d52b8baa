"""EXTD with released weights against outputs of the authors' program.

The inputs are noise, odd sizes and photos.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from released import CASES, assert_same_detections, assert_same_heads, detections, golden, released

from edgeface.models.detector import FaceNet, deployable

NAMES = tuple(f"extd-fpn-{width}-prelu" for width in (32, 48, 64))
HEADS_ATOL, BOXES_ATOL_PX, SCORES_ATOL = 1e-5, 1e-4, 1e-6


@pytest.fixture(scope="module")
def network(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FaceNet]:
    """``network(name)`` with released weights, built once for each name."""
    folder = tmp_path_factory.mktemp("weights")
    return cache(lambda name: released(name, shared, folder))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_raw_heads(name: str, case: str, shared: Path, network: Callable[[str], FaceNet]) -> None:
    image, expected = golden(name, case, shared)
    assert_same_heads(network(name), image, expected, HEADS_ATOL)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_detections(
    name: str, case: str, folded: bool, shared: Path, network: Callable[[str], FaceNet]
) -> None:
    image, arrays = golden(name, case, shared)
    expected = arrays["det"]
    assert len(expected) or (name == "extd-fpn-48-prelu" and case.startswith("synth")), (
        "only this case is empty"
    )
    theirs = expected[:, 1:] * np.array(image.shape[:1:-1] * 2, np.float32)
    net = network(name)
    assert_same_detections(
        detections(deployable(net) if folded else net, image),
        theirs,
        expected[:, 0],
        BOXES_ATOL_PX,
        SCORES_ATOL,
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_photos_have_faces(name: str, shared: Path, network: Callable[[str], FaceNet]) -> None:
    """The photo of the comparison above has faces that the network finds."""
    image, _ = golden(name, "photo20", shared)
    assert detections(network(name), image).scores[0] > 0.9
