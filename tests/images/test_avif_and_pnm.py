"""AVIF and PNM files, of which OpenCV ignores a part of the header."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from edgeface.images.headers import Container, inspect
from edgeface.images.reading import decode_image, oriented

ORIENTATION = 0x0112


def off(found: Any, expected: Any) -> float:
    """Mean absolute difference in levels."""
    assert found.shape == expected.shape and found.dtype == np.uint8
    return float(np.abs(found.astype(int) - expected.astype(int)).mean())


def avif(image: Pillow.Image, **options: Any) -> bytes:
    try:
        buffer = io.BytesIO()
        image.save(buffer, "AVIF", quality=95, **options)
        return buffer.getvalue()
    except (KeyError, OSError):
        pytest.skip("Pillow writes no AVIF here")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_avif_is_shown_as_it_asks(astronaut: Any, mode: str, orientation: int) -> None:
    """Pillow stores an orientation as the properties irot and imir of the image."""
    upright = astronaut[:400, :300]
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    stored = oriented(upright, {6: 8, 8: 6}.get(orientation, orientation))
    image = Pillow.fromarray(stored).convert(mode)
    if mode == "RGBA":
        image.putalpha(254)
    assert off(decode_image(avif(image, exif=exif)), upright) < 4


@pytest.mark.parametrize("angle", range(4))
@pytest.mark.parametrize("axis", range(2))
def test_an_avif_is_turned_and_then_mirrored(astronaut: Any, angle: int, axis: int) -> None:
    stored = astronaut[:160, :120]
    exif = Pillow.Exif()
    exif[ORIENTATION] = 5  # needs both properties, irot and imir
    content = bytearray(avif(Pillow.fromarray(stored), exif=exif))
    content[content.index(b"irot") + 4] = angle
    content[content.index(b"imir") + 4] = axis
    shown = np.flip(np.rot90(stored, angle), axis)
    assert off(decode_image(bytes(content)), shown) < 5


def test_the_exif_block_of_an_avif_turns_nothing_twice(astronaut: Any) -> None:
    """OpenCV stores an orientation as properties and in the EXIF block, and applies the block's."""
    if not hasattr(cv2, "imencodeWithMetadata"):
        pytest.skip("this OpenCV writes no metadata")
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    block = np.frombuffer(exif.tobytes()[6:], np.uint8)
    bgr = astronaut[:160, :120, ::-1].copy()
    good, content = cv2.imencodeWithMetadata(".avif", bgr, [cv2.IMAGE_METADATA_EXIF], [block])
    assert good
    assert off(decode_image(content.tobytes()), oriented(astronaut[:160, :120], 6)) < 5


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_avif_of_every_depth_and_its_transparency(astronaut: Any, depth: int) -> None:
    alpha = np.full((512, 512), 255, np.uint8)
    alpha[:, :256] = 0
    bgra = np.dstack([astronaut[..., ::-1], alpha]).astype(np.uint16) << (depth - 8)
    bgra[bgra >= 255 << (depth - 8)] = (1 << depth) - 1
    stored = bgra.astype(np.uint8) if depth == 8 else bgra
    options = [cv2.IMWRITE_AVIF_QUALITY, 95, cv2.IMWRITE_AVIF_DEPTH, depth]
    for pixels in (stored, stored[..., :3].copy()):
        try:
            content = cv2.imencode(".avif", pixels, options)[1].tobytes()
        except cv2.error:
            pytest.skip("OpenCV has no encoder for AVIF here")
        found = decode_image(content)
        assert off(found[:, 264:], astronaut[:, 264:]) < 4
        if pixels.shape[2] == 4:
            assert (found[:, :248] == 255).all()


@pytest.mark.parametrize("kind", [2, 3, 5, 6])
@pytest.mark.parametrize("maximum", [1, 15, 100, 255, 256, 1023, 4095, 65535])
def test_pnm_of_every_maximum(kind: int, maximum: int) -> None:
    """Files in text and binary, grey and colour; OpenCV itself rounds levels down."""
    shape = (6, 8, 3) if kind in (3, 6) else (6, 8)
    values = np.random.default_rng(0).integers(0, maximum + 1, shape)
    binary = values.astype(">u2" if maximum > 255 else np.uint8).tobytes()
    body = binary if kind > 4 else (" ".join(map(str, values.ravel())) + "\n").encode()
    content = f"P{kind} # a comment\n8\n6\n{maximum}\n".encode() + body
    shown = np.broadcast_to((values * 255 / maximum).reshape(6, 8, -1), (6, 8, 3))
    assert np.abs(decode_image(content) - shown).max() <= 1


def test_pnm_beyond_its_maximum_is_white() -> None:
    assert decode_image(b"P5 1 1 100\n\xc8").tolist() == [[[255, 255, 255]]]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutated_avif_can_be_inspected(data: st.DataObject) -> None:
    box = b"\0\0\0\x09irot\3" + b"\0\0\0\x09imir\1" + b"\0\0\0\x0cav1C\x81\0\x40\0"
    content = bytearray(b"\0\0\0\x0cftypavif" + (8 + len(box)).to_bytes(4, "big") + b"ipco" + box)
    assert inspect(bytes(content)) == Container(orientation=5, maximum=1023)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(12, len(content) - 1))] = data.draw(st.integers(0, 255))
    inspect(bytes(content[: data.draw(st.integers(0, len(content)))]))
