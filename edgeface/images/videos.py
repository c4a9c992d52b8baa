"""Frames of video files, cameras and streams."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np

from edgeface.errors import EdgefaceError, ImageError
from edgeface.images.addresses import (
    COUNTED,
    TIMED,
    address_scheme,
    camera_number,
    is_live,
    shown,
    video_suffix,
)
from edgeface.images.scaling import Image
from edgeface.images.silence import opencv_quiet

TIMED_SHARE = 0.9
"""of the frames that such a duration makes, which sound may be longer than"""
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
"""FFmpeg, too, leaves it to our one line"""
WAIT_MS = 10_000
"""for a camera or server that says nothing"""
DEFAULT_FPS = 25.0
READ_S = 10.0
"""to look for the frames of a file that was written: 100,000 frames a second and more from memory,
and less than systemd gives a service to end"""


def video_frames(text: str) -> Generator[tuple[str, Image], None, None]:
    """Yield (``text#index``, uint8 RGB frame) of a video file, camera or address, until it ends;
    the password in an address is left out of the name.

    Raises ImageError where there is none, after the last frame where some could not be decoded, and
    where a camera or stream ends.
    """
    capture, name = _open_capture(text), shown(text)
    least, stated = _stated_frames(capture, text)
    index = 0
    try:
        while True:
            with opencv_quiet():
                good, frame = capture.read()
            if not good:
                break
            yield (
                f"{name}#{index}",
                np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8),
            )
            index += 1
    finally:
        capture.release()
    if is_live(text):
        raise ImageError(
            f"{name}: no more frames came after {index}: the camera or stream ended, or is gone"
        )
    if index == 0:
        raise ImageError(f"{name}: no frame could be decoded")
    if index < least:
        raise ImageError(
            f"{name}: {index} of {stated} frames could be decoded: the video is cut or damaged"
        )


def video_fps(text: str) -> float:
    """Frames per second that a video file states; 25 where it states none, and of a camera or
    stream, which is not opened twice."""
    if is_live(text):
        return DEFAULT_FPS
    capture = _open_capture(text)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return fps if 0 < fps < 1000 else DEFAULT_FPS


def frame_count(text: str) -> int:
    """Frames that a video file states; 0 where it states none or cannot be opened, and of a camera
    or stream."""
    try:
        if is_live(text):
            return 0
        capture = _open_capture(text)
    except ImageError:
        return 0
    stated = _stated_frames(capture, text)[1]
    capture.release()
    return stated


def stored_frames(path: Path, expected: int) -> int:
    """Frames that lie in a video file, up to ``expected``; it is read and not decoded.

    What its header states is not enough: an AVI states them before they are written. Of a long file
    the rest is taken for whole after READ_S.
    """
    until = time.monotonic() + READ_S
    with opencv_quiet():
        capture = cv2.VideoCapture(opencv_path(path, ImageError))
        capture.set(cv2.CAP_PROP_FORMAT, -1)  # packets as they lie there

    def found() -> bool:
        with opencv_quiet():  # each by itself: a Ctrl-C waits for no more
            return bool(capture.grab())

    count = 0
    while count < expected and found():
        count = count + 1 if time.monotonic() < until else expected
    capture.release()
    return count


def opencv_path(path: Path, error: type[EdgefaceError]) -> str:
    """Absolute: a colon in a relative path would name a protocol. Raises ``error`` as
    :func:`opencv_name` does."""
    return opencv_name(str(path.absolute()), error)


def opencv_name(text: str, error: type[EdgefaceError]) -> str:
    """A path or address of a video. Raises ``error`` for one that is not valid UTF-8, at which
    OpenCV would end the process."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise error(
            f"{shown(text)}: OpenCV takes only videos whose paths are valid UTF-8: rename it"
        ) from None
    return text


def _stated_frames(capture: cv2.VideoCapture, text: str) -> tuple[int, int]:
    """(fewest frames of a whole video, frames that it states); zeros where it states none."""
    suffix = video_suffix(text)
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if suffix not in COUNTED + TIMED or not 0 < count < 1 << 31:
        return 0, 0
    # The last frame of some files is one that only marks the end.
    least = count - 1 if suffix in COUNTED else TIMED_SHARE * count
    return int(least), int(count)


def _open_capture(text: str) -> cv2.VideoCapture:
    camera = camera_number(text)
    with opencv_quiet():
        if camera is not None:
            capture = cv2.VideoCapture(camera)
            what = "no camera opens: is it there, and in use by no other program?"
        elif address_scheme(text):
            wait = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                WAIT_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                WAIT_MS,
            ]
            capture = cv2.VideoCapture(opencv_name(text, ImageError), cv2.CAP_FFMPEG, wait)
            what = "no video comes from there: is the address right, and reached from here?"
        else:
            capture = cv2.VideoCapture(opencv_path(_existing(text), ImageError))
            what = "not a video that OpenCV can decode: make one with: ffmpeg -i FILE clip.mp4"
    if not capture.isOpened():
        capture.release()
        raise ImageError(f"{shown(text)}: {what}")
    return capture


def _existing(text: str) -> Path:
    path = Path(text)
    try:
        if path.is_file():
            return path
        what = f"{text} is not a regular file" if path.exists() else f"no video at {text}"
    except OSError as error:
        what = f"cannot read {text}: {error.strerror or error}"
    raise ImageError(what)
