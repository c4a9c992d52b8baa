"""Light, colour, level of the pyramid and camera effects of crops, each against its formula."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgeface.images.annotated import AnnotatedImage
from edgeface.training.augment import _large, _roll
from edgeface.training.dataset import Cache, open_cache
from edgeface.training.degrade import DRAWS, compress, degrade, motion_blur, noise
from edgeface.training.options import AugmentOptions
from edgeface.training.render import changes, colour, light, source_of

YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
RGB = torch.tensor([[200.0, 90, 40]])
CAMERA = ("motion_share", motion_blur), ("noise_share", noise), ("compression_share", compress)
CLEAN = AugmentOptions(occlusion_share=0, noise_share=0, compression_share=0, motion_share=0)
NO_FACES = (torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0, dtype=torch.bool))


def each(*values: float) -> tuple[torch.Tensor, ...]:
    """One random number a kind, for a batch of one."""
    return tuple(torch.tensor([value]) for value in values)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One grey photo of 512 x 256 px with a face of 100 px."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    folder = tmp_path_factory.mktemp("grey")
    cv2.imwrite(str(folder / "a.png"), np.full((256, 512, 3), 90, np.uint8))
    box = np.array([[200, 60, 300, 160]], np.float32)
    return open_cache(folder / "cache", folder, [AnnotatedImage("a.png", box, np.zeros(1, bool))])


@pytest.mark.parametrize(
    ("scale", "blur", "level"),
    [
        (4.0, False, 0),
        (0.6, False, 0),
        (0.59, False, 1),
        (0.3, False, 1),
        (0.29, False, 2),
        (0.1, False, 2),
        (1.0, True, 1),
        (0.5, True, 2),
        (0.1, True, 2),
    ],
)
def test_a_level_is_taken_from_three_quarters_of_the_way_to_it(
    cache: Cache, scale: float, blur: bool, level: int
) -> None:
    """Level k has 2^-k of the photo's sides; it is taken for scales below 2^(.25 - k)."""
    place = torch.eye(2)[None] / scale, torch.zeros(1, 2)
    index, blurred = torch.zeros(1).long(), torch.tensor([blur])
    found = source_of(cache, index, torch.tensor([scale]), place, blurred)
    assert (int(found.width), int(found.height)) == (512 >> level, 256 >> level)
    torch.testing.assert_close(found.matrix, torch.eye(2)[None] / scale / 2**level)
    assert found.offset.tolist() == [[-0.5, -0.5]]


@pytest.mark.parametrize(
    ("strong", "weak", "gains"), [(0.0, 0.0, (0.15, 1.0)), (1.0, 1.0, (1.0, 1.5))]
)
@pytest.mark.parametrize("angle", [0.0, 0.25, 0.5])
def test_light_falls_across_the_crop(
    strong: float, weak: float, gains: tuple[float, float], angle: float
) -> None:
    """Over half a crop to each side of the centre, along the angle, from one gain to the other."""
    size, options = 64, AugmentOptions(light_share=0.5)
    bend, level, right, down = light(options, size, each(0.4, strong, weak, angle, 1.0))[0].tolist()
    turn = 2 * math.pi * angle
    for away, gain in zip((-size / 2, size / 2), gains, strict=True):
        x, y = size / 2 + away * math.cos(turn), size / 2 + away * math.sin(turn)
        assert level + right * x + down * y == pytest.approx(gain, abs=1e-5)
    assert bend == 1
    assert light(options, size, each(0.5, strong, weak, angle, 1.0)).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("turn", [0.0, 0.25, 1.0])
def test_hue_turns_the_chroma(turn: float) -> None:
    """In YIQ the brightness stays, and I and Q turn by up to the angle asked for."""
    options = AugmentOptions(hue_degrees=60, grey_share=0)
    matrix, offset = colour(options, each(turn, 0.5, 0.5, 0.5, 0.5))
    before, after = YIQ @ RGB[0].numpy(), YIQ @ (RGB @ matrix[0] + offset[0])[0].numpy()
    assert after[0] == pytest.approx(before[0], abs=0.5)
    assert math.hypot(*after[1:]) == pytest.approx(math.hypot(*before[1:]), rel=0.01)
    angle = math.degrees(math.atan2(after[2], after[1]) - math.atan2(before[2], before[1]))
    assert angle == pytest.approx(60 * (2 * turn - 1), abs=0.5)


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.6), (0.5, 1.0), (1.0, 1.4)])
def test_saturation_stretches_colours_from_their_grey(draw: float, factor: float) -> None:
    options = AugmentOptions(saturation=0.4, grey_share=0.1)
    grey = float(0.299 * RGB[0, 0] + 0.587 * RGB[0, 1] + 0.114 * RGB[0, 2])
    for switch, much in ((0.2, factor), (0.05, 0.0)):  # below grey_share nothing but grey is left
        matrix, offset = colour(options, each(0.5, draw, switch, 0.5, 0.5))
        torch.testing.assert_close(
            RGB @ matrix[0] + offset[0], grey + much * (RGB - grey), atol=0.1, rtol=0
        )


def test_brightness_is_added_and_contrast_multiplies() -> None:
    options = AugmentOptions(brightness=32, contrast=0.25, grey_share=0)
    for bright, much in ((0.0, 0.0), (1.0, 0.5), (0.5, 1.0)):
        matrix, offset = colour(options, each(0.5, 0.5, 0.5, much, bright))
        want = RGB * (1 + 0.25 * (2 * much - 1)) + 32 * (2 * bright - 1)
        torch.testing.assert_close(RGB @ matrix[0] + offset[0], want, atol=0.1, rtol=0)


def test_each_colour_change_has_a_switch_of_its_own() -> None:
    draws = each(0.1, 0.2, 0.3, 0.4, 0.6)  # hue, saturation, grey, contrast, brightness
    for on in range(4):
        switches = each(*(0.2 if i == on else 0.7 for i in range(4)))
        found = [float(value) for value in changes(0.5, draws, switches)]
        want = [0.5, 0.5, 0.3, 0.5, 0.5]
        place = (0, 1, 3, 4)[on]
        want[place] = float(draws[place])
        assert found == pytest.approx(want)


def test_turns_are_squares_of_the_draw() -> None:
    """A draw of .75 is half way to the right, and turns by a quarter of the largest turn."""
    options = AugmentOptions(roll_share=0.25, roll_degrees=80)
    for draw, degrees in ((0.0, -80), (0.25, -20), (0.5, 0), (0.75, 20), (1.0, 80)):
        assert float(_roll(options, each(0.2, draw))) == pytest.approx(math.radians(degrees))
        assert float(_roll(options, each(0.3, draw))) == 0


@pytest.mark.parametrize(("largest", "scale"), [(2.57, 2.56), (2.55, 0.7)])
@pytest.mark.parametrize("tall", [False, True])
def test_a_small_face_is_not_enlarged_further_than_asked(
    cache: Cache, largest: float, scale: float, tall: bool
) -> None:
    """256 px for a face of 100 px; its centre lies anywhere in the middle half of the crop.

    One of 50 x 200 px counts as one of 100 px.
    """
    if tall:
        cache = dataclasses.replace(cache, boxes=torch.tensor([[225.0, 10, 275, 210]]))
    options = dataclasses.replace(
        AugmentOptions(), large_share=1.0, large_low=1.0, large_high=1.0, large_scale=largest
    )
    plain, corner = torch.tensor([0.7]), torch.tensor([[3.0, 4.0]])
    found, origin = _large(
        cache, options, 256, torch.zeros(1).long(), each(0.5, 0.5, 0.0, 1.0), plain, corner
    )
    assert float(found) == pytest.approx(scale)
    if scale > 1:
        corner = torch.tensor([[250.0, 110]]) - torch.tensor([[64.0, 192]]) / scale
    torch.testing.assert_close(origin, corner)


@pytest.mark.parametrize(("strength", "deviation"), [(0.0, 4.0), (0.5, 10.5), (1.0, 30.0)])
def test_noise_has_its_deviation(strength: float, deviation: float) -> None:
    found = noise(torch.full((128, 128, 3), 127.5), strength, 0.4)
    assert float(found.std()) == pytest.approx(deviation, rel=0.02)
    assert abs(float(found.mean()) - 127.5) < 0.5


@pytest.mark.parametrize("upright", [False, True])
def test_motion_spreads_a_dot_along_a_line(upright: bool) -> None:
    """Seven copies from -4 to 4 px, that is at -4, -2.7, -1.3, 0, ... in whole px."""
    image = torch.zeros(33, 33, 3)
    image[16, 16] = 70
    blurred = motion_blur(image, 0.625, 0.5 if upright else 0.0)
    line = blurred[:, 16, 0] if upright else blurred[16, :, 0]
    want = {16 + step: 10.0 for step in (-4, -3, -1, 0, 1, 3, 4)}
    torch.testing.assert_close(line, torch.tensor([want.get(i, 0.0) for i in range(33)]))
    assert float(blurred.sum()) == pytest.approx(3 * 70)


@pytest.mark.parametrize(("left", "hidden"), [(34.0, False), (30.0, False), (28.0, True)])
def test_a_face_is_hidden_if_more_than_six_tenths_are_covered(left: float, hidden: bool) -> None:
    """The cover ends at x = 54; the other face is 40 px wide and begins at ``left``.

    The other one is ignored, so that it is never the one that is covered on purpose.
    """
    boxes = torch.tensor([[left, 50, left + 40, 60], [20.0, 20, 100, 120]])
    draws = torch.zeros(1, DRAWS)
    draws[0, 2] = 0.5  # the left 42.5 % of the large face
    options = dataclasses.replace(CLEAN, occlusion_share=0.5)
    found = degrade(
        torch.zeros(2, 128, 128, 3),
        boxes.repeat(2, 1),
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([True, False, True, False]),
        options,
        draws.repeat(2, 1),
    )
    assert found.tolist() == [hidden, False, hidden, False]


@pytest.mark.parametrize("texture", [0.4, 0.6])
def test_a_cover_has_one_colour_or_also_shows_the_mirrored_face(texture: float) -> None:
    """The upper 25 % of the second face that may be covered: 48 x 14 px with the margin.

    The third of the faces is ignored. Colours are the fractions of 1, 61 and 3539 times a draw.
    """
    before = torch.rand(128, 128, 3, generator=torch.Generator().manual_seed(0)) * 255
    boxes = torch.tensor([[4.0, 4, 14, 14], [70, 70, 110, 110], [0, 60, 40, 120]])
    draws = torch.zeros(1, DRAWS)
    draws[0, :6] = torch.tensor([0.4, 0.6, 0.0, 0.3, 0.37, texture])
    images, ignore = before[None].clone(), torch.tensor([False, False, True])
    options = dataclasses.replace(CLEAN, occlusion_share=0.5)
    hidden = degrade(images, boxes, torch.zeros(3).long(), ignore, options, draws)
    assert not hidden.any()
    colours = torch.tensor([0.37, 61 * 0.37 - 22, 3539 * 0.37 - 1309]) * 255
    want = before.clone()
    for y in range(66, 80):
        for x in range(66, 114):
            mirrored = before[y, 66 + 113 - x]
            want[y, x] = colours if texture < 0.5 else 0.7 * colours + 0.3 * mirrored
    torch.testing.assert_close(images[0], want, atol=0.1, rtol=0)


@pytest.mark.parametrize("which", range(3))
def test_each_effect_of_a_camera_has_a_share_and_draws_of_its_own(
    astronaut: np.ndarray, which: int
) -> None:
    """Draws of an effect that is not asked for, and of another photo, change nothing."""
    photos = torch.from_numpy(np.stack([astronaut[:96, 200:296], astronaut[200:296, :96]])).float()
    draws = torch.zeros(2, DRAWS)
    draws[0, 6 * which + 6 :][:3] = torch.tensor([0.4, 0.3, 0.8])
    draws[1, 6 * which + 6] = 0.6
    name, change = CAMERA[which]
    share: dict[str, Any] = {name: 0.5}
    images = photos.clone()
    degrade(images, *NO_FACES, dataclasses.replace(CLEAN, **share), draws)
    assert images[1].equal(photos[1])
    assert images[0].equal(change(photos[0], 0.3, 0.8)) and not images[0].equal(photos[0])


def test_noise_is_cut_from_one_place_of_a_fixed_bank() -> None:
    """A draw of 167 / 32^2 is row 5, column 7. No noise leaves the grey levels that there are."""
    grey = torch.full((32, 32, 3), 128.0)
    first, moved = (noise(grey, 0.0, place / 32**2) for place in (0, 5 * 32 + 7))
    assert moved[:-5, :-7].equal(first[5:, 7:])
    for side in range(8, 16):  # more banks than are kept
        noise(torch.zeros(side, side, 3), 0.0, 0.0)
    assert noise(grey, 0.0, 0.0).equal(first), "made again, it is the same"
    for level in (0.0, 255.0):
        loud = noise(torch.full((32, 32, 3), level), 1.0, 0.0)
        assert loud.min() >= 0 and loud.max() <= 255


@pytest.mark.parametrize(("strength", "quality"), [(0.0, 10), (0.5, 30), (1.0, 50)])
def test_compression_takes_red_for_red(
    astronaut: np.ndarray, strength: float, quality: int
) -> None:
    """Compression equals Pillow's JPEG encoder to below a grey level on average.

    Blue, of which JPEG keeps less, has a larger error than red.
    """
    coded = io.BytesIO()
    Image.fromarray(astronaut).save(coded, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(coded), np.float32)
    found = compress(torch.from_numpy(astronaut.astype(np.float32)), strength, 0.0).numpy()
    assert np.abs(found - expected).mean() < 1
    red, _, blue = np.abs(found - astronaut).mean((0, 1))
    assert blue > red
