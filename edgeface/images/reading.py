"""Reads image files as uint8 RGB arrays.

Everything that OpenCV can decode becomes what a viewer would show: EXIF orientation (JPEG, PNG,
WebP, TIFF) or the rotation of an AVIF applied, grey and palette images as RGB, CMYK converted, more
than 8 bits and other maxima of PNM scaled to 8 bits, transparent pixels on white (not those of JPEG
2000 and of grey TIFFs), the first frame of an animation (GIF from OpenCV 4.11 on). Damaged files
are refused, because half an image gives half the faces. Files that claim too many pixels are
refused before memory is allocated for them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import ImageError, OptionError
from edgeface.files import read_file
from edgeface.images.headers import JPEG_MAGIC, PNG_MAGIC, inspect
from edgeface.images.scaling import Image
from edgeface.images.silence import Heard, listening, opencv_quiet
from edgeface.images.sizes import stated_size
from edgeface.types import Doubles

MAX_PIXELS = 1 << 27
"""largest number of pixels of an image by default: 134 million, 400 MB"""
AGAIN, PAUSE_S = 8, 0.003
"""number of further checks of a photo that seems damaged, if other threads run; the pause before
each is longer by PAUSE_S than the one before"""
_READ_RGB: int | None = getattr(
    cv2, "IMREAD_COLOR_RGB", None
)  # from OpenCV 4.11 on: saves a copy of the image
ACCEPTED = "JPEG, PNG, WebP, BMP, GIF, TIFF, PNM, JPEG 2000 or AVIF"


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image file to uint8 RGB [H, W, 3] in its displayed orientation.

    max_pixels: largest number of pixels accepted, by the file's header; OpenCV accepts at most 2^30
    unless the environment variable OPENCV_IO_MAX_IMAGE_PIXELS sets another limit. Raises
    ImageError, in one line, for a file that is missing, unreadable, empty, damaged, not an image,
    or larger than that.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder, not an image")
        if not path.exists():
            raise ImageError(f"no image at {path}")
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from None
    data = read_file(path, ImageError)
    try:
        return decode_image(data, max_pixels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """Like :func:`read_image` for the content of a file."""
    if not data:
        raise ImageError("the file is empty")
    _check_size(data, max_pixels)
    container = inspect(data)
    if not container.whole:
        raise ImageError("the image is truncated or damaged")
    if container.alpha or container.maximum:
        pixels = _as_bytes(_imdecode(data, cv2.IMREAD_UNCHANGED), container.maximum)
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            return oriented(_over_white(pixels, container.premultiplied), container.orientation)
        if container.maximum:
            shown = as_rgb(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
            return oriented(shown, container.orientation)
    ours = cv2.IMREAD_IGNORE_ORIENTATION if container.orientation else 0
    if _READ_RGB is not None:
        rgb = _imdecode(data, _READ_RGB | ours)
    else:
        rgb = cv2.cvtColor(_imdecode(data, cv2.IMREAD_COLOR | ours), cv2.COLOR_BGR2RGB)
    return oriented(np.asarray(rgb, np.uint8), container.orientation)


OnError = Callable[[ImageError], None]
"""called with the error of an input that is skipped"""


def read_or_tell(path: Path | str, on_error: OnError | None) -> Image | None:
    """Like :func:`read_image`; with ``on_error``, an ImageError is passed to it and None
    returned."""
    try:
        return read_image(path)
    except ImageError as error:
        if on_error is None:
            raise
        on_error(error)
        return None


def _check_size(data: bytes, max_pixels: int) -> None:
    """Raise ImageError for a file of another kind or with too many pixels."""
    try:
        size = stated_size(data)
    except ValueError:
        raise ImageError(f"not an image (expected {ACCEPTED})") from None
    if size is not None and size[0] * size[1] > max_pixels:
        raise ImageError(
            f"the image has {size[0]} x {size[1]} px, more than the {max_pixels} px that are"
            " accepted: scale it down, or allow more (--max-pixels of edgeface detect, max_pixels)"
        )


def oriented(image: Image, orientation: int) -> Image:
    """Turn stored pixels into the displayed orientation (EXIF tag 0x0112; values outside 2 to 8
    change nothing)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def as_rgb(image: NDArray[np.generic]) -> Image:
    """Check a caller's array: uint8 RGB [H, W, 3], or grey [H, W] or [H, W, 1], which is repeated
    to RGB. Raises ImageError."""
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


def finite(what: str, values: object, *shape: int) -> Doubles:
    """A caller's boxes or landmarks as [N, *shape]; a single one, [*shape], is accepted. Raises
    OptionError for another shape and for values that are not finite numbers."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())
    if array.shape == (0,):
        array = array.reshape(0, *shape)
    if array.shape == shape:
        array = array[None]
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        sides = ", ".join(map(str, shape))
        raise OptionError(
            f"{what} must be [N, {sides}] as detections.{what} has them, got "
            f"{list(array.shape) if array.ndim else type(values).__name__}"
        )
    if not np.isfinite(array).all():
        raise OptionError(f"{what} must be finite numbers, got NaN or infinity")
    return array


def _imdecode(data: bytes, flags: int) -> NDArray[Any]:
    """Decode ``data``. Raises ImageError if it is damaged.

    Warnings of decoders in other threads, such as a camera's, are heard, too. With other threads,
    the data are therefore checked again, and damage counts only if it is reported every time.
    """
    pixels, damaged = _heard_imdecode(data, flags)
    for pause in range(AGAIN if damaged and threading.active_count() > 1 else 0):
        time.sleep(pause * PAUSE_S)
        damaged = _heard_imdecode(data, cv2.IMREAD_REDUCED_GRAYSCALE_8)[1]
        if not damaged:
            break
    if damaged:
        raise ImageError("the image is truncated or damaged inside")
    return pixels


def _heard_imdecode(data: bytes, flags: int) -> tuple[NDArray[Any], bool]:
    """(pixels, True if libjpeg reported damage). Raises ImageError if decoding fails."""
    speaks = data.startswith((JPEG_MAGIC, PNG_MAGIC))
    try:
        with opencv_quiet(), listening() if speaks else contextlib.nullcontext(Heard()) as heard:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        if "MAX_IMAGE" in str(error):
            raise ImageError(
                "the image has more than the 2^30 px or 2^20 px a side that OpenCV accepts"
            ) from None
        raise ImageError("the image is damaged, or too large for the memory") from None
    if pixels is None:
        raise ImageError("the image is truncated, damaged, or of a kind that OpenCV cannot decode")
    return pixels, heard.tells_damage(data)


def _as_bytes(pixels: NDArray[Any], maximum: int) -> NDArray[Any]:
    """uint8 or uint16 -> uint8; ``maximum`` and larger values become 255. 0: the range of the
    type."""
    if not maximum:
        return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    values = np.minimum(np.arange(1 << 8 * pixels.itemsize), maximum)
    scaled = ((values * 255 + maximum // 2) // maximum).astype(np.uint8)
    found = np.empty(pixels.shape, np.uint8)
    for rows in _blocks(pixels):
        found[rows] = scaled[pixels[rows]]
    return found


def _over_white(bgra: NDArray[Any], premultiplied: bool) -> Image:
    """uint8 BGRA [H, W, 4] -> uint8 RGB [H, W, 3] on white."""
    rgb = np.empty((*bgra.shape[:2], 3), np.uint8)
    for rows in _blocks(bgra):
        part = bgra[rows].astype(np.uint16)
        alpha = part[:, :, 3:]
        colours = part[:, :, 2::-1]
        colours = np.minimum(colours, alpha) * 255 if premultiplied else colours * alpha
        rgb[rows] = (colours + 255 * (255 - alpha) + 127) // 255
    return rgb


def _blocks(pixels: NDArray[Any]) -> Iterator[slice]:
    """Slices of some rows each, so that a large image needs little extra memory."""
    rows = max(1, (1 << 20) // pixels.shape[1])
    return (slice(top, top + rows) for top in range(0, len(pixels), rows))
