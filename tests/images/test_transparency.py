"""Transparent pixels of TIFF, BMP and GIF are laid over white, as in PNG and as viewers do."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from edgeface.images.reading import decode_image

VERSION = tuple(int(part) for part in cv2.__version__.split(".")[:2])
EXTRA_SAMPLES, ORIENTATION = 338, 274
UNDONE = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_90,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_270,
}
"""orientation -> the transposition that makes its stored pixels from upright ones"""
STRAIGHT = struct.pack("<HHIHH", EXTRA_SAMPLES, 3, 1, 2, 0)


@pytest.fixture
def cut_out(astronaut: Any) -> Pillow.Image:
    """A photo with a transparent left part and a half-transparent strip beside it."""
    alpha = np.full((512, 512), 255, np.uint8)
    alpha[:, :250] = 0
    alpha[:, 250:256] = 128
    return Pillow.fromarray(np.dstack([astronaut, alpha]))


def saved(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def over_white(image: Pillow.Image) -> Any:
    image = image.convert("RGBA")
    white = Pillow.new("RGBA", image.size, "white")
    return np.asarray(Pillow.alpha_composite(white, image).convert("RGB")).astype(int)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_tiff(cut_out: Pillow.Image, compression: str | None) -> None:
    found = decode_image(saved(cut_out, "TIFF", compression=compression))
    assert np.abs(found - over_white(cut_out)).max() <= 1
    assert (found[:, :250] == 255).all()


def test_tiff_whose_colours_were_multiplied(cut_out: Pillow.Image) -> None:
    wanted = over_white(cut_out)
    pixels = np.array(cut_out).astype(int)
    pixels[..., :3] = (pixels[..., :3] * pixels[..., 3:] + 127) // 255
    content = saved(Pillow.fromarray(pixels.astype(np.uint8)), "TIFF")
    assert content.count(STRAIGHT) == 1
    multiplied = content.replace(STRAIGHT, struct.pack("<HHIHH", EXTRA_SAMPLES, 3, 1, 1, 0))
    assert np.abs(decode_image(multiplied) - wanted).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_that_is_turned(cut_out: Pillow.Image, orientation: int, bits: int) -> None:
    upright = cut_out.crop((100, 0, 400, 200))
    stored = np.array(upright.transpose(UNDONE[orientation])) if orientation > 1 else upright
    pixels = np.array(stored).astype(np.uint16) * 257 if bits == 16 else np.array(stored)
    buffer = io.BytesIO()
    tag = (ORIENTATION, 3, 1, orientation, True)
    tifffile.imwrite(
        buffer, pixels, photometric="rgb", extrasamples=["unassalpha"], extratags=[tag]
    )
    found = decode_image(buffer.getvalue())
    assert np.abs(found - over_white(upright)).max() <= 1


def test_fourth_sample_that_is_no_alpha(cut_out: Pillow.Image, astronaut: Any) -> None:
    """OpenCV's own TIFFs do not state what the fourth sample is."""
    bgra = np.array(cut_out)[..., [2, 1, 0, 3]]
    for pixels in (bgra, bgra.astype(np.uint16) * 257):
        content = cv2.imencode(".tif", pixels)[1].tobytes()
        assert (decode_image(content) == astronaut).all()


def test_bmp_with_a_mask_for_alpha_and_without(cut_out: Pillow.Image, astronaut: Any) -> None:
    masked = cv2.imencode(".bmp", np.array(cut_out)[..., [2, 1, 0, 3]])[1].tobytes()
    assert np.abs(decode_image(masked) - over_white(cut_out)).max() <= 1
    assert (decode_image(saved(cut_out, "BMP")) == astronaut).all()


@pytest.mark.skipif(VERSION < (4, 11), reason="OpenCV reads GIF from 4.11 on")
def test_gif(cut_out: Pillow.Image) -> None:
    opaque = saved(cut_out.convert("RGB"), "GIF")
    for content in (saved(cut_out, "GIF"), opaque):
        shown = Pillow.open(io.BytesIO(content))
        assert np.abs(decode_image(content) - over_white(shown)).max() == 0
