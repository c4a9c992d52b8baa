"""EXTD with its released weights against outputs of the authors' own program, on noise, odd sizes and photos.

Their detections are greedy NMS at an IoU of .3 over the best 5000 boxes that score above .05, of which the first 750.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeface import zoo
from edgeface.decode import decode, head_layout, nms
from edgeface.importing import import_weights
from edgeface.models.detector import FaceNet, deployable
from edgeface.models.s3fd import S3FDHead

Floats = NDArray[np.float32]
WIDTHS = (32, 48, 64)
CASES = ("synth", "synth_odd", "photo20", "photo488")
HEADS_ATOL, BOXES_ATOL_PX, SCORES_ATOL = 1e-5, 1e-4, 1e-6


@pytest.fixture(scope="module")
def released(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], FaceNet]:
    """The network of a width with its released weights, imported as a user imports them."""
    folder = tmp_path_factory.mktemp("weights")

    @cache
    def load(width: int) -> FaceNet:
        name, out = f"extd-fpn-{width}-prelu", folder / f"{width}.safetensors"
        import_weights([shared / f"weights/EXTD_{width}.safetensors"], name, out)
        return zoo.load_network(name, out)

    return load


def golden(shared: Path, width: int, case: str) -> tuple[Floats, dict[str, Floats]]:
    """RGB float32 [1, 3, H, W] and what the authors' network makes of it."""
    arrays = dict(np.load(shared / f"goldens/extd_{width}_{case}.npz"))
    if case.startswith("photo"):
        crop = {key.removeprefix("crop_"): value for key, value in arrays.items() if key.startswith("crop_")}
        return crop["rgb_hwc"].transpose(2, 0, 1)[None].astype(np.float32), crop
    image = np.load(shared / "goldens/synth_input.npz")["image_rgb_chw"][None]
    return (np.ascontiguousarray(image[:, :, :250, :317]) if case.endswith("odd") else image), arrays


def detections(net: torch.nn.Module, network: FaceNet, image: Floats) -> tuple[Floats, Floats]:
    """Boxes in px and scores of ``net``, after the authors' NMS."""
    layout = head_layout(network.architecture)
    with torch.no_grad():
        values = net(torch.from_numpy(image))
    heads = {name: np.ascontiguousarray(value.permute(0, 2, 3, 1).numpy())
             for name, value in zip(layout.output_names, values, strict=True)}
    boxes, scores = decode(heads, layout, 0.05, 5000)
    kept = nms(boxes, scores, 0.3)[:750]
    return boxes[kept], scores[kept]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", WIDTHS)
def test_raw_heads(width: int, case: str, shared: Path, released: Callable[[int], FaceNet]) -> None:
    net = released(width)
    image, expected = golden(shared, width, case)
    assert isinstance(net.head, S3FDHead)
    with torch.no_grad():
        normal = net.normalise(torch.from_numpy(image))
        levels = net.head.raw(net.neck(net.backbone(normal)))
        outputs = net(torch.from_numpy(image))
    assert len(levels) == 6
    for level, (loc, conf) in enumerate(levels):
        np.testing.assert_allclose(loc[0].numpy(), expected[f"loc{level}"], rtol=0, atol=HEADS_ATOL)
        np.testing.assert_allclose(conf[0].numpy(), expected[f"conf{level}"], rtol=0, atol=HEADS_ATOL)
        theirs = expected[f"conf{level}"]
        logit = theirs[-1] - theirs[:-1].max(0)  # their softmax of (background, face) is the sigmoid of this
        np.testing.assert_allclose(outputs[2 * level][0, 0].numpy(), logit, rtol=0, atol=2 * HEADS_ATOL)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", WIDTHS)
def test_detections(width: int, case: str, folded: bool, shared: Path, released: Callable[[int], FaceNet]) -> None:
    """One of ours for each of theirs: scores that differ by a rounding may change places in the list."""
    net = released(width)
    image, arrays = golden(shared, width, case)
    expected = arrays["det"]
    boxes, scores = detections(deployable(net) if folded else net, net, image)
    assert len(boxes) == len(expected)
    assert len(expected) or (width == 48 and case.startswith("synth")), "only the case of no face is empty"
    height, width_px = image.shape[2:]
    theirs = expected[:, 1:] * np.array((width_px, height) * 2, np.float32)
    taken: set[int] = set()
    for box, score in zip(theirs, expected[:, 0], strict=True):
        nearest = int(np.abs(boxes - box).max(1).argmin())
        np.testing.assert_allclose(boxes[nearest], box, rtol=0, atol=BOXES_ATOL_PX)
        np.testing.assert_allclose(scores[nearest], score, rtol=0, atol=SCORES_ATOL)
        taken.add(nearest)
    assert len(taken) == len(expected)
    assert np.all(np.diff(scores) <= 0)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_photos_have_faces(width: int, shared: Path, released: Callable[[int], FaceNet]) -> None:
    """That the comparison above is about faces."""
    net = released(width)
    image, _ = golden(shared, width, "photo20")
    assert detections(net, net, image)[1].max() > 0.9
