"""Images in: files, folders, videos and cameras -> uint8 RGB arrays; and the letterbox that fits
one to a network.

Everything that OpenCV can decode is turned into what a viewer would show: EXIF orientation applied
(JPEG, PNG, WebP, TIFF), grey and palette images as RGB, CMYK converted, 16 bits scaled to 8,
transparent PNG and WebP pixels laid over white, the first frame of an animation (GIF from OpenCV
4.11 on). Damaged files are refused, because half an image gives half the faces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import ImageError
from edgeface.images.headers import inspect

Image = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset(
    (
        ".avif",
        ".bmp",
        ".gif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    )
)
VIDEO_SUFFIXES = frozenset(
    (".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
)
CAMERA = "camera:"
_READ_RGB: int | None = getattr(
    cv2, "IMREAD_COLOR_RGB", None
)  # OpenCV 4.11 on: spares a copy of the image
ACCEPTED = "JPEG, PNG, WebP, BMP, GIF, TIFF, PNM, JPEG 2000 or AVIF"


def read_image(path: Path | str) -> Image:
    """Decode an image file to uint8 RGB [H, W, 3] in its displayed orientation.

    Raises ImageError, in one line, for a file that is missing, unreadable, empty, damaged, not an
    image, or larger than OpenCV's limit of 2^30 px (its variable OPENCV_IO_MAX_IMAGE_PIXELS sets
    another).
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder, not an image")
        if not path.is_file():
            raise ImageError(
                f"no image at {path}" if not path.exists() else f"{path} is not a regular file"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return decode_image(data)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def decode_image(data: bytes) -> Image:
    """Like :func:`read_image` for the content of a file."""
    if not data:
        raise ImageError("the file is empty")
    container = inspect(data)
    if not container.whole:
        raise ImageError("the image is truncated or damaged")
    if container.alpha:
        pixels = _imdecode(data, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            return oriented(_over_white(pixels), container.orientation)
    ours = cv2.IMREAD_IGNORE_ORIENTATION if container.orientation else 0
    if _READ_RGB is not None:
        rgb = _imdecode(data, _READ_RGB | ours)
    else:
        rgb = cv2.cvtColor(_imdecode(data, cv2.IMREAD_COLOR | ours), cv2.COLOR_BGR2RGB)
    return oriented(np.asarray(rgb, np.uint8), container.orientation)


def oriented(image: Image, orientation: int) -> Image:
    """Turn stored pixels into the displayed orientation (EXIF tag 0x0112; outside 2 to 8: as they
    are)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def fit_size(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """Largest (width, height) in px of the same ratio inside a box, both at least 1."""
    scale = min(box_width / width, box_height / height)
    return (
        min(box_width, max(1, round(width * scale))),
        min(box_height, max(1, round(height * scale))),
    )


def letterbox(image: Image, width: int, height: int) -> tuple[Image, float]:
    """Fit ``image`` [H, W, 3] into a canvas uint8 [height, width, 3]; return it with the scale
    canvas px / image px.

    The ratio is kept, the image sits at the top left, the rest is 0 (black)::

        +-------------+------+
        |   image     |  0   |
        +-------------+  0   |
        |   0     0      0   |
        +--------------------+

    A resized side has a whole number of pixels, so the true factor along one side differs a little
    from ``scale``: use :func:`fit_size` where that matters.
    """
    image_height, image_width = image.shape[:2]
    fitted = fit_size(image_width, image_height, width, height)
    return place(image, fitted, width, height), min(width / image_width, height / image_height)


def place(image: Image, fitted: tuple[int, int], width: int, height: int) -> Image:
    """Resize ``image`` to ``fitted`` (width, height) px at the top left of a black canvas uint8
    [height, width, 3].

    Bilinear when enlarging, area averages when shrinking: bilinear would skip pixels and let small
    faces alias.
    """
    canvas = np.zeros((height, width, 3), np.uint8)
    inside = canvas[: fitted[1], : fitted[0]]
    if fitted == image.shape[1::-1]:
        inside[:] = image
    else:
        shrinks = max(fitted) < max(image.shape[:2])
        # OpenCV writes to its own array: part of a canvas is not contiguous.
        inside[:] = cv2.resize(
            image, fitted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    return canvas


def as_rgb(image: NDArray[np.generic]) -> Image:
    """Check an array from a caller: uint8 RGB [H, W, 3], or grey [H, W] or [H, W, 1], which is
    repeated to RGB."""
    accepted = "expected a uint8 RGB array [H, W, 3] or a grey one [H, W]"
    if not isinstance(image, np.ndarray):
        raise ImageError(f"{accepted}, got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise ImageError(
            f"{accepted}, got dtype {image.dtype}: scale it to 0-255 and convert with"
            " astype('uint8')"
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ImageError(f"{accepted}, got shape {list(image.shape)}")
    rgb = np.broadcast_to(image, (*image.shape[:2], 3))
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def source_kind(text: str) -> str:
    """'camera', 'folder', 'video' or 'image': how :func:`sources` takes this input. A file's suffix
    decides."""
    if text.startswith(CAMERA):
        return "camera"
    if Path(text).is_dir():
        return "folder"
    return "video" if Path(text).suffix.lower() in VIDEO_SUFFIXES else "image"


def folder_images(folder: Path | str) -> list[Path]:
    """Image files under ``folder``, by suffix, at any depth, sorted. ImageError if there is
    none."""
    folder = Path(folder)
    try:
        found = sorted(
            p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
        )
    except OSError as error:
        raise ImageError(f"cannot read {folder}: {error.strerror or error}") from None
    if not found:
        raise ImageError(f"no images in {folder}: expected files such as .jpg, .png or .webp")
    return found


def sources(
    inputs: Sequence[str], on_error: Callable[[ImageError], None] | None = None
) -> Iterator[tuple[str, Image]]:
    """Yield (name, frame) of each image file, folder, video file or camera (``camera:0``); frames
    are uint8 RGB.

    Names are the paths; a video's or camera's frames are ``clip.mp4#0``, ``clip.mp4#1``, ... Memory
    holds one frame at a time. An input that cannot be read raises ImageError, or, with
    ``on_error``, is handed there and skipped.
    """
    for text in inputs:
        for name, read in _expand(text, on_error):
            try:
                yield from read(name)
            except ImageError as error:  # noqa: PERF203 - one bad file must not end the run
                _report(error, on_error)


def _expand(
    text: str, on_error: Callable[[ImageError], None] | None
) -> Iterator[tuple[str, Callable[[str], Iterator[tuple[str, Image]]]]]:
    """Names behind one input, each with the function that yields its frames."""
    kind = source_kind(text)
    if kind != "folder":
        yield text, video_frames if kind in ("camera", "video") else _one_frame
        return
    try:
        paths = folder_images(text)
    except ImageError as error:
        _report(error, on_error)
        return
    for path in paths:
        yield str(path), _one_frame


def _one_frame(path: str) -> Iterator[tuple[str, Image]]:
    yield path, read_image(path)


def video_frames(text: str) -> Iterator[tuple[str, Image]]:
    """Yield (``text#index``, uint8 RGB frame) of a video file or of ``camera:N``, until it ends."""
    capture = _open_capture(text)
    index = 0
    try:
        while True:
            with _quiet():
                good, frame = capture.read()
            if not good:
                break
            yield (
                f"{text}#{index}",
                np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8),
            )
            index += 1
    finally:
        capture.release()
    if index == 0:
        raise ImageError(f"{text}: no frame could be decoded")


def video_fps(text: str) -> float:
    """Frames per second that a video file or camera states; 25 where it states none."""
    capture = _open_capture(text)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return fps if 0 < fps < 1000 else 25.0


def _open_capture(text: str) -> cv2.VideoCapture:
    if text.startswith(CAMERA):
        number = text.removeprefix(CAMERA)
        if not (number.isascii() and number.isdigit() and len(number) <= 3):
            raise ImageError(f"{text!r} is not a camera: write camera:0 for the first one")
        target: int | str = int(number)
    else:
        target = text
        if not Path(text).is_file():
            raise ImageError(f"no video at {text}")
    with _quiet():
        capture = cv2.VideoCapture(target)
    if not capture.isOpened():
        capture.release()
        what = (
            "no camera opens" if isinstance(target, int) else "not a video that OpenCV can decode"
        )
        raise ImageError(f"{text}: {what}")
    return capture


def _report(error: ImageError, on_error: Callable[[ImageError], None] | None) -> None:
    if on_error is None:
        raise error
    on_error(error)


def _imdecode(data: bytes, flags: int) -> NDArray[Any]:
    try:
        with _quiet():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        if "MAX_IMAGE" in str(error):
            raise ImageError(
                "the image has more than the 2^30 px or 2^20 px a side that OpenCV accepts"
            ) from None
        raise ImageError("the image is damaged, or too large for the memory") from None
    if pixels is None:
        if _known_magic(data):
            raise ImageError(
                "the image is truncated, damaged, or of a kind that OpenCV cannot decode"
            )
        raise ImageError(f"not an image (expected {ACCEPTED})")
    return pixels


def _known_magic(data: bytes) -> bool:
    starts = (
        b"\xff\xd8\xff",
        b"\x89PNG",
        b"RIFF",
        b"GIF8",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"\0\0\0\x0cjP",
        b"P5",
        b"P6",
    )
    return data.startswith(starts) or data[4:8] == b"ftyp"


def _over_white(bgra: NDArray[Any]) -> Image:
    """uint8 or uint16 [H, W, 4] -> uint8 RGB [H, W, 3], row by row so that a large image needs
    little extra memory."""
    if bgra.dtype == np.uint16:
        bgra = (bgra >> 8).astype(np.uint8)
    rgb = np.empty((*bgra.shape[:2], 3), np.uint8)
    rows = max(1, (1 << 20) // bgra.shape[1])
    for top in range(0, len(bgra), rows):
        part = bgra[top : top + rows].astype(np.uint16)
        alpha = part[:, :, 3:]
        rgb[top : top + rows] = (part[:, :, 2::-1] * alpha + 255 * (255 - alpha) + 127) // 255
    return rgb


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's own log off stderr: what went wrong is told by our one line."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
