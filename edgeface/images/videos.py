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
"""least share of the frames that a TIMED file's duration stands for: sound may last longer than the
pictures"""
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
"""keeps FFmpeg's log off stderr: errors are reported in our one line"""
WAIT_MS = 10_000
"""timeout for opening and for reading an address"""
DEFAULT_FPS = 25.0
READ_S = 10.0
"""time limit for counting the frames of a written file: over 100,000 frames a second are counted
from memory, and systemd gives a service longer than this to end"""


def video_frames(text: str) -> Generator[tuple[str, Image], None, None]:
    """Yield (``text#index``, uint8 RGB frame) of a video file, camera or address, until it ends.

    User name and password of an address are left out of ``text``. Raises ImageError if it cannot be
    opened, after the last frame if some frames could not be decoded, and when a camera or stream
    ends.
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
    """Frames per second that a video file states; 25 if it states none, and for a camera or stream,
    which is not opened a second time."""
    if is_live(text):
        return DEFAULT_FPS
    capture = _open_capture(text)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return fps if 0 < fps < 1000 else DEFAULT_FPS


def frame_count(text: str) -> int:
    """Number of frames that a video file states; 0 if it states none or cannot be opened, and for a
    camera or stream."""
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
    """Number of frames in a video file, up to ``expected``, counted by reading without decoding.

    The number in the header is not enough: an AVI states it before the frames are written. After
    READ_S the rest of a long file is assumed to be complete.
    """
    until = time.monotonic() + READ_S
    with opencv_quiet():
        capture = cv2.VideoCapture(opencv_path(path, ImageError))
        capture.set(cv2.CAP_PROP_FORMAT, -1)  # packets as stored, not decoded

    def found() -> bool:
        with opencv_quiet():  # one block a packet: a Ctrl-C waits for its end
            return bool(capture.grab())

    count = 0
    while count < expected and found():
        count = count + 1 if time.monotonic() < until else expected
    capture.release()
    return count


def opencv_path(path: Path, error: type[EdgefaceError]) -> str:
    """The absolute path as text: OpenCV takes a colon in a relative path for a protocol. Raises
    ``error`` as :func:`opencv_name` does."""
    return opencv_name(str(path.absolute()), error)


def opencv_name(text: str, error: type[EdgefaceError]) -> str:
    """``text``, a path or address of a video. Raises ``error`` if it is not valid UTF-8, for which
    OpenCV would end the process."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise error(
            f"{shown(text)}: OpenCV takes only videos whose paths are valid UTF-8: rename it"
        ) from None
    return text


def _stated_frames(capture: cv2.VideoCapture, text: str) -> tuple[int, int]:
    """(fewest frames of a complete video, frames that it states); zeros if it states none."""
    suffix = video_suffix(text)
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if suffix not in COUNTED + TIMED or not 0 < count < 1 << 31:
        return 0, 0
    # In some files the last frame only marks the end.
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
