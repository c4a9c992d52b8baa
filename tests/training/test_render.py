"""Where the photo lies in a crop and in its pyramid, against positions worked out in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from edgeface.images.annotated import AnnotatedImage
from edgeface.training.augment import View, _warp
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.options import AugmentOptions
from edgeface.training.render import UNLIT, CropLook, CropSource, gathered, source_of, warped

SIZE, CROPS = 96, 60
GREY = 90
WARPED = AugmentOptions(stretch_share=0.7)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One grey photo of 403 x 301 px, whose sides are not halved exactly."""
    folder = tmp_path_factory.mktemp("odd")
    cv2.imwrite(str(folder / "a.png"), np.full((301, 403, 3), GREY, np.uint8))
    box = np.array([[200, 60, 300, 160]], np.float32)
    return open_cache(folder / "cache", folder, [AnnotatedImage("a.png", box, np.zeros(1, bool))])


def drawn(cache: Cache) -> tuple[View, CropSource]:
    """Warped, turned and mirrored crops, .15 to 2 crop px per photo px, most across an edge."""
    draw = torch.rand(6, CROPS, generator=torch.Generator().manual_seed(5))
    scale = 0.15 * (2 / 0.15) ** draw[0]
    centre = torch.stack([403 * draw[1], 301 * draw[2]], 1)
    origin, warp = centre - SIZE / 2 / scale[:, None], _warp(WARPED, draw.T[:, 1:5])
    view = View(SIZE, scale, origin, 3 * draw[3], draw[4] < 0.5, warp)
    return view, source_of(cache, torch.zeros(CROPS).long(), scale, view.to_photo(), draw[5] < 0.3)


def test_corners_of_the_photo_are_those_of_its_levels(cache: Cache) -> None:
    """In a level, whose first pixel has its centre at 0, they are at -.5 and width or height - .5.

    The crop px of a corner comes from the way back, that of boxes and landmarks.
    """
    view, source = drawn(cache)
    assert {int(width) for width in source.width} == {403, 201, 100}
    corners = torch.tensor([[0.0, 0], [403, 0], [0, 301], [403, 301]])
    for i in range(CROPS):
        crop = view.points(corners[None], torch.tensor([i]))[0].double()
        level = crop @ source.matrix[i].double().T + source.offset[i].double()
        x, y = float(source.width[i]) - 0.5, float(source.height[i]) - 0.5
        expected = torch.tensor([[-0.5, -0.5], [x, -0.5], [-0.5, y], [x, y]]).double()
        torch.testing.assert_close(level, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("way", ["opencv", "torch"])
def test_a_crop_is_black_beyond_the_photo_and_nowhere_else(cache: Cache, way: str) -> None:
    """Pixels within 1/16 px of the photo's edge may be either: OpenCV rounds positions to 1/32."""
    render: Callable[[CropSource, CropLook], torch.Tensor] = {
        "opencv": lambda source, look: warped(cache.pixels, source, look, SIZE),
        "torch": lambda source, look: gathered(cache.pixels, source, look, SIZE, compiled=False),
    }[way]
    _, source = drawn(cache)
    look = CropLook(
        torch.eye(3).repeat(CROPS, 1, 1), torch.zeros(CROPS, 1, 1), torch.tensor([UNLIT] * CROPS)
    )
    images = render(source, look).numpy()
    whole, seen = 0, 0.0
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    for i in range(CROPS):
        (a, b), (c, d) = source.matrix[i].double().numpy()
        u, v = source.offset[i].double().numpy()
        u, v = u + a * x + b * y, v + c * x + d * y
        last_u, last_v = float(source.width[i]) - 1, float(source.height[i]) - 1
        depth = np.minimum.reduce([u + 0.5, last_u + 0.5 - u, v + 0.5, last_v + 0.5 - v])
        clear = np.abs(depth) > 1 / 16
        expected = np.where(depth > 0, GREY, 0)[..., None]
        assert np.abs(images[i] - expected)[clear].max() <= 1
        whole += bool((depth > 0).all())
        seen += float((depth > 0).mean()) / CROPS
    assert 3 <= whole <= CROPS - 20 and 0.3 < seen < 0.9
