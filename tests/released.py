"""Networks with the weights that their authors released, and outputs of the authors' own program
for some images.

The program's detections are the first 750 of greedy NMS at an IoU of .3 over the best 5000 boxes
that score above .05.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeface import zoo
from edgeface.decode import decode, head_layout, nms
from edgeface.detections import Detections
from edgeface.models.detector import FaceNet
from edgeface.models.s3fd import S3FDHead
from edgeface.types import Doubles
from edgeface.zoo.importing import import_weights

FILES = {f"extd-fpn-{width}-prelu": f"EXTD_{width}" for width in (32, 48, 64)} | {
    "eresfd-16": "eresfd_16"
}
CASES = ("synth", "synth_odd", "photo20", "photo488")
SCORE_THRESHOLD, NMS_IOU, TOP_K = 0.05, 0.3, 750


def released(name: str, shared: Path, folder: Path) -> FaceNet:
    """The network with its released weights, imported into ``folder`` as a user imports them."""
    out = folder / f"{name}.safetensors"
    import_weights([shared / f"weights/{FILES[name]}.safetensors"], name, out)
    return zoo.load_network(name, out)


def golden(name: str, case: str, shared: Path) -> tuple[Doubles, dict[str, Doubles]]:
    """RGB float32 [1, 3, H, W] and the authors' outputs for it: loc0 ... conf5, det."""
    arrays = dict(np.load(shared / f"goldens/{FILES[name].lower()}_{case}.npz"))
    if case.startswith("photo"):
        crop = {
            key.removeprefix("crop_"): value
            for key, value in arrays.items()
            if key.startswith("crop_")
        }
        return crop["rgb_hwc"].transpose(2, 0, 1)[None].astype(np.float32), crop
    image = np.load(shared / "goldens/synth_input.npz")["image_rgb_chw"][None]
    return (
        np.ascontiguousarray(image[:, :, :250, :317]) if case.endswith("odd") else image
    ), arrays


def detections(
    net: FaceNet, image: NDArray[Any], score_threshold: float = SCORE_THRESHOLD
) -> Detections:
    """Detections of ``net`` in RGB float32 [1, 3, H, W] after the authors' NMS, in px."""
    layout = head_layout(net.architecture)
    with torch.inference_mode():
        values = net(torch.from_numpy(image))
    heads = {
        name: np.ascontiguousarray(value.permute(0, 2, 3, 1).numpy())
        for name, value in zip(layout.output_names, values, strict=True)
    }
    boxes, scores, _ = decode(heads, layout, score_threshold, 5000)
    kept = nms(boxes, scores, NMS_IOU)[:TOP_K]
    return Detections(boxes[kept], scores[kept])


def assert_same_heads(
    net: FaceNet, image: Doubles, expected: dict[str, Doubles], atol: float
) -> None:
    """Check that the raw outputs of each level equal the authors', and that our logit follows from
    theirs."""
    assert isinstance(net.head, S3FDHead)
    with torch.inference_mode():
        pixels = torch.from_numpy(image)
        levels = net.head.raw(net.neck(net.backbone(net.normalise(pixels))))
        outputs = net(pixels)
    assert len(levels) == 6
    for level, (loc, conf) in enumerate(levels):
        theirs = expected[f"conf{level}"]
        np.testing.assert_allclose(loc[0].numpy(), expected[f"loc{level}"], rtol=0, atol=atol)
        np.testing.assert_allclose(conf[0].numpy(), theirs, rtol=0, atol=atol)
        logit = theirs[-1] - theirs[:-1].max(
            0
        )  # their softmax of (background, face) is the sigmoid of this
        np.testing.assert_allclose(outputs[2 * level][0, 0].numpy(), logit, rtol=0, atol=2 * atol)


def assert_same_detections(
    found: Detections, boxes: Doubles, scores: Doubles, box_px: float, score: float
) -> None:
    """Check for a one-to-one match of ``found`` and the authors' detections. The order may differ
    where scores differ only by rounding."""
    assert len(found) == len(boxes)
    assert np.all(np.diff(found.scores) <= 0)
    apart = np.maximum(
        np.abs(found.boxes[None] - boxes[:, None]).max(2) / box_px,
        np.abs(found.scores[None] - scores[:, None]) / score,
    )
    nearest = apart.argmin(1) if len(boxes) else np.zeros(0, np.intp)
    assert len(set(nearest.tolist())) == len(boxes)
    np.testing.assert_allclose(found.boxes[nearest], boxes, rtol=0, atol=box_px)
    np.testing.assert_allclose(found.scores[nearest], scores, rtol=0, atol=score)
