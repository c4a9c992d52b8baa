"""Crops of photos without faces."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from edgeface.images.annotated import AnnotatedImage
from edgeface.training.augment import _crop
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.options import AugmentOptions, near


@pytest.fixture(scope="module")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Two photos of 640 x 480 px: one with a face of 30 x 120 px and one without faces."""
    folder = tmp_path_factory.mktemp("emptied")
    cv2.imwrite(str(folder / "face.png"), np.full((480, 640, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "none.png"), np.full((480, 640, 3), 90, np.uint8))
    boxes = np.array([[315, 170, 345, 290]], np.float32)
    images = [
        AnnotatedImage("face.png", boxes, np.zeros(1, bool)),
        AnnotatedImage("none.png", boxes[:0], np.zeros(0, bool)),
    ]
    return open_cache(folder / "cache", folder, images)


@pytest.mark.parametrize("options", [AugmentOptions(), near(AugmentOptions())])
def test_photos_without_faces_are_seen_at_all_scales_and_anywhere(
    emptied: Cache, options: AugmentOptions
) -> None:
    """Scales are spread evenly on a logarithmic axis within the limits of the options.

    Positions are spread evenly over all places where the crop lies inside the photo, or the photo
    inside the crop.
    """
    rand = torch.rand(16, 4000, generator=torch.Generator().manual_seed(1)).unbind(0)
    scale, origin = _crop(emptied, options, 320, torch.ones(4000, dtype=torch.long), rand)
    drawn = (scale / options.scale_low).log() / np.log(options.scale_high / options.scale_low)
    even = torch.linspace(0, 1, 4000)
    torch.testing.assert_close(drawn.sort().values, even, atol=0.03, rtol=0)
    slack = torch.tensor([640.0, 480]) - 320 / scale[:, None]
    placed = origin / slack
    for axis in range(2):
        torch.testing.assert_close(placed[:, axis].sort().values, even, atol=0.03, rtol=0)


def test_photos_without_faces_leave_the_crops_of_others_alone(emptied: Cache) -> None:
    """From the same draws, photos with a face get crops by the rule written out for one sample."""
    options, size = AugmentOptions(), 320
    rand = torch.rand(16, 200, generator=torch.Generator().manual_seed(2)).unbind(0)
    scales, origins = _crop(emptied, options, size, torch.arange(200) % 2, rand)
    for i in range(0, 200, 2):
        free, asked = (
            math.exp(math.log(low) + (math.log(high) - math.log(low)) * float(rand[1][i]))
            for low, high in ((options.scale_low, options.scale_high), (10 / 60, 0.9 * size / 60))
        )
        scale = asked if rand[2][i] < options.anchor_share else min(free, 0.9 * size / 60)
        scale = min(max(scale, 0.75 * options.scale_low), options.scale_high)
        assert float(scales[i]) == pytest.approx(scale, rel=1e-5)
        for axis, (centre, extent) in enumerate(((330, 640), (230, 480))):
            origin = centre - float(rand[3 + axis][i]) * size / scale
            slack = extent - size / scale
            origin = max(min(origin, max(slack, 0)), min(slack, 0))
            assert float(origins[i, axis]) == pytest.approx(origin, abs=1e-2)
