"""Photos that are damaged inside, and headers that claim more pixels than fit in memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from edgeface.errors import ImageError
from edgeface.images.reading import decode_image, read_image
from edgeface.images.scaling import _parts, resized
from edgeface.images.silence import listening, opencv_quiet
from edgeface.images.sizes import stated_size
from edgeface.quiet import quiet

CASES = ("zeroblock4k", "zero_to_end", "cut_plus_eoi", "first_cut_second_whole")


def jpeg(photo: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(photo).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", CASES)
def test_a_photo_that_is_damaged_inside_is_refused(shared: Path, name: str) -> None:
    path = shared / "cases" / "images" / f"{name}.jpg"
    if not path.is_file():
        pytest.skip("the shared cases are not there")
    with pytest.raises(ImageError, match=rf"{name}\.jpg: the image is truncated or damaged"):
        read_image(path)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"quality": 95}])
def test_zeros_anywhere_in_a_scan_are_damage(astronaut: Any, options: dict[str, Any]) -> None:
    whole = jpeg(astronaut, **options)
    assert decode_image(whole).shape == (512, 512, 3)
    for share in (0.2, 0.3, 0.5, 0.6, 0.7, 0.8):
        at = int(share * len(whole))
        with pytest.raises(ImageError, match="damaged"):
            decode_image(whole[:at] + bytes(4096) + whole[at + 4096 :])


@pytest.mark.parametrize("padding", [bytes(8), bytes(3000), b"\x01\x02", b"\xff" * 300])
def test_padding_before_the_end_is_no_damage(astronaut: Any, padding: bytes) -> None:
    whole = jpeg(astronaut)
    padded = whole[:-2] + padding + whole[-2:]
    assert np.array_equal(decode_image(padded), decode_image(whole))


def test_padding_is_sought_behind_the_photo_not_its_thumbnail(astronaut: Any) -> None:
    """Cameras pad before the end of a photo, whose EXIF thumbnail is a JPEG with its own end."""
    thumbnail = b"Exif\0\0" + jpeg(resized(astronaut, 64, 64))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = jpeg(astronaut)
    padded = whole[:2] + segment + whole[2:-2] + b"\x20" * 100 + whole[-2:]
    assert np.array_equal(decode_image(padded), decode_image(whole))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("value", [0, 255])
def test_a_flat_image_is_whole(options: dict[str, Any], value: int) -> None:
    flat = np.full((2000, 3000, 3), value, np.uint8)
    flat[900:1000, 900:1000] = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    assert decode_image(jpeg(flat, **options)).shape == flat.shape


def test_what_others_say_meanwhile_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as heard:
        os.write(2, b"a line of the program's\nCorrupt JPEG data: premature end of data segment\n")
    assert heard.tells_damage(b"")
    assert capfd.readouterr().err == "a line of the program's\n"
    with pytest.raises(MemoryError), listening():
        os.write(2, b"another\n")
        raise MemoryError
    assert capfd.readouterr().err == "another\n"


def test_a_png_that_is_damaged_below_its_checksums_says_nothing_on_stderr(
    astronaut: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """libpng would print a message there. Pillow writes one IDAT chunk, so one CRC is corrected."""
    buffer = io.BytesIO()
    Pillow.fromarray(astronaut[:64, :64]).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"IDAT")
    (size,) = struct.unpack_from(">I", data, at - 4)
    data[at + 4 + size // 2] ^= 0x55
    struct.pack_into(">I", data, at + 4 + size, zlib.crc32(data[at : at + 4 + size]))
    with pytest.raises(ImageError, match="damaged"):
        decode_image(bytes(data))
    assert capfd.readouterr().err == ""


def test_without_a_stderr_damage_is_heard_all_the_same(astronaut: Any, tmp_path: Path) -> None:
    content = jpeg(astronaut)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(content[:9000] + b"\xff\xd9")
    program = (
        "import os, sys; os.close(2); from edgeface.images import read_image\n"
        "try:\n    read_image(sys.argv[1])\nexcept Exception as error:\n    print(error)\n"
    )
    arguments = [sys.executable, "-c", program, str(cut)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    assert "damaged inside" in done.stdout


def test_threads_hear_each_their_own(astronaut: Any) -> None:
    whole = jpeg(astronaut)
    cut = whole[:9000] + bytes(4096) + whole[13096:]
    wrong: list[str] = []

    def read(content: bytes, good: bool) -> None:
        for _ in range(20):
            try:
                decode_image(content)
                found = True
            except ImageError:
                found = False
            if found is not good:
                wrong.append(f"{good} {found}")

    threads = [threading.Thread(target=read, args=pair) for pair in ((whole, True), (cut, False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_damage_is_heard_beside_a_load(astronaut: Any) -> None:
    """Another thread redirects stderr to nowhere, before and while the photo is decoded."""
    cut = jpeg(astronaut)[:9000] + b"\xff\xd9"
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            with quiet():
                time.sleep(0.0005)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(50):
            with pytest.raises(ImageError, match="damaged inside"):
                decode_image(cut)
    finally:
        ended.set()
        thread.join()


def test_damage_that_a_camera_tells_is_not_the_photos(astronaut: Any) -> None:
    """OpenCV reports damaged webcam frames on stderr, from the thread that reads the camera."""
    whole = jpeg(astronaut)
    frame = np.frombuffer(jpeg(astronaut[:240, :320])[:4000] + b"\xff\xd9", np.uint8)
    ended = threading.Event()

    def camera() -> None:
        while not ended.is_set():
            cv2.imdecode(frame, cv2.IMREAD_COLOR)
            time.sleep(0.02)

    thread = threading.Thread(target=camera)
    thread.start()
    try:
        for _ in range(50):
            assert decode_image(whole).shape == astronaut.shape
    finally:
        ended.set()
        thread.join()


def test_a_program_that_is_started_while_a_photo_is_decoded_may_go_on_speaking() -> None:
    with listening() as heard:
        child = subprocess.Popen(["sh", "-c", "echo 1 >&2; read line; echo 2 >&2; exit 7"],
                                 stdin=subprocess.PIPE)  # fmt: skip
        until = time.monotonic() + 5
        while not os.fstat(2).st_size and time.monotonic() < until:
            time.sleep(0.01)
    child.communicate(b"go on\n")
    assert child.returncode == 7 and heard.text == b"1\n"


def test_a_process_that_is_forked_while_a_photo_is_decoded_can_decode(
    astronaut: Any, tmp_path: Path
) -> None:
    """The child process has its own lock and stderr, and OpenCV's log level from before."""
    (tmp_path / "a.jpg").write_bytes(jpeg(astronaut))
    program = """
import os, sys, threading, time, cv2
from edgeface.images import read_image
from edgeface.images.silence import listening, opencv_quiet
inside, logging, before = threading.Event(), cv2.utils.logging, os.fstat(2)
level = logging.getLogLevel()
def decode():
    with opencv_quiet():
        with listening():
            inside.set()
            time.sleep(0.3)
        time.sleep(0.3)
threading.Thread(target=decode).start()
inside.wait()
child = os.fork()
assert os.path.samestat(os.fstat(2), before)
if child == 0:
    assert logging.getLogLevel() == level != logging.LOG_LEVEL_SILENT
    read_image(sys.argv[1])
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "a.jpg")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=20)
    assert done.stdout == "7\n", done.stderr


def test_two_threads_put_back_what_opencv_says() -> None:
    before = cv2.utils.logging.getLogLevel()
    first, second = opencv_quiet(), opencv_quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT
    second.__exit__(None, None, None)
    assert cv2.utils.logging.getLogLevel() == before != cv2.utils.logging.LOG_LEVEL_SILENT


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".webp", ".tiff", ".ppm",
                                    ".pgm", ".jp2", ".avif"])  # fmt: skip
def test_the_stated_size_is_that_of_the_pixels(suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 52, 3), np.uint8)
    try:
        good, content = cv2.imencode(suffix, pixels[..., 0] if suffix == ".pgm" else pixels)
    except cv2.error:
        good = False
    if not good:
        pytest.skip(f"OpenCV has no encoder for {suffix} here")
    assert stated_size(content.tobytes()) == (52, 37)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 80}),
        ("WEBP", {"quality": 80, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("JPEG", {"progressive": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
    ],
)
def test_the_stated_size_of_other_encoders(kind: str, options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    Pillow.new("RGB", (52, 37), "red").save(buffer, kind, **options)
    assert stated_size(buffer.getvalue()) == (52, 37)


BOMBS = {
    "gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
    "bmp": b"BM" + bytes(12) + (40).to_bytes(4, "little") + (60000).to_bytes(4, "little") * 2,
    "ppm": b"P6 # a comment\n60000\n60000 255\n",
    "tiff": b"II*\0\x08\0\0\0\x02\0"
    + b"".join(
        tag.to_bytes(2, "little") + b"\x04\0\x01\0\0\0" + (60000).to_bytes(4, "little")
        for tag in (256, 257)
    ),
    "webp": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\x3f" * 2,
}
BOMBS["jpeg"] = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(20)
BOMBS["jp2"] = b"\xff\x4f\xff\x51\0\x29\0\0" + (60000).to_bytes(4, "big") * 2


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_before_memory_is_taken(kind: str) -> None:
    with pytest.raises(ImageError, match=r"\d+ x \d+ px, more than the 134217728 px"):
        decode_image(BOMBS[kind])


def test_a_bomb_of_35_bytes_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.gif").write_bytes(BOMBS["gif"])
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from edgeface.images import read_image\n"
        "try:\n    read_image(sys.argv[1])\nexcept Exception as error:\n    print(error)\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "bomb.gif")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "65535 x 65535 px, more than" in done.stdout


def test_content_that_is_no_accepted_kind_never_reaches_a_decoder() -> None:
    for content in (b"v/1\x01" + bytes(100), b"#?RADIANCE\n", b"\x59\xa6\x6a\x95" + bytes(40)):
        with pytest.raises(ImageError, match="not an image"):
            decode_image(content)


@pytest.mark.parametrize("shape", [(512, 512), (511, 509), (64, 5000), (3, 4001)])
@pytest.mark.parametrize("block", [10_000, 100_000])
def test_scaling_in_steps_is_that_at_once(
    astronaut: Any, shape: tuple[int, int], block: int
) -> None:
    image = cv2.resize(astronaut, shape[::-1])
    width, height = max(1, shape[1] // 16), max(1, shape[0] // 16)
    once = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    steps = resized(image, width, height, block_bytes=block)
    assert steps.shape == once.shape
    assert np.abs(steps.astype(int) - once).mean() < 0.7
    parts = list(_parts(image, block))
    assert (np.concatenate(parts) == image).all()
    assert all(part.nbytes < block or len(part) == 1 for part in parts)


def test_more_pixels_than_are_accepted() -> None:
    """A few kB that claim 40000 x 40000 px are refused from the header, before memory is taken."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="40000 x 40000 px, more than the 134217728 px"):
        decode_image(content)
    with pytest.raises(ImageError, match=r"2\^30 px"):
        decode_image(content, max_pixels=1 << 40)
