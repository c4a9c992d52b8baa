"""10,000 damaged images, read as `detect` and `eval` read photos: a picture or one line.

There is never a crash or a hang, nor is all of the memory taken."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import Command, said
from mutations import mutated_image
from workers_apart import apart

from edgeface.errors import EdgefaceError
from edgeface.images.reading import read_image

SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".gif", ".tif")
EACH = 1667
SIDE_PX = 160
THROUGH_THE_COMMAND = 40
"""images of each kind that also go through the command"""
PEAK_BYTES = 2 << 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, astronaut: Any, hopper_path: Path) -> Path:
    """Small copies of the two portraits in every mutated format, in several variants each."""
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    folder = tmp_path_factory.mktemp("whole")
    astronaut = pillow.fromarray(astronaut).resize((SIDE_PX, SIDE_PX))
    hopper = pillow.open(hopper_path).convert("RGB").resize((SIDE_PX - 31, SIDE_PX))
    turned = astronaut.getexif()
    turned[0x0112] = 6
    forms = {
        ".jpg": ({}, {"progressive": True}, {"exif": turned, "restart_marker_blocks": 4}),
        ".png": ({}, {"exif": turned}, {"compress_level": 0}),
        ".webp": ({}, {"lossless": True, "exif": turned}),
        ".bmp": ({},),
        ".gif": ({}, {"save_all": True, "append_images": [hopper]}),
        ".tif": ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"exif": turned}),
    }
    assert tuple(forms) == SUFFIXES
    for suffix, options in forms.items():
        for i, option in enumerate(options):
            astronaut.save(folder / f"astronaut-{i}{suffix}", **option)
        hopper.save(folder / f"hopper{suffix}")
    for suffix, mode in (
        (".jpg", "CMYK"),
        (".jpg", "L"),
        (".png", "P"),
        (".png", "RGBA"),
        (".png", "1"),
        (".webp", "RGBA"),
        (".bmp", "P"),
        (".tif", "L"),
        (".tif", "RGBA"),
    ):
        hopper.convert(mode).save(folder / f"mode-{mode}{suffix}")
    deep = (np.asarray(hopper).astype(np.uint16) << 8)[..., ::-1]
    for suffix in (".png", ".tif"):
        (folder / f"deep{suffix}").write_bytes(cv2.imencode(suffix, deep)[1].tobytes())
    return folder


def test_what_is_mutated_is_whole(whole: Path) -> None:
    assert all(max(read_image(path).shape) == SIDE_PX for path in whole.iterdir())


def test_another_seed_is_another_file(whole: Path) -> None:
    sources = [path.read_bytes() for path in sorted(whole.iterdir())]
    found = {mutated_image(sources, sources, random.Random(seed)) for seed in range(200)}
    assert len(found) > 190 and not found & {*sources}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_one_is_a_picture_or_one_line(suffix: str, whole: Path, tmp_path: Path) -> None:
    found = apart("read_mutated.py", whole, suffix, SUFFIXES.index(suffix) * EACH, EACH, tmp_path)
    print(suffix, found)
    assert found["pictures"] + found["refused"] == EACH
    assert found["pictures"] > EACH // 100 and found["refused"] > EACH // 5, "both ends are reached"
    assert found["peak_bytes"] < PEAK_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_command_reads_on(edgeface: Command, suffix: str, whole: Path, tmp_path: Path) -> None:
    sources = [path.read_bytes() for path in sorted(whole.glob(f"*{suffix}"))]
    for seed in range(THROUGH_THE_COMMAND):
        content = mutated_image(sources, sources, random.Random(seed))
        (tmp_path / f"{seed:02}{suffix}").write_bytes(content)
    readable = sum(map(_readable, tmp_path.iterdir()))
    code, out, err = edgeface("detect", tmp_path, "--format", "jsonl")
    assert code == 2 and out.count("\n") == readable
    assert f"{THROUGH_THE_COMMAND - readable} of {THROUGH_THE_COMMAND} inputs" in said(err)[-1]
    assert len(said(err)) == THROUGH_THE_COMMAND - readable + 1


def _readable(path: Path) -> bool:
    try:
        read_image(path)
    except EdgefaceError:
        return False
    return True
