"""Every kind of image that a user may have: decoded as viewers show it, or refused in one line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from edgeface.errors import ImageError
from edgeface.images.headers import exif_orientation, inspect
from edgeface.images.inputs import source_kind, sources
from edgeface.images.reading import as_rgb, decode_image, oriented, read_image
from edgeface.images.scaling import fit_size, letterbox
from edgeface.images.videos import video_fps

ORIENTATION = 0x0112
VERSION = tuple(int(part) for part in cv2.__version__.split(".")[:2])
needs_gif = pytest.mark.skipif(VERSION < (4, 11), reason="OpenCV reads GIF from 4.11 on")


def encode(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(a: Any, b: Any) -> float:
    assert a.shape == b.shape and a.dtype == np.uint8
    return float(np.abs(a.astype(int) - np.asarray(b).astype(int)).mean())


@pytest.fixture
def photo(astronaut: Any) -> Pillow.Image:
    return Pillow.fromarray(astronaut)


@pytest.mark.parametrize(
    ("kind", "mode", "options", "tolerance"),
    [
        ("PNG", "RGB", {}, 0),
        ("PNG", "P", {}, 0),
        ("PNG", "L", {}, 0),
        ("PNG", "1", {}, 0),
        ("BMP", "RGB", {}, 0),
        ("TIFF", "RGB", {}, 0),
        ("PPM", "RGB", {}, 0),
        pytest.param("GIF", "P", {}, 0, marks=needs_gif),
        ("JPEG", "RGB", {"quality": 95}, 2),
        ("JPEG", "RGB", {"quality": 95, "progressive": True}, 2),
        ("JPEG", "L", {"quality": 95}, 2),
        ("JPEG", "CMYK", {"quality": 95}, 4),
        ("WEBP", "RGB", {"lossless": True}, 0),
        ("WEBP", "RGB", {"quality": 95}, 3),
    ],
)
def test_decodes_as_shown(
    photo: Pillow.Image, kind: str, mode: str, options: dict[str, Any], tolerance: float
) -> None:
    stored = photo.convert(mode)
    shown = np.asarray(stored.convert("RGB"))
    assert difference(decode_image(encode(stored, kind, **options)), shown) <= tolerance


def test_16_bit_png_is_scaled(astronaut: Any) -> None:
    wide = astronaut.astype(np.uint16) * 257
    content = cv2.imencode(".png", wide[..., ::-1])[1].tobytes()
    assert difference(decode_image(content), astronaut) == 0
    grey = cv2.imencode(".png", wide[..., 0])[1].tobytes()
    assert difference(decode_image(grey), np.repeat(astronaut[..., :1], 3, axis=2)) == 0


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_transparency_shows_white(astronaut: Any, kind: str, options: dict[str, Any]) -> None:
    alpha = np.zeros((512, 512), np.uint8)
    alpha[:, 256:] = 255
    alpha[:, 250:256] = 128
    image = Pillow.fromarray(np.dstack([astronaut, alpha]))
    found = decode_image(encode(image, kind, **options))
    white = Pillow.new("RGBA", image.size, "white")
    assert difference(found, np.asarray(Pillow.alpha_composite(white, image).convert("RGB"))) < 0.1
    assert (found[:, :250] == 255).all()


def test_16_bit_rgba_and_grey_alpha(astronaut: Any) -> None:
    alpha = np.full((512, 512), 65535, np.uint16)
    alpha[:10] = 0
    wide = np.dstack([astronaut[..., ::-1].astype(np.uint16) * 257, alpha])
    found = decode_image(cv2.imencode(".png", wide)[1].tobytes())
    assert (found[:10] == 255).all() and difference(found[10:], astronaut[10:]) == 0
    two = Pillow.fromarray(astronaut).convert("LA")
    assert difference(decode_image(encode(two, "PNG")), np.asarray(two.convert("RGB"))) == 0


def test_palette_with_a_transparent_colour(photo: Pillow.Image) -> None:
    content = encode(photo.convert("P"), "PNG", transparency=3)
    image = Pillow.open(io.BytesIO(content)).convert("RGBA")
    shown = Pillow.alpha_composite(Pillow.new("RGBA", image.size, "white"), image).convert("RGB")
    assert difference(decode_image(content), np.asarray(shown)) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("WEBP", "RGBA")],
)
def test_exif_orientation_is_applied(
    astronaut: Any, kind: str, mode: str, orientation: int
) -> None:
    upright = astronaut[:400, :300]
    # The stored pixels are those that the orientation turns upright: 6 and 8 undo each other.
    stored = oriented(upright, {6: 8, 8: 6}.get(orientation, orientation))
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    by_kind: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
    image = Pillow.fromarray(stored).convert(mode)
    if mode == "RGBA":
        image.putpixel((0, 0), (0, 0, 0, 254))  # keeps encoders from dropping the alpha channel
    found = decode_image(encode(image, kind, exif=exif, **by_kind.get(kind, {})))
    assert difference(found, upright) < 3


def test_exif_block_that_lies() -> None:
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    whole = exif.tobytes()
    assert exif_orientation(whole) == 6
    for length in range(len(whole)):
        assert exif_orientation(whole[:length]) in (1, 6)
    assert exif_orientation(b"II*\0\xff\xff\xff\xff") == 1
    exif[ORIENTATION] = 99
    assert exif_orientation(exif.tobytes()) == 1


def test_end_of_a_jpeg(photo: Pillow.Image) -> None:
    """An EXIF thumbnail's end is not the photo's, and what cameras append behind it is ignored."""
    small, app = encode(photo.resize((16, 16)), "JPEG"), b"\xff\xe1"
    content = encode(photo, "JPEG")
    content = content[:2] + app + (len(small) + 2).to_bytes(2, "big") + small + content[2:]
    assert (
        decode_image(content).shape
        == decode_image(content + b"motion photo").shape
        == (512, 512, 3)
    )
    for length in (len(small) + 8, len(content) // 2, len(content) - 2):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(content[:length])


def test_one_pixel(tmp_path: Path) -> None:
    Pillow.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "dot.png")
    assert read_image(tmp_path / "dot.png").tolist() == [[[10, 20, 30]]]


def test_20000_by_20(tmp_path: Path) -> None:
    Pillow.new("RGB", (20000, 20), (10, 20, 30)).save(tmp_path / "strip.png")
    assert read_image(tmp_path / "strip.png").shape == (20, 20000, 3)


def test_100_megapixels() -> None:
    content = cv2.imencode(".png", np.zeros((10000, 10000), np.uint8))[1].tobytes()
    assert decode_image(content).shape == (10000, 10000, 3)


BAD_FILES = {
    "empty.jpg": b"",
    "text.png": b"this is no image at all, it is a text\n",
    "noise.jpg": bytes(range(256)) * 8,
    "header.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "header.png": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_get_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_truncated_files_are_refused(photo: Pillow.Image, kind: str, share: float) -> None:
    content = encode(photo, kind)
    with pytest.raises(ImageError):
        decode_image(content[: int(len(content) * share)])


def test_missing_folder_pipe_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no image at"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"cannot read|no image"):
        read_image(tmp_path / ("x" * 400 + ".jpg"))


def test_nothing_but_our_line_on_stderr(tmp_path: Path, photo: Pillow.Image) -> None:
    """OpenCV, libpng and libtiff would print lines of their own."""
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM"):
        content = encode(photo, kind)
        (tmp_path / f"cut.{kind.lower()}").write_bytes(content[: len(content) // 2])
    program = (
        "import sys; from edgeface.errors import ImageError; from edgeface.images import sources\n"
        "errors = []\n"
        "assert not list(sources(sys.argv[1:], errors.append))\n"
        "print(len(errors))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "7"
    if VERSION >= (4, 11):  # older versions bypass their own log
        assert result.stderr == ""


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_files_decode_or_raise_image_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "WEBP", "JPEG", "BMP", "PPM"]))
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    options = {} if kind in ("BMP", "PPM") else {"exif": exif}
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    content = bytearray(encode(Pillow.fromarray(pixels), kind, **options))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    inspect(bytes(content))
    try:
        image = decode_image(bytes(content))
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 30000), st.integers(1, 30000), st.integers(1, 64), st.integers(1, 64))
def test_fit_size_stays_inside_and_touches(
    width: int, height: int, columns: int, rows: int
) -> None:
    fitted = fit_size(width, height, columns * 32, rows * 32)
    assert 1 <= fitted[0] <= columns * 32 and 1 <= fitted[1] <= rows * 32
    assert fitted[0] == columns * 32 or fitted[1] == rows * 32


@pytest.mark.parametrize(
    "shape", [(1, 1), (20, 20000), (20000, 20), (480, 640), (300, 400), (961, 640)]
)
def test_letterbox(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    canvas, scale = letterbox(image, 640, 480)
    assert canvas.shape == (480, 640, 3) and canvas.dtype == np.uint8
    assert scale == min(640 / shape[1], 480 / shape[0])
    width, height = fit_size(shape[1], shape[0], 640, 480)
    assert (canvas[:height, :width] == 200).all()
    assert not canvas[height:].any() and not canvas[:, width:].any()


def test_letterbox_of_equal_size_copies(astronaut: Any) -> None:
    canvas, scale = letterbox(astronaut, 512, 512)
    assert (
        scale == 1 and np.array_equal(canvas, astronaut) and not np.shares_memory(canvas, astronaut)
    )


@pytest.mark.parametrize("shape", [(640, 640), (640, 160), (160, 640)])
def test_letterbox_averages_when_shrinking(shape: tuple[int, int]) -> None:
    """A checkerboard of single pixels becomes grey instead of aliasing to black or white."""
    board = (np.indices(shape).sum(0) % 2 * 255).astype(np.uint8)
    canvas = letterbox(np.dstack([board] * 3), 160, 160)[0][: shape[0] // 4, : shape[1] // 4]
    assert abs(int(canvas.min()) - 127) <= 1 and abs(int(canvas.max()) - 127) <= 1


@pytest.mark.parametrize("rows", [1, 8])
def test_letterbox_is_bilinear_when_enlarging(rows: int) -> None:
    """Of two columns at twice the size, the inner two are mixed 3 : 1."""
    image = np.tile(np.array([[[0] * 3, [100] * 3]], np.uint8), (rows, 1, 1))
    assert letterbox(image, 4, 2 * rows)[0][..., 0].tolist() == [[0, 25, 75, 100]] * 2 * rows


def test_as_rgb() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(as_rgb(grey), np.dstack([grey] * 3))
    assert np.array_equal(as_rgb(grey[..., None]), np.dstack([grey] * 3))
    mirrored = as_rgb(np.dstack([grey] * 3)[:, ::-1])
    assert mirrored.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint16),
        [[1, 2], [3, 4]],
        None,
    ],
)
def test_as_rgb_refuses(bad: Any) -> None:
    with pytest.raises(ImageError, match="expected a uint8 RGB array"):
        as_rgb(bad)


def test_sources_of_files_and_folders(tmp_path: Path, photo: Pillow.Image) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in ("b/2.jpg", "b/10.PNG", "b/deep/1.webp", "a.bmp"):
        photo.resize((8, 6)).save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    frames = sources([str(tmp_path / "b"), str(tmp_path / "a.bmp")])
    names = [name for name, frame in frames if frame.shape == (6, 8, 3)]
    assert names == [
        str(tmp_path / name) for name in ("b/10.PNG", "b/2.jpg", "b/deep/1.webp", "a.bmp")
    ]


def test_one_source_by_its_path_or_text(tmp_path: Path, photo: Pillow.Image) -> None:
    """A path given as text is not iterated: the letters of ./a.bmp would be folders, . and /."""
    photo.save(tmp_path / "a.bmp")
    (tmp_path / "b").mkdir()
    photo.save(tmp_path / "b" / "c.bmp")
    path = tmp_path / "a.bmp"
    for one in (path, str(path), [path], (str(path),)):
        assert [name for name, _ in sources(one)] == [str(path)]
    assert [name for name, _ in sources(tmp_path / "b")] == [str(tmp_path / "b" / "c.bmp")]


def test_sources_report_and_go_on(tmp_path: Path, photo: Pillow.Image) -> None:
    photo.resize((8, 6)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    errors: list[ImageError] = []
    frames = list(sources([str(tmp_path), "nowhere.mp4", "camera:x"], errors.append))
    assert [Path(name).name for name, _ in frames] == ["good.png"] and len(errors) == 3
    with pytest.raises(ImageError, match=r"bad\.png"):
        list(sources([str(tmp_path)]))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no images in"):
        list(sources([str(tmp_path)]))


def test_source_kind(tmp_path: Path) -> None:
    assert source_kind("camera:0") == "camera"
    assert source_kind(str(tmp_path)) == "folder"
    assert source_kind("x/clip.MP4") == "video"
    assert source_kind("x/photo.jpg") == source_kind("x/photo") == "image"


def test_video(tmp_path: Path, astronaut: Any) -> None:
    path = str(tmp_path / "clip.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (512, 512))
    for shift in range(3):
        writer.write(np.ascontiguousarray(np.roll(astronaut, 50 * shift, axis=1)[..., ::-1]))
    writer.release()
    frames = list(sources([path]))
    assert [name for name, _ in frames] == [f"{path}#{i}" for i in range(3)]
    assert difference(frames[1][1], np.roll(astronaut, 50, axis=1)) < 5
    assert video_fps(path) == 10


@pytest.mark.parametrize("text", ["camera:99", "camera:", "camera:-1", "camera:1x"])
def test_cameras_that_are_not_there(text: str) -> None:
    with pytest.raises(ImageError, match="camera"):
        list(sources([text]))


def test_video_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(ImageError, match="not a video"):
        list(sources([str(tmp_path / "clip.mp4")]))
